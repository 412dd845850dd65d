//! When to try again: a growing, jittered pause, and a budget that all calls of a client share.
//!
//! The budget is a token bucket. A retry takes a token; successes and time bring them back. An empty bucket
//! does not fail a call (its deadline does that), it makes retries wait for their turn, so
//! that a cluster in trouble sees a bounded rate of them however many callers there are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Jitter for pauses: cheap, shared without a lock, and reproducible from its seed (SplitMix64, Steele et
/// al. 2014).
#[derive(Debug)]
pub(crate) struct Jitter(AtomicU64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    pub(crate) fn next(&self) -> u64 {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Somewhere from half of `pause` to all of it.
    pub(crate) fn shorten(&self, pause: Duration) -> Duration {
        let half = pause / 2;
        let span_ns = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_nanos(self.next() % span_ns)
    }
}

/// The pause before the `attempt`-th retry (from 1 on), before jitter: doubling from `base` to `max`.
pub(crate) fn pause(attempt: u32, base: Duration, max: Duration) -> Duration {
    base.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(max)
}

/// Limits of the retries that all calls of a client make together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    /// Retries that may happen at once after a quiet time.
    pub burst: u32,
    /// Retries per second that are always allowed.
    pub per_second: f64,
    /// Further retries allowed per successful call.
    pub per_success: f64,
}

impl Default for RetryBudget {
    /// Room for a failover seen by a few hundred callers at once (a handful of retries each), and at the most a
    /// tenth more load than the successful calls make.
    fn default() -> Self {
        Self { burst: 500, per_second: 200.0, per_success: 0.1 }
    }
}

/// The bucket behind a [`RetryBudget`].
#[derive(Debug)]
pub(crate) struct Bucket {
    budget: RetryBudget,
    /// Below zero when retries are waiting for tokens that are still to come.
    tokens: f64,
    refilled: Instant,
}

impl Bucket {
    pub(crate) fn new(budget: RetryBudget, now: Instant) -> Self {
        Self { budget, tokens: f64::from(budget.burst), refilled: now }
    }

    pub(crate) fn succeeded(&mut self) {
        self.tokens = (self.tokens + self.budget.per_success).min(f64::from(self.budget.burst));
    }

    /// Takes a token and answers how long to wait before using it. None when the wait would be over
    /// `patience`; nothing is taken then.
    pub(crate) fn take(&mut self, now: Instant, patience: Duration) -> Option<Duration> {
        let elapsed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.refilled = now;
        self.tokens = (self.tokens + elapsed * self.budget.per_second).min(f64::from(self.budget.burst));
        let missing = 1.0 - self.tokens;
        let wait = if missing <= 0.0 {
            Duration::ZERO
        } else {
            Duration::try_from_secs_f64(missing / self.budget.per_second).ok()?
        };
        if wait > patience {
            return None;
        }
        self.tokens -= 1.0;
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit() {
        let (base, max) = (Duration::from_millis(10), Duration::from_millis(500));
        let pauses: Vec<_> = (1..=8).map(|attempt| pause(attempt, base, max).as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 500, 500]);
        assert_eq!(pause(u32::MAX, base, max), max);
    }

    #[test]
    fn jitter_stays_between_half_and_all_and_repeats_from_its_seed() {
        let (a, b) = (Jitter::new(7), Jitter::new(7));
        let whole = Duration::from_millis(100);
        for _ in 0..1000 {
            let pause = a.shorten(whole);
            assert!(pause >= whole / 2 && pause < whole, "{pause:?}");
            assert_eq!(pause, b.shorten(whole));
        }
    }

    #[test]
    fn an_empty_bucket_makes_retries_queue_at_its_rate() {
        let start = Instant::now();
        let budget = RetryBudget { burst: 2, per_second: 10.0, per_success: 0.5 };
        let mut bucket = Bucket::new(budget, start);
        let patience = Duration::from_millis(250);
        let waits: Vec<_> = (0..5).map(|_| bucket.take(start, patience).map(|w| w.as_millis())).collect();
        assert_eq!(waits, [Some(0), Some(0), Some(100), Some(200), None]);
        // Two successes pay for one retry, and time for the others.
        bucket.succeeded();
        bucket.succeeded();
        assert_eq!(bucket.take(start, patience).map(|w| w.as_millis()), Some(200));
        let later = start + Duration::from_secs(60);
        assert_eq!(bucket.take(later, patience), Some(Duration::ZERO));
        assert_eq!(bucket.take(later, patience), Some(Duration::ZERO));
        assert_ne!(bucket.take(later, patience), Some(Duration::ZERO), "no more than the burst is saved up");
    }

    #[test]
    fn a_budget_without_refill_ends() {
        let start = Instant::now();
        let budget = RetryBudget { burst: 1, per_second: 0.0, per_success: 0.0 };
        let mut bucket = Bucket::new(budget, start);
        assert_eq!(bucket.take(start, Duration::MAX), Some(Duration::ZERO));
        assert_eq!(bucket.take(start, Duration::MAX), None);
    }
}
