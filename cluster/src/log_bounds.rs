//! How much log a node keeps, in relation to the data that it is the past of.
//!
//! The log holds what is in no checkpoint yet, and goes up to the one before the last. So a partition's part of it is, at
//! the most, twice what it logs between two checkpoints, and what all of them log between two should be a share of what
//! they hold: a small database that is overwritten without end takes little disk, and a large one is not written down all
//! the time.
//!
//! ```text
//! live data of a partition ▶ an eighth of it, 1 MiB at the least  ▶ its checkpoint is due after so much log
//! live data of a node      ▶ a quarter of it, 32 MiB at the least ▶ segments further back are emptied by force
//! ```
//!
//! A checkpoint that comes sooner costs little more than one that comes late: what it writes are the versions since the last
//! one, each once in its life. What it has besides is a sync, and a look at how much there is to do.
//!
//! # Caveats
//! With many partitions that all log at once the first bound does not imply the second: then checkpoints are forced.

/// A partition's checkpoint is due after this part of its live bytes were logged: half of [`NODE_PART`], since the log goes
/// only to the checkpoint before the last.
const PARTITION_PART: u64 = 8;

/// The log may be this part of the node's live bytes.
const NODE_PART: u64 = 4;

/// Log bytes that are worth a checkpoint, whatever the partition holds: below, its sync costs more than its content. Sixteen
/// partitions that log as much twice come to [`LOG_BYTES_MIN`].
pub const CHECKPOINT_BYTES_MIN: u64 = 1 << 20;

/// What the log may hold in any case: some seconds of small writes, so that a replica that was away for a moment finds
/// what it missed.
pub const LOG_BYTES_MIN: u64 = 32 << 20;

/// What the log may hold at the most, in times of the bytes after which any partition is checkpointed: twice, since it goes
/// only to the checkpoint before the last, and twice again, so that busy partitions are done by their own schedule.
const LOG_PER_CHECKPOINT: u64 = 4;

/// The bounds of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// Log bytes after which a partition is checkpointed, however much it holds.
    pub checkpoint_bytes_max: u64,
}

impl LogBounds {
    /// Log bytes after which a partition with so many live bytes is to be checkpointed.
    pub fn checkpoint_bytes(self, live_bytes: u64) -> u64 {
        (live_bytes / PARTITION_PART).max(CHECKPOINT_BYTES_MIN).min(self.checkpoint_bytes_max)
    }

    /// What the log of a node may hold whose partitions have so many live bytes together.
    pub fn log_bytes(self, live_bytes: u64) -> u64 {
        let most = self.checkpoint_bytes_max.saturating_mul(LOG_PER_CHECKPOINT);
        (live_bytes / NODE_PART).max(LOG_BYTES_MIN).min(most)
    }

    /// The same in whole segments behind the one that is being written.
    pub fn segments_behind(self, live_bytes: u64, segment_bytes: u64) -> usize {
        self.log_bytes(live_bytes).div_ceil(segment_bytes.max(1)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const BOUNDS: LogBounds = LogBounds { checkpoint_bytes_max: 256 * MIB };

    #[test]
    fn a_partition_logs_an_eighth_of_what_it_holds_within_bounds() {
        let due = |live: u64| BOUNDS.checkpoint_bytes(live);
        assert_eq!([0, 7 * MIB, 8 * MIB].map(due), [MIB; 3]);
        assert_eq!(due(40 * MIB), 5 * MIB);
        assert_eq!([2048 * MIB, 2049 * MIB, u64::MAX].map(due), [256 * MIB; 3]);
    }

    #[test]
    fn a_nodes_log_is_a_quarter_of_what_it_holds_within_bounds() {
        let log = |live: u64| BOUNDS.log_bytes(live);
        assert_eq!([0, 11 * MIB, 128 * MIB].map(log), [32 * MIB; 3]);
        assert_eq!(log(200 * MIB), 50 * MIB);
        assert_eq!([4096 * MIB, 8192 * MIB, u64::MAX].map(log), [1024 * MIB; 3]);
    }

    #[test]
    fn partitions_that_log_up_to_their_bound_stay_within_the_nodes() {
        for live in (0..100_000).step_by(77).map(|mib| mib * MIB) {
            for partitions in [1, 3, 16] {
                let log = 2 * partitions * BOUNDS.checkpoint_bytes(live / partitions);
                // More data than that has the bound of the node's settings, which is met by force.
                if live <= 4096 * MIB {
                    assert!(log <= BOUNDS.log_bytes(live), "{log} with {live} in {partitions}");
                }
            }
        }
    }

    #[test]
    fn what_is_set_bounds_even_the_least() {
        let small = LogBounds { checkpoint_bytes_max: 64 << 10 };
        assert_eq!((small.checkpoint_bytes(MIB), small.log_bytes(MIB)), (64 << 10, 256 << 10));
        assert_eq!(LogBounds { checkpoint_bytes_max: u64::MAX }.log_bytes(u64::MAX), u64::MAX / 4);
    }

    #[test]
    fn segments_are_whole() {
        assert_eq!(BOUNDS.segments_behind(0, 16 * MIB), 2);
        assert_eq!(BOUNDS.segments_behind(130 * MIB, 16 * MIB), 3);
        assert_eq!(BOUNDS.segments_behind(0, 1 << 30), 1);
        assert_eq!(BOUNDS.segments_behind(0, 0), 32 << 20);
    }
}
