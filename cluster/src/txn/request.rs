//! What travels between a client and a transaction's coordinator.

use super::{Isolation, TxnId, TxnOutcome};
use crate::limits::TXN_BATCH_OPERATIONS_MAX;
use crate::timestamp::Timestamp;
use crate::wire::{Page, ScanRequest, Versioned};
use bytes::Bytes;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::marker::PhantomData;

/// A key as clients name it. Raw bytes, so that a bad one is answered by name.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnKey {
    /// The key.
    pub key: Bytes,
    /// None is `default`.
    #[serde(default)]
    pub keyspace: Option<String>,
}

/// A buffered write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnWrite {
    /// The key.
    #[serde(flatten)]
    pub key: TxnKey,
    /// Its new value; none deletes.
    pub value: Option<Bytes>,
    /// What must hold of the key as the transaction sees it; else the operation fails with `condition_failed`
    /// and the transaction stays open.
    #[serde(default)]
    pub condition: crate::command::Condition,
}

/// One operation of a transaction that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnOp {
    /// A key's value as the transaction sees it, its own writes included.
    Get(TxnKey),
    /// The same after taking the key's lock, which is held until the transaction ends: nobody else that locks the key
    /// can change it in between, and this read sees what was committed when the lock was got.
    GetForUpdate(TxnKey),
    /// Takes the key's lock only.
    Lock(TxnKey),
    /// Writes or deletes a key when the transaction commits.
    Write(TxnWrite),
    /// One page of keys as the transaction sees them.
    Scan(ScanRequest),
}

/// Operations that are done together or not at all, in one request.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnBatch {
    /// How they see others.
    #[serde(default)]
    pub isolation: Isolation,
    /// In order; each sees those before it. One whose condition fails fails them all.
    #[serde(deserialize_with = "operations")]
    pub ops: Vec<TxnOp>,
}

/// Decodes a batch's operations, which are too many at [`TXN_BATCH_OPERATIONS_MAX`] and one.
///
/// # Errors
/// The decoder's, or that there are too many.
pub fn operations<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Operations<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Operations<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at the most {TXN_BATCH_OPERATIONS_MAX} operations")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            // What the sender says of their number is not believed: room is made as they come.
            let mut operations = Vec::new();
            while let Some(operation) = seq.next_element()? {
                if operations.len() == TXN_BATCH_OPERATIONS_MAX {
                    return Err(A::Error::custom(format!("more than {TXN_BATCH_OPERATIONS_MAX} operations")));
                }
                operations.push(operation);
            }
            Ok(operations)
        }
    }

    deserializer.deserialize_seq(Operations(PhantomData))
}

/// What is asked of transactions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnRequest {
    /// Opens one, on the node that is asked.
    Begin {
        /// What it may see.
        #[serde(default)]
        isolation: Isolation,
        /// It will write nothing: it then takes no locks and never aborts.
        #[serde(default)]
        read_only: bool,
        /// Read as of then instead of now; only for a read-only one.
        #[serde(default)]
        at: Option<Timestamp>,
        /// Aborted when nothing is asked of it for this long; zero means the node's `txn.idle_timeout_ms`, which is also
        /// the most.
        #[serde(default)]
        idle_timeout_ms: u32,
    },
    /// Does one operation. Any node leads it to the coordinator.
    Op {
        /// The transaction.
        txn: TxnId,
        /// What to do.
        op: TxnOp,
    },
    /// Ends it. Asked again, it answers the same.
    Commit {
        /// The transaction.
        txn: TxnId,
    },
    /// Ends it without effect. An ended one stays as it is, which is answered.
    Abort {
        /// The transaction.
        txn: TxnId,
    },
    /// What became of it. One that nobody knows can never commit after this was answered.
    Outcome {
        /// The transaction.
        txn: TxnId,
    },
    /// Begins, does, and commits in one request.
    Batch(TxnBatch),
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnResponse {
    /// To a begin.
    Begun {
        /// Its name.
        txn: TxnId,
        /// What it reads at.
        read_at: Timestamp,
    },
    /// To a get.
    Value(Option<Versioned>),
    /// To a lock or write.
    Done,
    /// To a scan.
    Page(Page),
    /// To a commit, abort, or outcome. A commit that was refused is the error `conflict`.
    Outcome(TxnOutcome),
    /// To a batch: when it was committed, and an answer per operation.
    Batch {
        /// Its name.
        txn: TxnId,
        /// When.
        committed: Timestamp,
        /// In order.
        results: Vec<TxnResponse>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn a_batch_has_so_many_operations_and_not_one_more() {
        let of = |count| {
            let get = TxnOp::Get(TxnKey { key: Bytes::from_static(b"k"), keyspace: None });
            TxnBatch { isolation: Isolation::Snapshot, ops: vec![get; count] }
        };
        let largest = of(TXN_BATCH_OPERATIONS_MAX);
        assert_eq!(wire::decode::<TxnBatch>(&wire::encode(&largest)), Ok(largest));
        let error = wire::decode::<TxnBatch>(&wire::encode(&of(TXN_BATCH_OPERATIONS_MAX + 1)));
        assert!(error.expect_err("over").message.contains("more than 10000 operations"));
    }
}
