//! What is to be written to and removed from the storage engine.
//!
//! A checkpoint at log index i consists of the versions after the last committed one up to i, and a header.
//! Its caller runs:
//!
//! ```text
//! begin_checkpoint ─▶ header
//! checkpoint_puts, until there are none ─▶ engine.put
//! engine.commit(header)
//! end_checkpoint(committed)
//! checkpoint_removes, until empty ─▶ engine.remove, before the next engine.commit
//! ```
//!
//! It may ask for the removals before it ends the checkpoint, as long as it removes nothing before the commit.
//! Writes go on all the while. When the process dies on the way, the engine holds the header of the
//! checkpoint before and perhaps some newer records, which restoring ignores and the next checkpoint puts again.
//!
//! # When a record may be removed
//! What was pruned before a checkpoint began may go after that one is committed: its header carries
//! the GC floor that pruning went by. Removal need not be durable by itself, and a record that comes back is
//! pruned again, with one exception: a key's tombstone must not go while an older record could come
//! back, or the key would rise from the dead. So a tombstone goes only when a whole checkpoint was committed
//! after the removals before it were handed out, which made them durable. An engine that failed to remove
//! what it was told to is therefore not to be used further.
//!
//! # What never becomes a record
//! A version that is superseded below the GC floor before a checkpoint that would hold it began is forgotten at once. So
//! what a checkpoint puts is bounded by what is live and what history is asked for, however long ago the last one was.

use super::txn::records;
use super::{PartitionHeader, PartitionState};
use crate::key::EncodedKey;
use crate::mvcc::StoredVersion;
use crate::timestamp::Timestamp;
use std::collections::BTreeSet;

/// An engine record that is no longer needed.
#[derive(Debug)]
struct Removal {
    key: EncodedKey,
    timestamp: Timestamp,
    /// It is a tombstone and the last that was known of its key.
    tombstone: bool,
}

/// Keys that one step of a checkpoint looks at, whether they have something to put or not: well below a millisecond.
const KEYS_MAX: usize = 256;

/// A checkpoint on its way.
#[derive(Debug)]
struct Running {
    index: u64,
    /// Keys with versions to put.
    keys: Vec<EncodedKey>,
    /// Which of `keys` is next.
    next: usize,
    /// The last version of that key that was handed out.
    after: Option<Timestamp>,
    /// What transactions hold, as of the index: the records that are still to be put.
    held: Vec<StoredVersion>,
    /// All of these by name.
    held_names: Vec<(EncodedKey, Timestamp)>,
}

/// Which versions the engine lacks and which it has too many. The removals that wait are bounded by the
/// versions of one checkpoint, since only what is in one needs any.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// The log index of the last committed checkpoint; zero if there is none.
    committed: u64,
    /// The highest log index up to which any checkpoint was begun, committed or not: what came later has no record.
    begun: u64,
    /// Every key whose newest version came after [`Self::dirty_since`], each once.
    dirty: Vec<EncodedKey>,
    running: Option<Running>,
    /// Pruned since the last checkpoint began.
    pruned: Vec<Removal>,
    /// Tombstones pruned since the last checkpoint began.
    tombstones: Vec<Removal>,
    /// Tombstones pruned before that, waiting until what was pruned with them is durably gone.
    tombstones_waiting: Vec<Removal>,
    /// May be removed once the running checkpoint is committed; without one, at once.
    removable: Vec<Removal>,
    /// Handed out to be removed after the running checkpoint's commit.
    handed_out: Vec<Removal>,
    /// The records of what transactions hold as of the last committed checkpoint.
    held: Vec<(EncodedKey, Timestamp)>,
    /// Such records of other checkpoints. Restoring ignores them, so they may be removed whenever no checkpoint is
    /// running, which might be about to put one of the same name.
    held_garbage: Vec<(EncodedKey, Timestamp)>,
}

impl Checkpoints {
    /// As of a replica that was just restored from the checkpoint at `index`. There may be records of checkpoints that
    /// were begun since, up to the index `begun`.
    pub(super) fn committed_at(
        index: u64,
        begun: u64,
        held: Vec<(EncodedKey, Timestamp)>,
        held_garbage: Vec<(EncodedKey, Timestamp)>,
    ) -> Self {
        Self { committed: index, begun: begun.max(index), held, held_garbage, ..Self::default() }
    }

    /// As of a replica whose engine holds nothing; `keys` are all it has.
    pub(super) fn all_dirty(keys: Vec<EncodedKey>) -> Self {
        Self { dirty: keys, ..Self::default() }
    }

    pub(super) fn committed(&self) -> u64 {
        self.committed
    }

    /// What came after this log index was never handed to the engine, so that no record of it needs to be removed.
    pub(super) fn begun(&self) -> u64 {
        self.begun
    }

    /// Versions after this log index are in no checkpoint, not even in a running one.
    pub(super) fn dirty_since(&self) -> u64 {
        self.running.as_ref().map_or(self.committed, |running| running.index)
    }

    /// Notes a key whose newest version was not after [`Self::dirty_since`] until now.
    pub(super) fn mark_dirty(&mut self, key: &EncodedKey) {
        self.dirty.push(key.clone());
    }

    /// A version was pruned because a newer one of its key replaces it.
    pub(super) fn superseded(&mut self, key: &EncodedKey, timestamp: Timestamp) {
        self.pruned.push(Removal { key: key.clone(), timestamp, tombstone: false });
    }

    /// A key's last version, a tombstone, was pruned.
    pub(super) fn key_forgotten(&mut self, key: &EncodedKey, timestamp: Timestamp) {
        self.tombstones.push(Removal { key: key.clone(), timestamp, tombstone: true });
    }

    fn begin(&mut self, index: u64, held: Vec<StoredVersion>) {
        let keys = std::mem::take(&mut self.dirty);
        let held_names: Vec<_> = held.iter().map(|one| (one.key.clone(), one.version.timestamp)).collect();
        // What is put again under the same name is garbage no more.
        let again: BTreeSet<&(EncodedKey, Timestamp)> = held_names.iter().collect();
        self.held_garbage.retain(|name| !again.contains(name));
        self.begun = self.begun.max(index);
        self.running = Some(Running { index, keys, next: 0, after: None, held, held_names });
        if self.removable.is_empty() {
            // All that waited was handed out before; this checkpoint's commit makes its removal durable.
            join(&mut self.removable, &mut self.tombstones_waiting);
        }
        join(&mut self.removable, &mut self.pruned);
        join(&mut self.tombstones_waiting, &mut self.tombstones);
    }

    /// Answers the keys of the checkpoint, where nobody has a use for them any more.
    fn end(&mut self, committed: bool) -> Vec<EncodedKey> {
        let Some(running) = self.running.take() else { return Vec::new() };
        let handed_out = std::mem::take(&mut self.handed_out);
        if committed {
            // A checkpoint of an index that already has one writes the same records once more.
            if running.index != self.committed {
                self.held_garbage.append(&mut self.held);
            }
            self.committed = running.index;
            self.held = running.held_names;
            return running.keys;
        }
        if running.index != self.committed {
            self.held_garbage.extend(running.held_names);
        }
        // Written meanwhile as well: once is enough.
        self.dirty.extend(running.keys);
        self.dirty.sort_unstable();
        self.dirty.dedup();
        for removal in handed_out.into_iter().chain(std::mem::take(&mut self.removable)) {
            if removal.tombstone {
                self.tombstones.push(removal);
            } else {
                self.pruned.push(removal);
            }
        }
        self.tombstones.append(&mut self.tombstones_waiting);
        Vec::new()
    }

    fn removes(&mut self, max: usize) -> Vec<(EncodedKey, Timestamp)> {
        let removals = take_last(&mut self.removable, max);
        if self.running.is_none() {
            let garbage = take_last(&mut self.held_garbage, max - removals.len());
            let removals = removals.into_iter().map(|removal| (removal.key, removal.timestamp));
            return removals.chain(garbage).collect();
        }
        let records = removals.iter().map(|removal| (removal.key.clone(), removal.timestamp)).collect();
        self.handed_out.extend(removals);
        records
    }
}

/// Adds all of `more`, of which nothing is left. Copies the fewer: one of the two is mostly empty, the other may have millions.
fn join<T>(all: &mut Vec<T>, more: &mut Vec<T>) {
    if all.len() < more.len() {
        std::mem::swap(all, more);
    }
    all.append(more);
}

/// The last ones, at most so many.
fn take_last<T>(all: &mut Vec<T>, max: usize) -> Vec<T> {
    if all.len() <= max { std::mem::take(all) } else { all.split_off(all.len() - max) }
}

impl PartitionState {
    /// Begins a checkpoint of the state as it is now. One that is still running is given up.
    pub fn begin_checkpoint(&mut self) -> PartitionHeader {
        self.checkpoints.end(false);
        self.checkpoints.begin(self.applied, records::encode(&self.holdings, self.applied));
        self.header()
    }

    /// The next versions to put into the engine: none later than the checkpoint, none that an earlier one
    /// put, about `bytes_max` bytes but at least one version, or none where many keys in a row have gone. `None` when
    /// all were handed out.
    pub fn checkpoint_puts(&mut self, bytes_max: usize) -> Option<Vec<StoredVersion>> {
        let committed = self.checkpoints.committed;
        let running = self.checkpoints.running.as_mut()?;
        if running.held.is_empty() && running.next == running.keys.len() {
            return None;
        }
        let mut puts = Vec::new();
        let mut bytes = 0;
        while let Some(record) = running.held.pop() {
            bytes += record.weight();
            puts.push(record);
            if bytes >= bytes_max {
                return Some(puts);
            }
        }
        let until = running.keys.len().min(running.next + KEYS_MAX);
        for key in &running.keys[running.next..until] {
            if let Some(chain) = self.keys.get(key) {
                for version in chain.between(committed, running.index, running.after) {
                    if bytes >= bytes_max && !puts.is_empty() {
                        return Some(puts);
                    }
                    let put = StoredVersion { key: key.clone(), version: version.clone() };
                    bytes += put.weight();
                    running.after = Some(version.timestamp);
                    puts.push(put);
                }
            }
            running.next += 1;
            running.after = None;
        }
        Some(puts)
    }

    /// The engine records that are no longer needed, by key and timestamp, each handed out once: to be removed
    /// now that the last checkpoint is committed or, while one is running, after its commit. They are no more
    /// than that checkpoint and those before it hold; when nobody asks, they wait. At most `max`, which is more than
    /// zero; empty when all were handed out.
    pub fn checkpoint_removes(&mut self, max: usize) -> Vec<(EncodedKey, Timestamp)> {
        self.checkpoints.removes(max)
    }

    /// Ends the running checkpoint. If it was not committed, the next one hands out all of its puts and
    /// removals again. If it was, its keys are of no use any more: dropping so many takes a while, so they are the caller's
    /// to drop where nobody waits.
    #[must_use]
    pub fn end_checkpoint(&mut self, committed: bool) -> Vec<EncodedKey> {
        self.checkpoints.end(committed)
    }
}
