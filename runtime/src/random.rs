//! The door of randomness: one seedable generator that is handed to whoever needs it.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A source of random numbers, good enough for nonces and ids. Clones draw from the same stream, so a
/// seeded one makes a whole process repeat itself.
#[derive(Debug, Clone)]
pub struct Random(Arc<Mutex<StdRng>>);

impl Random {
    /// Seeded by the operating system.
    #[allow(clippy::disallowed_methods, reason = "this is the door")]
    pub fn from_entropy() -> Self {
        Self(Arc::new(Mutex::new(rand::make_rng())))
    }

    /// Draws the same numbers for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// Any number.
    pub fn next_u64(&self) -> u64 {
        self.generator().next_u64()
    }

    /// A number from `low` to `high`, both included; the two may stand in either order. Uneven by less
    /// than one in 2^32 for spans below 2^32, which backoff and sampling do not feel.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        let (low, high) = (low.min(high), low.max(high));
        match (high - low).checked_add(1) {
            Some(span) => low + self.next_u64() % span,
            None => self.next_u64(),
        }
    }

    /// Fills `bytes`.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.generator().fill_bytes(bytes);
    }

    fn generator(&self) -> MutexGuard<'_, StdRng> {
        // A generator has no invariant that a panicking holder could have broken.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_clones_share_the_stream() {
        let (one, two) = (Random::seeded(7), Random::seeded(7));
        let first: Vec<_> = (0..4).map(|_| one.next_u64()).collect();
        let clone = two.clone();
        let second = vec![two.next_u64(), clone.next_u64(), two.next_u64(), clone.next_u64()];
        assert_eq!(first, second);
        assert_ne!(first[0], Random::seeded(8).next_u64());
    }

    #[test]
    fn between_stays_within_its_ends() {
        let random = Random::seeded(1);
        let drawn: Vec<_> = (0..1000).map(|_| random.between(12, 10)).collect();
        assert!((10..=12).all(|n| drawn.contains(&n)));
        assert!(drawn.iter().all(|n| (10..=12).contains(n)));
        random.between(0, u64::MAX);
    }
}
