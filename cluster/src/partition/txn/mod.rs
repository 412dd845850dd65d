//! What transactions hold in a partition, and what became of them.
//!
//! Two kinds of state, both replicated, checkpointed, streamed to new replicas, and part of the digest:
//! - **Outcomes** are records of the internal keyspace, one version each, in the same map as all keys.
//! - **Holdings** ([`Holdings`]) are what is prepared and undecided, and commits whose other partitions have not all
//!   resolved. They come and go within milliseconds, so they stand in a table of their own, which each checkpoint and each
//!   snapshot carries whole, as records that belong to its index alone ([`records`]).
//!
//! # Why keys' versions still grow
//! A transaction over several partitions is committed at the timestamp of its decision, after all others have prepared, which install its
//! versions later. By then the partition may have used higher timestamps for other keys. Not for these: from the
//! preparation to the resolution nobody else writes them, and before it every version was below.
//!
//! # Why the anchor prepares nothing
//! What preparations are for is that all checks hold at one moment, that of the decision. At the anchor the decision checks
//! in its own entry; at the others what was checked is held from before it until after it. Its timestamp is given out when
//! the others have prepared, so it is above every snapshot that was read there before. Whoever reads there later asks by
//! an entry of the anchor's log (`Push`), above which the decision comes; whoever reads at the anchor waits for entries that
//! have a lower timestamp, as always. The first outcome that the anchor records counts, also when it has nothing of the
//! transaction yet. A refused decision leaves no outcome: it may be tried again while something else is in the way, and
//! must be aborted before anyone is told of the refusal, unless it is one that would be refused for ever.

mod outcome;
pub(super) mod records;
mod step;

pub(super) use outcome::is_outcome;

use crate::digest::Digest;
use crate::ids::PartitionId;
use crate::key::EncodedKey;
use crate::timestamp::Timestamp;
use crate::txn::{Blocker, Effects, ReadRange, TxnId};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// What one prepared transaction holds here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) anchor: PartitionId,
    /// When its coordinator's lease is over.
    pub(super) expires: Timestamp,
    pub(super) parts: BTreeMap<u32, Effects>,
}

/// A commit that some of its other partitions have perhaps not resolved yet. At the anchor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unresolved {
    pub(super) committed: Timestamp,
    pub(super) participants: Vec<PartitionId>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Holdings {
    held: BTreeMap<TxnId, Held>,
    unresolved: BTreeMap<TxnId, Unresolved>,
    /// Who writes a key.
    intents: BTreeMap<EncodedKey, TxnId>,
    /// Who has read a key.
    guards: BTreeMap<EncodedKey, BTreeSet<TxnId>>,
    /// Who has read ranges, and which.
    ranges: BTreeMap<TxnId, Vec<ReadRange>>,
    /// Of all of it; added to the digest of the keys.
    digest: Digest,
    bytes: u64,
}

/// Something held, as a number for the digest: that a replica holds it, and until when. Values are compared once they are versions.
fn held_digest(txn: TxnId, held: &Held) -> Digest {
    let mut value = held.anchor.0.to_be_bytes().to_vec();
    for (part, effects) in &held.parts {
        value.extend(part.to_be_bytes());
        value.extend((effects.weight() as u64).to_be_bytes());
    }
    Digest::of(&records::name(b'h', txn), held.expires, &value)
}

fn unresolved_digest(txn: TxnId, unresolved: &Unresolved) -> Digest {
    Digest::of(&records::name(b'u', txn), unresolved.committed, &[])
}

impl Holdings {
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keys that have an intent.
    pub(super) fn intents(&self) -> usize {
        self.intents.len()
    }

    /// Whether nothing is held by anyone.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn get(&self, txn: TxnId) -> Option<&Held> {
        self.held.get(&txn)
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (TxnId, &Held)> {
        self.held.iter().map(|(&txn, held)| (txn, held))
    }

    pub(super) fn unresolved(&self) -> impl ExactSizeIterator<Item = (TxnId, &Unresolved)> {
        self.unresolved.iter().map(|(&txn, unresolved)| (txn, unresolved))
    }

    pub(super) fn is_unresolved(&self, txn: TxnId) -> bool {
        self.unresolved.contains_key(&txn)
    }

    /// Changes what is held of a transaction, which begins with nothing.
    pub(super) fn change(&mut self, txn: TxnId, change: impl FnOnce(&mut Held)) {
        let held = match self.held.entry(txn) {
            Entry::Occupied(occupied) => {
                self.digest.remove(held_digest(txn, occupied.get()));
                occupied.into_mut()
            }
            Entry::Vacant(vacant) => vacant.insert(Held::default()),
        };
        change(held);
        self.digest.add(held_digest(txn, held));
    }

    /// Holds one more part.
    pub(super) fn hold(&mut self, txn: TxnId, part: u32, effects: Effects) {
        for write in &effects.writes {
            self.intents.insert(write.key.clone(), txn);
        }
        for read in &effects.reads {
            self.guards.entry(read.key.clone()).or_default().insert(txn);
        }
        if !effects.ranges.is_empty() {
            self.ranges.entry(txn).or_default().extend(effects.ranges.iter().cloned());
        }
        self.bytes += effects.weight() as u64;
        self.change(txn, |held| {
            held.parts.insert(part, effects);
        });
    }

    /// Lets go of everything of a transaction.
    pub(super) fn release(&mut self, txn: TxnId) -> Option<Held> {
        let held = self.held.remove(&txn)?;
        self.digest.remove(held_digest(txn, &held));
        self.ranges.remove(&txn);
        for effects in held.parts.values() {
            self.bytes -= effects.weight() as u64;
            for write in &effects.writes {
                self.intents.remove(&write.key);
            }
            for read in &effects.reads {
                if let Some(readers) = self.guards.get_mut(&read.key) {
                    readers.remove(&txn);
                    if readers.is_empty() {
                        self.guards.remove(&read.key);
                    }
                }
            }
        }
        Some(held)
    }

    pub(super) fn add_unresolved(&mut self, txn: TxnId, unresolved: Unresolved) {
        self.digest.add(unresolved_digest(txn, &unresolved));
        self.unresolved.insert(txn, unresolved);
    }

    pub(super) fn finish(&mut self, txn: TxnId) {
        if let Some(unresolved) = self.unresolved.remove(&txn) {
            self.digest.remove(unresolved_digest(txn, &unresolved));
        }
    }

    /// Which other transaction is going to write the key.
    pub(super) fn writer(&self, key: &EncodedKey, own: Option<TxnId>) -> Option<TxnId> {
        self.intents.get(key).copied().filter(|&txn| Some(txn) != own)
    }

    /// Which other transaction has read the key, or a range with it.
    pub(super) fn reader(&self, key: &EncodedKey, own: Option<TxnId>) -> Option<TxnId> {
        let of_key = self.guards.get(key).and_then(|readers| readers.iter().find(|&&txn| Some(txn) != own));
        if let Some(&txn) = of_key {
            return Some(txn);
        }
        let others = self.ranges.iter().filter(|(txn, _)| Some(**txn) != own);
        others
            .into_iter()
            .find(|(_, ranges)| ranges.iter().any(|range| range.contains(key)))
            .map(|(&txn, _)| txn)
    }

    /// The first key in the range that another transaction is going to write, and which.
    pub(super) fn writer_in(
        &self,
        start: &EncodedKey,
        end: Bound<&EncodedKey>,
        own: Option<TxnId>,
    ) -> Option<(&EncodedKey, TxnId)> {
        if let Bound::Excluded(end) = end
            && end <= start
        {
            return None;
        }
        let mut within = self.intents.range((Bound::Included(start), end));
        within.find(|(_, txn)| Some(**txn) != own).map(|(key, &txn)| (key, txn))
    }

    /// The intents of a range.
    pub(super) fn intents_in<'a>(
        &'a self,
        start: &'a EncodedKey,
        end: Bound<&'a EncodedKey>,
    ) -> impl Iterator<Item = TxnId> + 'a {
        self.intents.range((Bound::Included(start), end)).map(|(_, &txn)| txn)
    }

    pub(super) fn blocker(&self, txn: TxnId) -> Blocker {
        let held = self.held.get(&txn);
        Blocker {
            txn,
            anchor: held.map_or(PartitionId::default(), |held| held.anchor),
            expires: held.map_or(Timestamp::ZERO, |held| held.expires),
        }
    }
}
