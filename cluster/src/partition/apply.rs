//! Applying log entries.

use super::PartitionState;
use super::checkpoint::Checkpoints;
use super::counters::Counters;
use super::gc::{Garbage, Horizon};
use crate::command::{Applied, Command, Condition, Write, WriteBatch, WriteOutcome};
use crate::key::EncodedKey;
use crate::mvcc::{Chain, Version};
use crate::timestamp::Timestamp;
use bytes::Bytes;
use std::collections::btree_map::Entry;

impl PartitionState {
    /// Applies the log entry at `index` and answers what its proposer is told.
    ///
    /// # Panics
    /// When `index` is not above every one before: the log would have been applied twice.
    pub fn apply(&mut self, index: u64, command: Command) -> Applied {
        self.advance(index);
        let applied = match command {
            Command::Write(batch) => self.apply_batch(index, batch),
            Command::Txn(entry) => self.apply_txns(entry),
        };
        self.history.record(index, self.digest(), self.counters.live_keys);
        applied
    }

    /// Notes that the log entry at `index` holds nothing for this state: a blank or a membership entry.
    ///
    /// # Panics
    /// When `index` is not above every one before.
    pub fn skip(&mut self, index: u64) {
        self.advance(index);
        self.history.record(index, self.digest(), self.counters.live_keys);
    }

    fn advance(&mut self, index: u64) {
        assert!(index > self.applied, "log entry {index} comes after {}", self.applied);
        self.applied = index;
    }

    fn apply_batch(&mut self, index: u64, batch: WriteBatch) -> Applied {
        if batch.timestamp <= self.last_timestamp {
            return Applied::StaleTimestamp(self.last_timestamp);
        }
        self.gc_floor = self.gc_floor.max(batch.gc_floor);
        // A write that is refused uses its timestamp up, too: the next batch starts after all of this one.
        let used = (batch.writes.len() as u64).max(1);
        self.last_timestamp = batch.timestamp.plus(used - 1);
        let mut timestamp = batch.timestamp;
        let mut outcomes = Vec::with_capacity(batch.writes.len());
        for write in batch.writes {
            outcomes.push(self.apply_write(index, timestamp, write));
            timestamp = timestamp.plus(1);
        }
        Applied::Writes(outcomes)
    }

    fn apply_write(&mut self, index: u64, timestamp: Timestamp, write: Write) -> WriteOutcome {
        let horizon = self.horizon();
        let Write { key, value, condition } = write;
        if !self.holdings.is_empty()
            && let Some(txn) = self.holdings.writer(&key, None).or_else(|| self.holdings.reader(&key, None))
        {
            return WriteOutcome::Blocked(self.holdings.blocker(txn));
        }
        let entry = self.keys.entry(key);
        let current = match &entry {
            Entry::Vacant(_) => None,
            Entry::Occupied(chain) => live_version(chain.get().newest()),
        };
        if !holds(condition, current) {
            return WriteOutcome::ConditionFailed { current };
        }
        let done = WriteOutcome::Done { version: timestamp, previous: current };
        if value.is_none() && current.is_none() {
            return done;
        }
        let version = Version { timestamp, index, value };
        let (counters, checkpoints) = (&mut self.counters, &mut self.checkpoints);
        let pruned = install(entry, version, counters, checkpoints, &mut self.garbage, horizon);
        if let Some((key, pruned)) = pruned {
            self.forget(&key, pruned);
        }
        done
    }

    /// Installs a version, newer than all of its key, at the index that is being applied. A tombstone for a key that
    /// has no value is left out.
    pub(super) fn install(&mut self, key: EncodedKey, timestamp: Timestamp, value: Option<Bytes>) {
        let horizon = self.horizon().of(&key);
        let entry = self.keys.entry(key);
        let lives = match &entry {
            Entry::Vacant(_) => false,
            Entry::Occupied(chain) => chain.get().newest().value.is_some(),
        };
        if value.is_none() && !lives {
            return;
        }
        let version = Version { timestamp, index: self.applied, value };
        let (counters, checkpoints) = (&mut self.counters, &mut self.checkpoints);
        let pruned = install(entry, version, counters, checkpoints, &mut self.garbage, horizon);
        if let Some((key, pruned)) = pruned {
            self.forget(&key, pruned);
        }
    }
}

/// Puts a version that is newer than all into its key's chain; answers what that made superfluous.
fn install(
    entry: Entry<'_, EncodedKey, Chain>,
    version: Version,
    counters: &mut Counters,
    checkpoints: &mut Checkpoints,
    garbage: &mut Garbage,
    horizon: Horizon,
) -> Option<(EncodedKey, Vec<Version>)> {
    counters.version_added(&version);
    match entry {
        Entry::Vacant(vacant) => {
            counters.key_added(vacant.key());
            counters.newest_changed(vacant.key(), None, &version);
            checkpoints.mark_dirty(vacant.key());
            vacant.insert(Chain::One(version));
            None
        }
        Entry::Occupied(mut occupied) => {
            let newest = occupied.get().newest();
            debug_assert!(newest.timestamp < version.timestamp, "the versions of a key grow");
            counters.newest_changed(occupied.key(), Some(newest), &version);
            // A newest version after the last checkpoint was marked when it came.
            if newest.index <= checkpoints.dirty_since() {
                checkpoints.mark_dirty(occupied.key());
            }
            let had_garbage = occupied.get().garbage_since().is_some();
            occupied.get_mut().push(version);
            let pruned = horizon.prune(occupied.get_mut(), PRUNE_PER_WRITE_MAX);
            if let Some(since) = occupied.get().garbage_since().filter(|_| !had_garbage) {
                garbage.add(since, occupied.key());
            }
            (!pruned.is_empty()).then(|| (occupied.key().clone(), pruned))
        }
    }
}

/// Old versions that a write of their key forgets at the most. More than one, so that a chain that fell behind
/// shrinks; few, so that no write pays for an hour of others. The sweep gets the rest.
const PRUNE_PER_WRITE_MAX: usize = 8;

fn live_version(version: &Version) -> Option<Timestamp> {
    version.value.is_some().then_some(version.timestamp)
}

fn holds(condition: Condition, current: Option<Timestamp>) -> bool {
    match condition {
        Condition::Any => true,
        Condition::Absent => current.is_none(),
        Condition::Present => current.is_some(),
        Condition::Version(version) => current == Some(version),
    }
}
