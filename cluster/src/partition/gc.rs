//! Forgetting versions that nobody may ask for any more.

use super::PartitionState;
use crate::key::EncodedKey;
use crate::mvcc::{Chain, Version};
use crate::timestamp::Timestamp;
use std::collections::BTreeSet;

/// Up to where history is settled and no longer asked for: a version at or before it makes older ones of its
/// key superfluous.
#[derive(Debug, Clone, Copy)]
pub(super) struct Horizon {
    /// The GC floor.
    timestamp: Timestamp,
    /// The least of all pinned snapshots and the last committed checkpoint.
    index: u64,
    /// Some snapshot is being streamed.
    pinned: bool,
    /// What came after this log index was never handed to the engine.
    begun: u64,
}

impl Horizon {
    /// That of one key: nobody reads the history of what a partition keeps for itself.
    pub(super) fn of(self, key: &EncodedKey) -> Self {
        if key.is_internal() { Self { timestamp: Timestamp::MAX, ..self } } else { self }
    }

    fn covers(self, version: &Version) -> bool {
        version.timestamp <= self.timestamp && version.index <= self.index
    }

    /// Whether `newer` makes `older` superfluous: the engine and all snapshots have the newer one, or they have nothing of the
    /// older one, and a checkpoint that begins later has no use for it.
    fn ends(self, older: &Version, newer: &Version) -> bool {
        let unseen = older.index > self.begun && !self.pinned && newer.timestamp <= self.timestamp;
        unseen || self.covers(newer)
    }

    /// Takes out of `chain` the oldest versions that a newer one makes superfluous, at most `max`.
    pub(super) fn prune(self, chain: &mut Chain, max: usize) -> Vec<Version> {
        let mut pruned = Vec::new();
        while pruned.len() < max
            && let Some(version) = chain.pop_oldest_if(|older, newer| self.ends(older, newer))
        {
            pruned.push(version);
        }
        pruned
    }

    /// Whether all that `chain` still says is that its key was deleted, long ago. A snapshot being streamed
    /// may have sent an older version of the key already, so while there is one the tombstone stays.
    pub(super) fn is_spent(self, chain: &Chain) -> bool {
        match chain {
            Chain::One(version) => version.value.is_none() && self.covers(version) && !self.pinned,
            Chain::Many(_) => false,
        }
    }
}

/// The keys that hold garbage, or what will be when the floor has moved, by age: since when they do.
///
/// Every such key is here, at the time when its oldest version was superseded or it was deleted, or at an earlier one: to
/// keep up with writes, which forget a few versions of their own key, would cost more than to look once in vain. So a
/// key costs some 60 bytes while it has a past, and none otherwise.
#[derive(Debug, Default)]
pub(super) struct Garbage {
    due: BTreeSet<(Timestamp, EncodedKey)>,
}

impl Garbage {
    /// Of keys and their versions.
    pub(super) fn of<'a>(keys: impl IntoIterator<Item = (&'a EncodedKey, &'a Chain)>) -> Self {
        let due = keys.into_iter().filter_map(|(key, chain)| Some((chain.garbage_since()?, key.clone())));
        Self { due: due.collect() }
    }

    /// Notes a key that had no garbage until now.
    pub(super) fn add(&mut self, since: Timestamp, key: &EncodedKey) {
        self.due.insert((since, key.clone()));
    }

    fn remove(&mut self, since: Timestamp, key: EncodedKey) {
        self.due.remove(&(since, key));
    }

    /// The first `max` keys up to a time, the oldest first.
    fn upto(&self, floor: Timestamp, max: usize) -> Vec<(Timestamp, EncodedKey)> {
        self.due.iter().take_while(|(since, _)| *since <= floor).take(max).cloned().collect()
    }
}

impl PartitionState {
    pub(super) fn horizon(&self) -> Horizon {
        let checkpointed = self.checkpoints.committed();
        let pinned = self.pins.keys().next().copied();
        Horizon {
            timestamp: self.gc_floor,
            index: pinned.map_or(checkpointed, |pinned| pinned.min(checkpointed)),
            pinned: pinned.is_some(),
            begun: self.checkpoints.begun(),
        }
    }

    /// Forgets what may go, the longest superseded first. A key looked at and a version forgotten each count one step; it
    /// ends after `steps_max` of them, and the next call goes on. Answers how many versions went: zero when there is nothing
    /// below the floor, or a checkpoint or snapshot still needs it ([`Self::has_garbage`] tells which).
    pub fn gc_step(&mut self, steps_max: usize) -> usize {
        let horizon = self.horizon();
        let (mut steps, mut count) = (0, 0);
        for (due, key) in self.garbage.upto(horizon.timestamp, steps_max) {
            if steps >= steps_max {
                break;
            }
            let left = steps_max - steps;
            let horizon = horizon.of(&key);
            let Some(chain) = self.keys.get_mut(&key) else {
                self.garbage.remove(due, key);
                steps += 1;
                continue;
            };
            let pruned = horizon.prune(chain, left);
            steps += pruned.len().max(1);
            count += pruned.len();
            let spent = horizon.is_spent(chain) && (pruned.is_empty() || pruned.len() < left);
            let next = if spent { None } else { chain.garbage_since() };
            self.forget(&key, pruned);
            if spent {
                steps += usize::from(steps < steps_max);
                count += 1;
                self.forget_key(&key);
            }
            if next != Some(due) {
                self.garbage.remove(due, key.clone());
                next.into_iter().for_each(|since| self.garbage.add(since, &key));
            }
        }
        count
    }

    /// Whether something superseded lies below the floor.
    pub fn has_garbage(&self) -> bool {
        self.garbage_since().is_some_and(|since| since <= self.gc_floor)
    }

    /// Since when the longest superseded version is: it may go once the floor is there. None if nothing is superseded.
    pub fn garbage_since(&self) -> Option<Timestamp> {
        self.garbage.due.first().map(|(since, _)| *since)
    }

    /// Accounts for versions that were taken out of a chain, and has their engine records removed, if there are any.
    pub(super) fn forget(&mut self, key: &EncodedKey, pruned: Vec<Version>) {
        for version in pruned {
            self.counters.version_removed(&version);
            if version.index <= self.checkpoints.begun() {
                self.checkpoints.superseded(key, version.timestamp);
            }
        }
    }

    pub(super) fn forget_key(&mut self, key: &EncodedKey) {
        let chain = self.keys.remove(key).expect("it was just seen");
        let tombstone = chain.newest();
        self.counters.version_removed(tombstone);
        self.counters.key_removed(key);
        self.checkpoints.key_forgotten(key, tombstone.timestamp);
    }
}
