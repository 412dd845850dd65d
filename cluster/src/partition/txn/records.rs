//! Holdings as the records that a checkpoint or a snapshot carries.
//!
//! They are written whole each time, named after the index that they belong to. Restoring takes those of its header's
//! index and no others, so that it does not matter which records of earlier checkpoints, or of one that was never committed,
//! the engine still has: they are garbage, and are handed out for removal.

use super::{Held, Holdings, Unresolved};
use crate::error::Error;
use crate::ids::{KeyspaceId, PartitionId};
use crate::key::EncodedKey;
use crate::mvcc::{StoredVersion, Version};
use crate::timestamp::Timestamp;
use crate::txn::{Effects, TxnId};
use crate::wire;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The first byte of such a record's key; above [`super::outcome::TAG`], so that they come last.
const TAG: u8 = b't';

/// An internal key about a transaction: the tag, its begin and its node in big-endian, so in order of age.
pub(super) fn name(tag: u8, txn: TxnId) -> EncodedKey {
    let mut bytes = vec![tag];
    bytes.extend(txn.begin.0.to_be_bytes());
    bytes.extend(txn.node.0.to_be_bytes());
    EncodedKey::from_parts(KeyspaceId::INTERNAL, &bytes)
}

#[derive(Debug, Serialize, Deserialize)]
enum Record {
    Held { txn: TxnId, anchor: PartitionId, expires: Timestamp },
    Part { txn: TxnId, part: u32, effects: Effects },
    Unresolved { txn: TxnId, committed: Timestamp, participants: Vec<PartitionId> },
}

/// Whether a record of an engine or snapshot is one of these.
pub(in crate::partition) fn is_holding(key: &EncodedKey) -> bool {
    let bytes = key.as_bytes();
    bytes.len() > 4 && bytes[..4] == KeyspaceId::INTERNAL.0.to_be_bytes() && bytes[4] == TAG
}

/// The holdings at log index `index`, in the order of their keys.
pub(in crate::partition) fn encode(holdings: &Holdings, index: u64) -> Vec<StoredVersion> {
    let mut records = Vec::new();
    for (&txn, held) in &holdings.held {
        let Held { anchor, expires, .. } = *held;
        records.push(Record::Held { txn, anchor, expires });
        for (&part, effects) in &held.parts {
            records.push(Record::Part { txn, part, effects: effects.clone() });
        }
    }
    for (&txn, unresolved) in &holdings.unresolved {
        let Unresolved { committed, participants } = unresolved.clone();
        records.push(Record::Unresolved { txn, committed, participants });
    }
    let stored = |(number, record): (usize, Record)| {
        let mut key = vec![TAG];
        key.extend(index.to_be_bytes());
        key.extend((number as u64).to_be_bytes());
        StoredVersion {
            key: EncodedKey::from_parts(KeyspaceId::INTERNAL, &key),
            version: Version {
                timestamp: Timestamp(1),
                index,
                value: Some(Bytes::from(wire::encode(&record))),
            },
        }
    };
    records.into_iter().enumerate().map(stored).collect()
}

/// Takes a record of the right index.
///
/// # Errors
/// When it cannot be read.
pub(in crate::partition) fn restore(holdings: &mut Holdings, stored: &StoredVersion) -> Result<(), Error> {
    let bytes =
        stored.version.value.as_ref().ok_or_else(|| Error::internal("a held transaction is empty"))?;
    match crate::shared::decode_sharing(bytes)? {
        Record::Held { txn, anchor, expires } => holdings.change(txn, |held| {
            held.anchor = anchor;
            held.expires = expires;
        }),
        Record::Part { txn, part, effects } => {
            // A snapshot's chunk may come twice.
            if holdings.get(txn).is_none_or(|held| !held.parts.contains_key(&part)) {
                holdings.hold(txn, part, effects);
            }
        }
        Record::Unresolved { txn, committed, participants } => {
            holdings.finish(txn);
            holdings.add_unresolved(txn, Unresolved { committed, participants });
        }
    }
    Ok(())
}
