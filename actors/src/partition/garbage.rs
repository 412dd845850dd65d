//! What a partition does to forget its past: steps of garbage collection, and what they wait for.
//!
//! ```text
//! something is superseded ──▶ the GC floor passes it ──▶ a checkpoint holds what superseded it ──▶ a step forgets it
//!                               moves with entries           by its own schedule
//! ```
//!
//! The floor moves with the entries of the log. Where none come, the leader proposes an empty one when there is something
//! to forget, though not for each bit of it. On a node whose memory is used up nothing is waited for that can be hastened.

use super::Partition;
use super::message::{LocalPartition, PartitionMessage};
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::Timestamp;

/// Keys looked at and versions forgotten in one step: some two milliseconds, in which the partition answers nothing.
const STEPS_MAX: usize = 2048;

/// Between two steps while there is more to forget: of a partition's time, a fifth at the most.
const PAUSE: Duration = Duration::from_millis(8);

/// How long an idle partition's floor may lag behind, in parts of the history that is kept, and what bounds it: each time
/// that it is moved costs an entry.
const LAG_PART: u64 = 16;
const LAG_MS_MIN: u64 = 1_000;
const LAG_MS_MAX: u64 = 60_000;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Collection {
    /// The next step comes by itself.
    armed: bool,
    /// When an entry was last proposed for the floor's sake.
    moved: Instant,
}

impl Collection {
    pub(super) fn new(now: Instant) -> Self {
        Self { armed: false, moved: now }
    }
}

impl Partition {
    /// One step; more follow as long as they find something.
    pub(super) fn collect(&mut self) {
        self.collection.armed = false;
        let gone = self.state.gc_step(STEPS_MAX);
        if !self.state.has_garbage() {
            return;
        }
        if gone > 0 {
            self.collection.armed = true;
            self.me.send_after(PAUSE, || PartitionMessage::Local(LocalPartition::Collect));
        } else if self.context.memory.is_full() {
            self.force_checkpoint();
        }
    }

    /// Once per tick.
    pub(super) fn tend_garbage(&mut self) {
        if !self.collection.armed {
            self.collect();
        }
        if self.wants_floor() {
            self.collection.moved = Instant::now();
            self.writes.move_floor();
            self.pump();
        }
    }

    /// Whether the floor could be so much higher that something would be forgotten, and no write is about to move it.
    fn wants_floor(&self) -> bool {
        let Some(since) = self.state.garbage_since().filter(|since| *since > self.state.gc_floor()) else {
            return false;
        };
        let history_ms = self.context.config.storage.history_ms;
        let now = Timestamp::from_millis(self.context.clock.now_ms());
        let lag_ms = lag_ms(history_ms, self.context.memory.is_full());
        since <= now.minus_millis(history_ms + lag_ms)
            // Should this node's clock be ahead of the oracle's, the entry may not help.
            && self.collection.moved.elapsed() >= Duration::from_millis(lag_ms)
            && self.writes.is_idle()
            && self.takes_proposals().is_ok()
    }
}

/// How far the floor of an idle partition may lag behind.
fn lag_ms(history_ms: u64, full: bool) -> u64 {
    if full { LAG_MS_MIN } else { (history_ms / LAG_PART).clamp(LAG_MS_MIN, LAG_MS_MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_lags_by_a_part_of_the_history_within_bounds() {
        assert_eq!(lag_ms(1_000, false), LAG_MS_MIN);
        assert_eq!(lag_ms(160_000, false), 10_000);
        assert_eq!(lag_ms(3_600_000, false), LAG_MS_MAX);
        assert_eq!(lag_ms(3_600_000, true), LAG_MS_MIN);
    }
}
