//! A few partitions and an oracle, without network or time: what coordinators talk to in tests. A key's last character
//! is a digit that says where it lives.

// Each test uses its part of it.
#![allow(dead_code)]

use std::collections::{BTreeMap, VecDeque};
use trandb_cluster::command::{Applied, Command};
use trandb_cluster::limits::TXN_LEASE_MS;
use trandb_cluster::partition::PartitionState;
use trandb_cluster::txn::{Blocker, Conflict, Effects, Prepare, TxnApplied, TxnEntry, TxnId, TxnStep};
use trandb_cluster::wire::{RangeScan, Versioned};
use trandb_cluster::{EncodedKey, KeyspaceId, PartitionId, Timestamp};

pub(crate) const PARTITIONS: usize = 2;

pub(crate) struct Partitions {
    pub(crate) now: u64,
    pub(crate) states: Vec<PartitionState>,
    /// All steps so far, so that they can come once more.
    pub(crate) sent: Vec<(PartitionId, TxnStep)>,
    /// How often somebody asked what became of a transaction that was in the way.
    pub(crate) pushes: usize,
    /// What entries say of the GC floor.
    pub(crate) gc_floor: Timestamp,
    /// A fault: nobody asks.
    pub(crate) pass_intents: bool,
    /// A fault: commits that were refused may still pass.
    pub(crate) leave_refused: bool,
}

impl Default for Partitions {
    fn default() -> Self {
        Self {
            now: 1 << 40,
            states: (0..PARTITIONS).map(|_| PartitionState::new()).collect(),
            sent: Vec::new(),
            pushes: 0,
            gc_floor: Timestamp::ZERO,
            pass_intents: false,
            leave_refused: false,
        }
    }
}

pub(crate) fn key(text: &str) -> EncodedKey {
    EncodedKey::from_parts(KeyspaceId::DEFAULT, text.as_bytes())
}

pub(crate) fn home(key: &EncodedKey) -> PartitionId {
    let last = key.as_bytes().last().expect("keys are not empty");
    PartitionId(u32::from(last - b'0') % PARTITIONS as u32)
}

pub(crate) fn all() -> impl Iterator<Item = PartitionId> {
    (0..PARTITIONS).map(|number| PartitionId(number as u32))
}

impl Partitions {
    /// The oracle's next.
    pub(crate) fn timestamp(&mut self) -> Timestamp {
        self.now += 1;
        Timestamp(self.now)
    }

    /// Time passes for all leases.
    pub(crate) fn pass_lease(&mut self) {
        self.now += (TXN_LEASE_MS + 1) << 18;
    }

    pub(crate) fn state(&mut self, partition: PartitionId) -> &mut PartitionState {
        &mut self.states[partition.0 as usize]
    }

    /// Applies a step as an entry of its own.
    pub(crate) fn send(&mut self, partition: PartitionId, step: TxnStep) -> TxnApplied {
        let timestamp = self.timestamp();
        self.sent.push((partition, step.clone()));
        let entry = TxnEntry { timestamp, gc_floor: self.gc_floor, steps: vec![step] };
        let state = self.state(partition);
        let index = state.applied() + 1;
        match state.apply(index, Command::Txn(entry)) {
            Applied::Txns(mut answers) => answers.remove(0),
            other => panic!("a step was answered with {other:?}"),
        }
    }

    /// A key at `at`, as its partition's leader reads it.
    pub(crate) fn get(&mut self, key: &EncodedKey, at: Timestamp) -> Option<Versioned> {
        let partition = home(key);
        self.clear_the_way(partition, key, at);
        self.state(partition).get(key, at)
    }

    /// All keys of a range at `at`, after a look at what may be in the way of those in `known`.
    pub(crate) fn scan(
        &mut self,
        (start, end): (EncodedKey, EncodedKey),
        known: &[EncodedKey],
        at: Timestamp,
    ) -> BTreeMap<EncodedKey, Versioned> {
        let range = RangeScan { start, end: Some(end), at, limit: 100, bytes_max: 1 << 20, keys_only: false };
        for key in known {
            self.clear_the_way(home(key), key, at);
        }
        let pages = all().map(|partition| self.states[partition.0 as usize].scan(&range).entries);
        pages.flatten().collect()
    }

    fn clear_the_way(&mut self, partition: PartitionId, key: &EncodedKey, at: Timestamp) {
        while let Some(by) = self.state(partition).intent(key) {
            if self.ask(partition, by, at) {
                return;
            }
        }
    }

    /// Finds out what became of what is in the way; whether a read at `at` may pass.
    pub(crate) fn ask(&mut self, partition: PartitionId, by: Blocker, at: Timestamp) -> bool {
        if self.pass_intents {
            return true;
        }
        self.pushes += 1;
        let committed = match self.send(by.anchor, TxnStep::Push { txn: by.txn, expires: by.expires }) {
            TxnApplied::Pushed(above) => {
                assert!(above > at, "a push is above all that was read before");
                return true;
            }
            TxnApplied::Committed(at) => Some(at),
            TxnApplied::Aborted(_) => None,
            other => panic!("a push was answered with {other:?}"),
        };
        self.send(partition, TxnStep::Resolve { txn: by.txn, committed });
        false
    }

    /// What leaders do about transactions that nobody looks after.
    pub(crate) fn tend(&mut self) {
        self.pass_lease();
        self.pass_intents = false;
        for _ in 0..3 {
            for partition in all() {
                for by in self.state(partition).held().collect::<Vec<_>>() {
                    self.ask(partition, by, Timestamp::ZERO);
                }
                let unresolved: Vec<_> = self
                    .state(partition)
                    .unresolved()
                    .map(|(txn, at, others)| (txn, at, others.to_vec()))
                    .collect();
                for (txn, at, others) in unresolved {
                    for other in others {
                        self.send(other, TxnStep::Resolve { txn, committed: Some(at) });
                    }
                    self.send(partition, TxnStep::Finish { txn });
                }
            }
        }
    }

    /// Commits, and takes that back where something was in the way, so that it cannot pass later.
    pub(crate) fn commit(&mut self, anchor: PartitionId, step: TxnStep) -> TxnApplied {
        let TxnStep::Commit { txn, .. } = step else { panic!("not a commit: {step:?}") };
        let answer = self.send(anchor, step);
        if let TxnApplied::Refused(conflict @ Conflict::Blocked { .. }) = &answer
            && !self.leave_refused
        {
            self.send(anchor, TxnStep::Abort { txn, why: conflict.to_string() });
        }
        answer
    }
}

/// The steps that prepare a transaction, and the one that commits it.
pub(crate) fn steps(
    txn: TxnId,
    anchor: PartitionId,
    prepares: BTreeMap<PartitionId, Vec<Effects>>,
    last: Effects,
) -> (VecDeque<(PartitionId, TxnStep)>, TxnStep) {
    let participants = prepares.keys().copied().filter(|&partition| partition != anchor).collect();
    let prepares = prepares.into_iter().flat_map(|(partition, parts)| {
        let prepare = move |(part, effects)| Prepare { txn, anchor, part, effects };
        (0..).zip(parts).map(prepare).map(move |prepare| (partition, TxnStep::Prepare(prepare)))
    });
    (prepares.collect(), TxnStep::Commit { txn, participants, effects: last })
}
