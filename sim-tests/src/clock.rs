//! The wall clock's door: simulated time since a fixed day, and how wrong a machine has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use trandb_runtime::clock::Clock;

/// Where every simulation begins, in milliseconds since the Unix epoch: a round number, the same for all runs.
pub const BEGIN_MS: u64 = 1_800_000_000_000;

/// A simulated machine's wall clock. Clones are the same clock.
#[derive(Debug, Default, Clone)]
pub struct SimClock {
    ahead_ms: Arc<AtomicI64>,
}

impl SimClock {
    /// A clock that is ahead of the others, or behind them.
    pub fn ahead(ahead_ms: i64) -> Self {
        Self { ahead_ms: Arc::new(AtomicI64::new(ahead_ms)) }
    }

    /// Moves the clock, forward or back.
    pub fn jump(&self, by_ms: i64) {
        self.ahead_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default();
        (BEGIN_MS + elapsed.as_millis() as u64).saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed))
    }
}
