//! What transactions put into the logs of partitions, and what is answered.
//!
//! ```text
//!  one partition      Commit ─▶ Committed | Refused
//!
//!  several            Prepare ─▶ Prepared | Refused          at all but the anchor, in parallel
//!                     Commit  ─▶ Committed | Refused         then at the anchor: the commit point
//!                     Resolve ─▶ Resolved                    at the others, later
//!                     Finish  ─▶ Resolved                    at the anchor, when all have resolved
//!
//!  to give up         Abort   ─▶ Aborted | Committed         at the anchor; the first decision wins
//!
//!  whoever meets what another one prepared
//!                     Push    ─▶ Committed | Aborted | Pushed    at the anchor
//!  whoever asks for a transaction that its coordinator does not know
//!                     Inquire ─▶ Committed | Aborted | Held | Forgotten     at every partition
//! ```
//!
//! So the anchor needs one entry where the others need two. What it would have held between them is checked where it is
//! decided. Nobody can tell the difference: a transaction that holds nothing at its anchor is in nobody's way there.
//!
//! A partition knows nothing of isolation levels: the coordinator says, key by key, since when nothing may have
//! changed.

use super::TxnId;
use crate::ids::PartitionId;
use crate::key::EncodedKey;
use crate::timestamp::Timestamp;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Steps of transactions that were proposed together. The i-th step's timestamp is `timestamp + i`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnEntry {
    /// As of [`crate::command::WriteBatch::timestamp`].
    pub timestamp: Timestamp,
    /// As of [`crate::command::WriteBatch::gc_floor`].
    pub gc_floor: Timestamp,
    /// In order.
    pub steps: Vec<TxnStep>,
}

/// A step of one transaction in one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnStep {
    /// Checks and does everything that the transaction read and wrote in this partition, and thereby decides it, as of
    /// this step's timestamp. At the anchor, which may be its only partition. Whoever asks for it has seen all that is to
    /// be prepared prepared: so the timestamp is above all that was read there, and above every push before it.
    Commit {
        /// The transaction.
        txn: TxnId,
        /// The other partitions, which have prepared.
        #[serde(default)]
        participants: Vec<PartitionId>,
        /// What it read and writes here, without what was prepared here in earlier parts.
        effects: Effects,
    },
    /// Checks, and holds on to what was read and is to be written until the anchor has decided.
    Prepare(Prepare),
    /// The coordinator is alive: nobody may take the transaction for abandoned for another lease. At the anchor, which
    /// need not have anything of it yet.
    Extend {
        /// The transaction.
        txn: TxnId,
        /// The partition that this is sent to.
        anchor: PartitionId,
    },
    /// Someone met what the transaction holds. At the anchor: it answers the decision, decides to abort when the
    /// coordinator's lease is over, or makes sure that the transaction commits above this step's timestamp, if it does.
    Push {
        /// The transaction.
        txn: TxnId,
        /// When its lease is over as the partition knows it where it was met; counts where the anchor has nothing of it
        /// yet.
        expires: Timestamp,
    },
    /// Makes sure that it never commits, unless it has. At the anchor.
    Abort {
        /// The transaction.
        txn: TxnId,
        /// Why.
        why: String,
    },
    /// Does what was decided with what is held here.
    Resolve {
        /// The transaction.
        txn: TxnId,
        /// When it was committed; none if it was aborted.
        committed: Option<Timestamp>,
    },
    /// All other partitions have resolved: the anchor may forget in time. At the anchor.
    Finish {
        /// The transaction.
        txn: TxnId,
    },
    /// What became of it. Where nothing is known of it, it can never commit afterwards.
    Inquire {
        /// The transaction.
        txn: TxnId,
    },
}

impl TxnStep {
    /// The transaction that it is about.
    pub fn txn(&self) -> TxnId {
        match self {
            Self::Prepare(prepare) => prepare.txn,
            Self::Commit { txn, .. }
            | Self::Extend { txn, .. }
            | Self::Push { txn, .. }
            | Self::Abort { txn, .. }
            | Self::Resolve { txn, .. }
            | Self::Finish { txn }
            | Self::Inquire { txn } => *txn,
        }
    }

    /// About how many bytes it takes in the log.
    pub fn weight(&self) -> usize {
        match self {
            Self::Commit { effects, participants, .. } => effects.weight() + 8 * participants.len() + 64,
            Self::Prepare(prepare) => prepare.effects.weight() + 128,
            _ => 96,
        }
    }

    /// The values that it puts, and about how many bytes they take.
    pub fn puts(&self) -> (usize, usize) {
        let (Self::Commit { effects, .. } | Self::Prepare(Prepare { effects, .. })) = self else {
            return (0, 0);
        };
        let puts = effects.writes.iter().filter(|write| write.value.is_some());
        puts.fold((0, 0), |(count, bytes), put| (count + 1, bytes + put.weight()))
    }
}

/// A part of a transaction that is committed in several partitions, or in several parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// The transaction.
    pub txn: TxnId,
    /// Where it is decided.
    pub anchor: PartitionId,
    /// Which part in this partition, from zero on. One that was prepared already is answered as such.
    pub part: u32,
    /// What is checked and held.
    pub effects: Effects,
}

/// What a transaction read and writes in one partition.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effects {
    /// Keys that must not have changed, nor change until the commit.
    #[serde(default)]
    pub reads: Vec<ReadKey>,
    /// Ranges of which the same is true.
    #[serde(default)]
    pub ranges: Vec<ReadRange>,
    /// Each key once.
    #[serde(default)]
    pub writes: Vec<TxnPut>,
}

impl Effects {
    /// About how many bytes they take in the log and in memory.
    pub fn weight(&self) -> usize {
        let reads: usize = self.reads.iter().map(|read| read.key.as_bytes().len() + 32).sum();
        let ranges: usize = self.ranges.iter().map(ReadRange::weight).sum();
        let writes: usize = self.writes.iter().map(TxnPut::weight).sum();
        reads + ranges + writes
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.reads.is_empty() && self.ranges.is_empty() && self.writes.is_empty()
    }
}

/// A key that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadKey {
    /// The key.
    pub key: EncodedKey,
    /// As of when.
    pub since: Timestamp,
}

/// A range that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadRange {
    /// Keys at or after this.
    pub start: EncodedKey,
    /// Keys before this.
    pub end: EncodedKey,
    /// As of when.
    pub since: Timestamp,
}

impl ReadRange {
    /// Whether the key lies in it.
    pub fn contains(&self, key: &EncodedKey) -> bool {
        self.start <= *key && *key < self.end
    }

    /// About how many bytes it takes.
    pub fn weight(&self) -> usize {
        self.start.as_bytes().len() + self.end.as_bytes().len() + 48
    }
}

/// A key that is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnPut {
    /// The key.
    pub key: EncodedKey,
    /// Its new value; none deletes.
    #[serde(default, with = "crate::shared::option")]
    pub value: Option<Bytes>,
    /// A version after this refuses the transaction; [`Timestamp::MAX`] where none does.
    pub since: Timestamp,
}

impl TxnPut {
    /// About how many bytes it takes.
    pub fn weight(&self) -> usize {
        self.key.as_bytes().len() + self.value.as_ref().map_or(0, Bytes::len) + 48
    }
}

/// What a step answers. Every replica computes the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnApplied {
    /// It is committed, as of then.
    Committed(Timestamp),
    /// It is not and never will be, and why.
    Aborted(String),
    /// The part is held.
    Prepared,
    /// Nothing was done by this step, and why. The transaction may still be tried, or must be aborted.
    Refused(Conflict),
    /// It is undecided and, if it commits, does so above this timestamp.
    Pushed(Timestamp),
    /// Done, or there was nothing to do.
    Resolved,
    /// It is prepared here and this partition decides it or has it decided.
    Held {
        /// Where it is decided.
        anchor: PartitionId,
        /// When its coordinator's lease is over.
        expires: Timestamp,
    },
    /// It began so long ago that what became of it is not kept any more.
    Forgotten,
}

/// Why a transaction's part was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Conflict {
    /// A key has a version that the transaction does not know.
    Changed {
        /// The key.
        key: EncodedKey,
        /// The version.
        version: Timestamp,
    },
    /// Another transaction, undecided, holds a key or a range with it.
    Blocked {
        /// The key.
        key: EncodedKey,
        /// By whom.
        by: TxnId,
        /// It wants to write the key; else it has read it.
        writes: bool,
    },
    /// It began, or read, too long ago to commit: what has changed since may be forgotten.
    TooOld,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { key, version } => {
                write!(f, "the key {} was changed meanwhile, at {version}", key.user_key().escape_ascii())
            }
            Self::Blocked { key, by, writes: true } => {
                write!(f, "the key {} is being written by transaction {by}", key.user_key().escape_ascii())
            }
            Self::Blocked { key, by, writes: false } => {
                write!(
                    f,
                    "the key {} was read by transaction {by}, which is committing",
                    key.user_key().escape_ascii()
                )
            }
            Self::TooOld => f.write_str(
                "the transaction began longer ago than transactions may last, or than history is kept",
            ),
        }
    }
}

/// An undecided transaction that stands in the way of a write or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocker {
    /// The transaction.
    pub txn: TxnId,
    /// Where it is decided.
    pub anchor: PartitionId,
    /// When its coordinator's lease is over, as known here.
    pub expires: Timestamp,
}
