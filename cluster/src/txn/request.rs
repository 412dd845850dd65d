//! What travels between a client and a transaction's coordinator.

use super::{Isolation, TxnId, TxnOutcome};
use crate::command::Condition;
use crate::limits::TXN_OPS_MAX;
use crate::timestamp::Timestamp;
use crate::wire::{Page, ScanRequest, Versioned};
use bytes::Bytes;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
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
    pub condition: Condition,
}

impl TxnWrite {
    /// About how many bytes it takes on the wire.
    pub fn weight(&self) -> usize {
        self.key.key.len() + self.value.as_ref().map_or(0, Bytes::len) + 128
    }
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
    /// Its name, one of [`TxnRequest::Names`], by which its outcome can be asked for: it is done on the node that the
    /// name says, once, however often it is sent. None: the node names it.
    #[serde(default)]
    pub id: Option<TxnId>,
    /// Which run of the same work it is, from zero on: for the metrics only.
    #[serde(default)]
    pub run: u32,
    /// How they see others.
    #[serde(default)]
    pub isolation: Isolation,
    /// In order; each sees those before it. One whose condition fails fails them all.
    #[serde(deserialize_with = "operations")]
    pub ops: Vec<TxnOp>,
}

impl TxnBatch {
    /// Whether all that it does is to write, whatever is there.
    pub fn reads_nothing(&self) -> bool {
        let blind = |op: &TxnOp| matches!(op, TxnOp::Write(write) if write.condition == Condition::Any);
        !self.ops.is_empty() && self.ops.iter().all(blind)
    }
}

impl TxnResponse {
    /// At least as many bytes as it takes on the wire, as one of a batch's results.
    pub fn weight(&self) -> usize {
        const FIELDS: usize = 64;
        match self {
            Self::Done => 8,
            Self::Value(None) => 16,
            Self::Value(Some(found)) => FIELDS + found.value.len(),
            Self::Page(page) => {
                let entries = page.entries.iter().map(|entry| FIELDS + entry.key.len() + entry.value.len());
                2 * FIELDS + page.cursor.as_ref().map_or(0, Bytes::len) + entries.sum::<usize>()
            }
            Self::Begun { .. } | Self::Outcome(_) | Self::Names { .. } => 2 * FIELDS,
            Self::Batch { results, .. } => 2 * FIELDS + results.iter().map(Self::weight).sum::<usize>(),
        }
    }
}

/// Decodes a batch's operations, of which no more are kept than tell that there are too many: small ones take many
/// times their bytes once they are decoded.
///
/// # Errors
/// The decoder's.
pub fn operations<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Operations<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Operations<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("operations")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            // What the sender says of their number is not believed: room is made as they come.
            let mut operations = Vec::new();
            while operations.len() <= TXN_OPS_MAX
                && let Some(operation) = seq.next_element()?
            {
                operations.push(operation);
            }
            while seq.next_element::<IgnoredAny>()?.is_some() {}
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
        /// Which run of the same work it is, from zero on: for the metrics only.
        #[serde(default)]
        run: u32,
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
    /// Names for batches to come, which nobody else gets. They are good for [`TXN_NAME_MS_MAX`].
    ///
    /// [`TXN_NAME_MS_MAX`]: crate::limits::TXN_NAME_MS_MAX
    Names {
        /// How many; [`TXN_NAMES_MAX`](crate::limits::TXN_NAMES_MAX) at the most.
        count: u32,
    },
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
    /// To a commit, abort, or outcome; to a batch that was done before. A commit that was refused is the error
    /// `conflict`.
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
    /// To a request for names: this one and those that follow it, counted up in `begin`. Any node may stand in them:
    /// `begin` alone is given to nobody else.
    Names {
        /// The first.
        first: TxnId,
        /// How many.
        count: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{self, Entry};

    #[test]
    fn results_take_no_more_than_they_weigh() {
        let bytes = |count| Bytes::from(vec![0xff; count]);
        let version = Timestamp(u64::MAX);
        let entry = |count| Entry { key: bytes(count), value: bytes(count), version };
        let page = |cursor, count| {
            let entries = (0..count).map(|n| entry(n * 40)).collect();
            TxnResponse::Page(Page { entries, cursor, at: version })
        };
        let results = vec![
            TxnResponse::Done,
            TxnResponse::Value(None),
            TxnResponse::Value(Some(Versioned { value: bytes(0), version })),
            TxnResponse::Value(Some(Versioned { value: bytes(70_000), version })),
            page(None, 0),
            page(Some(bytes(1100)), 50),
        ];
        for result in &results {
            let encoded = wire::encode(result).len();
            assert!(encoded <= result.weight(), "{encoded} bytes, {} said: {result:?}", result.weight());
        }
        let txn = TxnId { begin: version, node: crate::NodeId(u64::MAX) };
        // As many as there can be of what weighs most for its size.
        let results = vec![TxnResponse::Value(None); TXN_OPS_MAX];
        let batch = TxnResponse::Batch { txn, committed: version, results };
        assert!(wire::encode(&batch).len() <= batch.weight());
    }

    #[test]
    fn no_more_operations_are_kept_than_tell_that_there_are_too_many() {
        let of = |count| {
            let get = TxnOp::Get(TxnKey { key: Bytes::from_static(b"k"), keyspace: None });
            TxnBatch { id: None, run: 0, isolation: Isolation::Snapshot, ops: vec![get; count] }
        };
        let kept = |count| wire::decode::<TxnBatch>(&wire::encode(&of(count))).map(|batch| batch.ops.len());
        assert_eq!(kept(TXN_OPS_MAX), Ok(TXN_OPS_MAX));
        assert_eq!(kept(TXN_OPS_MAX + 1), Ok(TXN_OPS_MAX + 1));
        assert_eq!(kept(TXN_OPS_MAX + 100), Ok(TXN_OPS_MAX + 1));
    }
}
