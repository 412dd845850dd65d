//! The circuit breaker of one node: after several failures in a row the node is left alone for a while, then
//! one call may probe it.
//!
//! ```text
//!           N failures              time passed
//!  Closed ─────────────▶ Open ─────────────────▶ HalfOpen ──success──▶ Closed
//!                         ▲                          │
//!                         └────── failure (longer) ──┘
//! ```

use std::time::Duration;
use tokio::time::Instant;

/// When a node is left alone, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerOptions {
    /// Failures in a row that open the breaker.
    pub failures: u32,
    /// How long it stays open at first; doubles with each failed probe.
    pub open: Duration,
    /// How long it stays open at the most: a node that comes back is used again after this.
    pub open_max: Duration,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self { failures: 3, open: Duration::from_millis(200), open_max: Duration::from_secs(2) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, pause: Duration },
    HalfOpen { since: Instant, pause: Duration },
}

/// A pure state machine; the caller brings the time.
#[derive(Debug)]
pub(crate) struct Breaker {
    options: BreakerOptions,
    state: State,
}

impl Breaker {
    pub(crate) fn new(options: BreakerOptions) -> Self {
        Self { options, state: State::Closed { failures: 0 } }
    }

    /// Whether the node may be called now, without claiming the probe.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// Whether a call may go to the node. Claims the probe when one is due.
    pub(crate) fn admit(&mut self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until, pause } if now >= until => {
                self.state = State::HalfOpen { since: now, pause };
                true
            }
            // A probe whose caller went away must not keep the node out for ever.
            State::HalfOpen { since, pause } if now >= since + self.options.open_max => {
                self.state = State::HalfOpen { since: now, pause };
                true
            }
            State::Open { .. } | State::HalfOpen { .. } => false,
        }
    }

    pub(crate) fn succeeded(&mut self) {
        self.state = State::Closed { failures: 0 };
    }

    pub(crate) fn failed(&mut self, now: Instant) {
        self.state = match self.state {
            State::Closed { failures } if failures + 1 < self.options.failures => {
                State::Closed { failures: failures + 1 }
            }
            State::Closed { .. } => State::Open { until: now + self.options.open, pause: self.options.open },
            State::HalfOpen { pause, .. } => {
                let pause = (pause * 2).min(self.options.open_max);
                State::Open { until: now + pause, pause }
            }
            // Late failures of calls that were under way when it opened say nothing new.
            open @ State::Open { .. } => open,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: BreakerOptions = BreakerOptions {
        failures: 3,
        open: Duration::from_millis(100),
        open_max: Duration::from_millis(300),
    };

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(OPTIONS);
        for _ in 0..3 {
            assert!(breaker.admit(now));
            breaker.failed(now);
        }
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_only() {
        let now = Instant::now();
        let mut breaker = Breaker::new(OPTIONS);
        for _ in 0..10 {
            breaker.failed(now);
            breaker.failed(now);
            breaker.succeeded();
        }
        assert!(breaker.is_closed());
        assert!(!opened(now).admit(now));
    }

    #[test]
    fn one_probe_at_a_time_decides() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let due = now + OPTIONS.open;
        assert!(breaker.admit(due), "the probe");
        assert!(!breaker.admit(due), "only one");
        breaker.succeeded();
        assert!(breaker.admit(due) && breaker.admit(due));
    }

    #[test]
    fn failed_probes_lengthen_the_pause_to_its_limit() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        for pause_ms in [100, 200, 300, 300] {
            assert!(!breaker.admit(now + Duration::from_millis(pause_ms - 1)));
            now += Duration::from_millis(pause_ms);
            assert!(breaker.admit(now), "after {pause_ms} ms");
            breaker.failed(now);
        }
    }

    #[test]
    fn a_lost_probe_is_replaced() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let due = now + OPTIONS.open;
        assert!(breaker.admit(due));
        assert!(!breaker.admit(due + OPTIONS.open_max - Duration::from_millis(1)));
        assert!(breaker.admit(due + OPTIONS.open_max));
    }
}
