//! The wall clock's door: simulated time since a fixed day.

use trandb_runtime::clock::Clock;

/// Where every simulation begins, in milliseconds since the Unix epoch: a round number, the same for all runs.
pub const BEGIN_MS: u64 = 1_800_000_000_000;

/// A simulated host's wall clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SimClock {
    /// How far it is ahead of the others.
    pub ahead_ms: u64,
}

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default();
        BEGIN_MS + self.ahead_ms + elapsed.as_millis() as u64
    }
}
