//! What travels between a client and a transaction's coordinator.

use super::{Isolation, TxnId, TxnOutcome};
use crate::timestamp::Timestamp;
use crate::wire::{Page, ScanRequest, Versioned};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

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
    pub ops: Vec<TxnOp>,
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
