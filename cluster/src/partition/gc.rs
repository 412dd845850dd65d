//! Forgetting versions that nobody may ask for any more.

use super::PartitionState;
use crate::key::EncodedKey;
use crate::mvcc::{Chain, Version};
use crate::timestamp::Timestamp;
use std::ops::Bound;

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
}

impl Horizon {
    /// That of one key: nobody reads the history of what a partition keeps for itself.
    pub(super) fn of(self, key: &EncodedKey) -> Self {
        if key.is_internal() { Self { timestamp: Timestamp::MAX, ..self } } else { self }
    }

    fn covers(self, version: &Version) -> bool {
        version.timestamp <= self.timestamp && version.index <= self.index
    }

    /// Takes out of `chain` the oldest versions that a newer one makes superfluous, at most `max`.
    pub(super) fn prune(self, chain: &mut Chain, max: usize) -> Vec<Version> {
        let mut pruned = Vec::new();
        while pruned.len() < max
            && let Some(version) = chain.pop_oldest_if(|newer| self.covers(newer))
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

impl PartitionState {
    pub(super) fn horizon(&self) -> Horizon {
        let checkpointed = self.checkpoints.committed();
        let pinned = self.pins.keys().next().copied();
        Horizon {
            timestamp: self.gc_floor,
            index: pinned.map_or(checkpointed, |pinned| pinned.min(checkpointed)),
            pinned: pinned.is_some(),
        }
    }

    /// Looks at the next keys in turn and forgets what may go. A key looked at and a version forgotten
    /// each count one step, and it stops after `keys_max` of them; the next call goes on from there, and after
    /// the last key from the first. Answers how many versions went.
    pub fn gc_step(&mut self, keys_max: usize) -> usize {
        let horizon = self.horizon();
        let mut steps = 0;
        let mut dropped = Vec::new();
        let mut spent = Vec::new();
        let start = self.sweep.take().map_or(Bound::Unbounded, Bound::Included);
        for (key, chain) in self.keys.range_mut((start, Bound::Unbounded)) {
            if steps >= keys_max {
                self.sweep = Some(key.clone());
                break;
            }
            steps += 1;
            let horizon = horizon.of(key);
            if let Chain::Many(_) = chain {
                let pruned = horizon.prune(chain, keys_max - steps);
                steps += pruned.len();
                if !pruned.is_empty() {
                    dropped.push((key.clone(), pruned));
                }
                if steps >= keys_max && matches!(chain, Chain::Many(_)) {
                    // There may be more of this key to forget.
                    self.sweep = Some(key.clone());
                    break;
                }
            }
            if horizon.is_spent(chain) {
                spent.push(key.clone());
            }
        }
        let mut count = spent.len();
        for (key, pruned) in dropped {
            count += pruned.len();
            self.forget(&key, pruned);
        }
        for key in spent {
            self.forget_key(&key);
        }
        count
    }

    /// Accounts for versions that were taken out of a chain, and has their engine records removed.
    pub(super) fn forget(&mut self, key: &EncodedKey, pruned: Vec<Version>) {
        for version in pruned {
            self.counters.version_removed(&version);
            self.checkpoints.superseded(key, version.timestamp);
        }
    }

    pub(super) fn forget_key(&mut self, key: &EncodedKey) {
        let chain = self.keys.remove(key).expect("the sweep has just seen it");
        let tombstone = chain.newest();
        self.counters.version_removed(tombstone);
        self.counters.key_removed(key);
        self.checkpoints.key_forgotten(key, tombstone.timestamp);
    }
}
