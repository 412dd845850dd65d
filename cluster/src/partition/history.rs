//! The digests of the last log indices, so that replicas that are not equally far can be compared at an index
//! that all of them have passed.

use crate::digest::Digest;
use std::collections::VecDeque;

/// Log entries whose digests are remembered: 160 KiB per partition at the most, and some tenths of a second
/// of writes at full speed, which is what asking all replicas takes. What is further back cannot be compared.
pub const DIGEST_HISTORY_MAX: usize = 4096;

#[derive(Debug)]
struct Point {
    index: u64,
    digest: Digest,
    live_keys: u64,
}

/// Never empty: it starts with the state that the replica was made with.
#[derive(Debug)]
pub(super) struct History {
    points: VecDeque<Point>,
}

impl Default for History {
    fn default() -> Self {
        Self::starting_at(0, Digest::default(), 0)
    }
}

impl History {
    pub(super) fn starting_at(index: u64, digest: Digest, live_keys: u64) -> Self {
        Self { points: VecDeque::from([Point { index, digest, live_keys }]) }
    }

    /// Indices come in strictly increasing order.
    pub(super) fn record(&mut self, index: u64, digest: Digest, live_keys: u64) {
        if self.points.len() == DIGEST_HISTORY_MAX {
            self.points.pop_front();
        }
        self.points.push_back(Point { index, digest, live_keys });
    }

    /// The state right after `index`: that of the last point not after it.
    pub(super) fn at(&self, index: u64) -> Option<(Digest, u64)> {
        let after = self.points.partition_point(|point| point.index <= index);
        let point = self.points.get(after.checked_sub(1)?)?;
        Some((point.digest, point.live_keys))
    }
}
