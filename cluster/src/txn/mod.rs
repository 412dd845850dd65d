//! Transactions: what clients, doors, coordinators and partitions call things.

mod coordinator;
mod locks;
mod names;
mod request;
mod step;
mod waits;

pub use coordinator::{Coordinator, Plan};
pub use locks::{Asked, LOCK_LEASE_MS, LOCK_WAITERS_MAX, LockEvent, Locks};
pub use names::{NAMES_MS_MAX, NAMES_PER_GRANT, Names};
pub use request::{TxnBatch, TxnKey, TxnOp, TxnRequest, TxnResponse, TxnWrite, operations};
pub use step::{
    Blocker, Conflict, Effects, Prepare, ReadKey, ReadRange, TxnApplied, TxnEntry, TxnPut, TxnStep,
};

pub use waits::{PROBE_MAX, Probed, Waits, describe_cycle};

use crate::error::Error;
use crate::ids::NodeId;
use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A transaction's name, unique in the cluster for good: the timestamp it began at, which the oracle gave to nobody
/// else, and the node whose coordinator runs it, so that any node can find that. Shown as `<begin>-<node>`, both
/// decimal. The larger id is the younger transaction.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TxnId {
    /// Its first read timestamp; of one that reads nothing, perhaps one from a little before ([`Names`]).
    pub begin: Timestamp,
    /// The node of its coordinator.
    pub node: NodeId,
}

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.begin, self.node.0)
    }
}

impl std::str::FromStr for TxnId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parsed = text.split_once('-').and_then(|(begin, node)| {
            Some(Self { begin: begin.parse().ok()?, node: NodeId(node.parse().ok()?) })
        });
        parsed.ok_or_else(|| Error::invalid(format!("not a transaction's id: {text:?}")))
    }
}

/// What a transaction may see of others that run at the same time. `read_uncommitted` is taken for
/// `read_committed`: there is nothing uncommitted to see.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Each statement sees what was committed when it began.
    #[serde(alias = "read_uncommitted")]
    ReadCommitted,
    /// All statements see one snapshot; of two that write the same key one is refused. Also `repeatable_read`.
    #[serde(alias = "repeatable_read")]
    Snapshot,
    /// As if transactions ran one after the other, in an order that real time agrees with.
    #[default]
    Serializable,
}

impl Isolation {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadCommitted => "read_committed",
            Self::Snapshot => "snapshot",
            Self::Serializable => "serializable",
        }
    }
}

/// What is known of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TxnOutcome {
    /// It takes operations, or its commit is under way.
    Open,
    /// It is done, as of this timestamp.
    Committed(Timestamp),
    /// It did nothing and never will, and why.
    Aborted(String),
    /// It ended longer ago than outcomes are kept.
    Unknown,
}
