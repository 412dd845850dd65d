//! What a data partition's log holds, and what applying it answers.

use crate::key::EncodedKey;
use crate::timestamp::Timestamp;
use crate::txn::{Blocker, TxnApplied, TxnEntry};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What must hold of a key for a write to be done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Nothing: write in any case.
    #[default]
    Any,
    /// The key has no live value.
    Absent,
    /// The key has a live value, whichever.
    Present,
    /// The key's live value has exactly this version.
    Version(Timestamp),
}

/// One write of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The key.
    pub key: EncodedKey,
    /// The new value; none deletes.
    #[serde(default, with = "crate::shared::option")]
    pub value: Option<Bytes>,
    /// What must hold for it.
    #[serde(default)]
    pub condition: Condition,
}

impl Write {
    /// About how many bytes the write takes in the log.
    pub fn weight(&self) -> usize {
        self.key.as_bytes().len() + self.value.as_ref().map_or(0, Bytes::len) + 32
    }
}

/// An entry in a data partition's log. New kinds are added at the end; a kind is never reused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Independent single-key writes, each done or refused by its own condition.
    Write(WriteBatch),
    /// Steps of transactions.
    Txn(TxnEntry),
}

/// Writes that were proposed together. The i-th write's version is `timestamp + i`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteBatch {
    /// The first write's commit timestamp. Must be above every timestamp the partition has applied, else
    /// the whole batch is refused with [`Applied::StaleTimestamp`]: a deposed leader proposed it late.
    pub timestamp: Timestamp,
    /// Versions below this that are not a key's newest at it may be forgotten. Never moves back.
    pub gc_floor: Timestamp,
    /// In order: a later write sees an earlier one of the same batch.
    pub writes: Vec<Write>,
}

/// What applying one log entry of a data partition answers to whoever proposed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// One outcome per write, in order.
    Writes(Vec<WriteOutcome>),
    /// One per step, in order.
    Txns(Vec<TxnApplied>),
    /// Nothing was done; propose again with a timestamp above this one.
    StaleTimestamp(Timestamp),
}

/// What became of one write. Every replica computes the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteOutcome {
    /// Done.
    Done {
        /// The new version.
        version: Timestamp,
        /// The version it replaced; none if the key had no live value.
        previous: Option<Timestamp>,
    },
    /// The condition did not hold; nothing was done.
    ConditionFailed {
        /// The live value's version, none if there is none.
        current: Option<Timestamp>,
    },
    /// Nothing was done: a transaction that is being committed has read or writes the key. Only the partition's leader
    /// sees this; it waits for the end of that one and proposes the write again.
    Blocked(Blocker),
}
