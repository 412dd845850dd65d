//! Snapshots for other replicas: streamed in chunks while the partition goes on serving.
//!
//! A snapshot at log index i is the versions with an index up to i. Pinning makes pruning keep, per key, the
//! newest of those; older ones may go while the stream is under way, which no read that the receiver may
//! answer can tell.

use super::txn::records;
use super::{PartitionHeader, PartitionState};
use crate::key::EncodedKey;
use crate::mvcc::StoredVersion;
use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use std::ops::Bound;

/// What a key without anything for the snapshot counts against a chunk's bytes, so that a chunk's work is
/// bounded also where there is nothing to send.
const EMPTY_KEY_BYTES: usize = 64;

/// Where a snapshot stream stands: it goes on after this version of this key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotCursor {
    key: EncodedKey,
    timestamp: Timestamp,
}

/// A snapshot that is being streamed.
#[derive(Debug)]
pub(super) struct Pin {
    /// How many hold on to it.
    count: u32,
    /// What transactions held then. Their keys are above all others.
    held: Vec<StoredVersion>,
}

impl PartitionState {
    /// Holds on to the state as it is now until [`Self::unpin_snapshot`] with the header's index. Several pins
    /// of one index are counted.
    pub fn pin_snapshot(&mut self) -> PartitionHeader {
        let held = || Pin { count: 0, held: records::encode(&self.holdings, self.applied) };
        self.pins.entry(self.applied).or_insert_with(held).count += 1;
        self.header()
    }

    /// Lets go of a pinned snapshot; of one that is not pinned, nothing happens.
    pub fn unpin_snapshot(&mut self, index: u64) {
        if let Some(pins) = self.pins.get_mut(&index) {
            pins.count -= 1;
            if pins.count == 0 {
                self.pins.remove(&index);
            }
        }
    }

    /// The next versions of the snapshot pinned at `header_index`, after `after`: about `bytes_max` bytes, at
    /// least one version if there is one within reach. Goes on from the cursor that it answers, until that is
    /// none. A chunk can be empty before the end, where many keys are younger than the snapshot.
    pub fn snapshot_chunk(
        &self,
        header_index: u64,
        after: Option<&SnapshotCursor>,
        bytes_max: usize,
    ) -> (Vec<StoredVersion>, Option<SnapshotCursor>) {
        let mut chunk = Vec::new();
        let mut cursor = after.cloned();
        let mut bytes = 0;
        let start = after.map_or(Bound::Unbounded, |after| Bound::Included(&after.key));
        for (key, chain) in self.keys.range((start, Bound::Unbounded)) {
            let sent = after.filter(|after| after.key == *key).map(|after| after.timestamp);
            if bytes >= bytes_max && cursor != after.cloned() {
                return (chunk, cursor);
            }
            // The key that the last chunk ended in may just be through.
            let mut empty = sent.is_none();
            for version in chain.between(0, header_index, sent) {
                if bytes >= bytes_max && !chunk.is_empty() {
                    return (chunk, cursor);
                }
                let stored = StoredVersion { key: key.clone(), version: version.clone() };
                bytes += stored.weight();
                cursor = Some(SnapshotCursor { key: key.clone(), timestamp: version.timestamp });
                chunk.push(stored);
                empty = false;
            }
            if empty {
                bytes += EMPTY_KEY_BYTES;
                cursor = Some(SnapshotCursor { key: key.clone(), timestamp: Timestamp::MAX });
            }
        }
        let held = self.pins.get(&header_index).map_or(&[][..], |pin| &pin.held);
        for record in held.iter().filter(|record| after.is_none_or(|after| record.key > after.key)) {
            if bytes >= bytes_max && !chunk.is_empty() {
                return (chunk, cursor);
            }
            bytes += record.weight();
            cursor = Some(SnapshotCursor { key: record.key.clone(), timestamp: record.version.timestamp });
            chunk.push(record.clone());
        }
        (chunk, None)
    }
}
