//! What became of transactions: records of the internal keyspace, in the order of the transactions' age.
//!
//! Kept within two bounds, time and number ([`crate::limits::TXN_OUTCOMES_MAX`]). A commit that is forgotten raises the
//! *commit floor*: of a transaction that began at or before it and has no record, nobody can say any more that it did not
//! commit. An abort is kept for as long as the transaction could still try to commit.

use super::super::PartitionState;
use super::records::name;
use crate::ids::KeyspaceId;
use crate::key::EncodedKey;
use crate::limits::{TXN_LIFE_MS_MAX, TXN_OUTCOME_MS_MAX, TXN_OUTCOME_MS_MIN, TXN_OUTCOMES_MAX};
use crate::timestamp::Timestamp;
use crate::txn::{TxnApplied, TxnId};
use crate::wire;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::ops::Bound;

/// The first byte of an outcome's key.
pub(super) const TAG: u8 = b'o';

/// Records that one step looks at when it makes room.
const EVICTION_LOOKS: usize = 8;

/// Aborts are kept a while longer than a transaction may live: clocks of different leaders made the timestamps.
const MARGIN_MS: u64 = 60_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Outcome {
    Committed(Timestamp),
    Aborted(String),
    /// Nobody can say any more; from now on it cannot commit.
    Forgotten,
}

impl Outcome {
    pub(super) fn answer(self) -> TxnApplied {
        match self {
            Self::Committed(at) => TxnApplied::Committed(at),
            Self::Aborted(why) => TxnApplied::Aborted(why),
            Self::Forgotten => TxnApplied::Forgotten,
        }
    }
}

impl PartitionState {
    pub(super) fn outcome(&self, txn: TxnId) -> Option<Outcome> {
        let value = self.keys.get(&name(TAG, txn))?.newest().value.as_ref()?;
        wire::decode(value).ok()
    }

    /// Keeps an outcome that is not kept yet, at the index that is being applied.
    pub(super) fn keep_outcome(&mut self, txn: TxnId, outcome: &Outcome, now: Timestamp) {
        let value = Some(Bytes::from(wire::encode(outcome)));
        self.install(name(TAG, txn), now, value);
        self.outcomes += 1;
        self.evict(now);
    }

    /// Forgets the oldest that may go.
    fn evict(&mut self, now: Timestamp) {
        let start = EncodedKey::from_parts(KeyspaceId::INTERNAL, &[TAG]);
        let end = EncodedKey::from_parts(KeyspaceId::INTERNAL, &[TAG + 1]);
        let mut gone = Vec::new();
        let mut looks = 0;
        let mut left = self.outcomes;
        for (key, chain) in self.keys.range((Bound::Included(start), Bound::Excluded(end))) {
            let newest = chain.newest();
            let Some(value) = &newest.value else { continue };
            looks += 1;
            if looks > EVICTION_LOOKS || gone.len() == 2 {
                break;
            }
            let Some(txn) = read_name(key) else { continue };
            let age = |of: Timestamp| now.millis().saturating_sub(of.millis());
            let may_go = match wire::decode(value) {
                Ok(Outcome::Committed(_)) => {
                    let crowded = left > TXN_OUTCOMES_MAX && age(newest.timestamp) > TXN_OUTCOME_MS_MIN;
                    (crowded || age(newest.timestamp) > TXN_OUTCOME_MS_MAX)
                        && !self.holdings.is_unresolved(txn)
                }
                Ok(Outcome::Aborted(_) | Outcome::Forgotten) => {
                    let beyond_life = age(txn.begin) > TXN_LIFE_MS_MAX + MARGIN_MS;
                    beyond_life && (left > TXN_OUTCOMES_MAX || age(txn.begin) > TXN_OUTCOME_MS_MAX)
                }
                Err(_) => true,
            };
            if may_go {
                left -= 1;
                gone.push((key.clone(), txn, matches!(wire::decode(value), Ok(Outcome::Committed(_)))));
            }
        }
        for (key, txn, committed) in gone {
            if committed {
                self.commit_floor = self.commit_floor.max(txn.begin);
            }
            self.install(key, now, None);
            self.outcomes -= 1;
        }
    }

    /// Forgets the tombstones of outcomes, which all lie at the front: the sweep over all keys would take too long.
    pub fn gc_outcomes(&mut self, keys_max: usize) -> usize {
        let start = EncodedKey::from_parts(KeyspaceId::INTERNAL, &[TAG]);
        let horizon = self.horizon();
        let mut spent = Vec::new();
        let mut superseded = Vec::new();
        for (key, chain) in self.keys.range_mut(start..).take(keys_max) {
            if chain.newest().value.is_some() {
                break;
            }
            let horizon = horizon.of(key);
            let pruned = horizon.prune(chain, 2);
            if !pruned.is_empty() {
                superseded.push((key.clone(), pruned));
            }
            if horizon.is_spent(chain) {
                spent.push(key.clone());
            }
        }
        let count = spent.len();
        for (key, pruned) in superseded {
            self.forget(&key, pruned);
        }
        for key in spent {
            self.forget_key(&key);
        }
        count
    }

    /// Outcomes that are kept.
    pub fn outcomes(&self) -> usize {
        self.outcomes
    }
}

/// Whether a key of the map is an outcome's.
pub(in crate::partition) fn is_outcome(key: &EncodedKey) -> bool {
    let bytes = key.as_bytes();
    bytes.len() > 4 && bytes[..4] == KeyspaceId::INTERNAL.0.to_be_bytes() && bytes[4] == TAG
}

fn read_name(key: &EncodedKey) -> Option<TxnId> {
    let bytes = key.user_key();
    let number = |range: std::ops::Range<usize>| Some(u64::from_be_bytes(bytes.get(range)?.try_into().ok()?));
    Some(TxnId { begin: Timestamp(number(1..9)?), node: crate::ids::NodeId(number(9..17)?) })
}
