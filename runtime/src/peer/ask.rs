//! One question and one answer on a connection of its own, between nodes that have no link yet: how a
//! starting node finds out who is there and how it becomes a member.

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use trandb_cluster::ids::{ClusterId, InstanceId, NodeId};
use trandb_cluster::system::NodeAddresses;

/// Largest question or answer: [`trandb_cluster::limits::NODES_MAX`] members with three addresses of up to
/// 300 bytes each. At the limit: the connection is closed.
pub(super) const ASK_BYTES_MAX: usize = 64 << 10;

/// What a node asks another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Who are you, and whom do you know? Answered with [`Answer::Discovered`].
    Discover,
    /// Take me in, or note where I am now. Answered with any of the others.
    Join {
        /// The asker's data directory.
        instance: InstanceId,
        /// The id that it believes it has; zero asks for one.
        node: NodeId,
        /// Where it is.
        addresses: NodeAddresses,
    },
}

/// What the other one answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Who answers and whom it knows.
    Discovered {
        /// Its data directory.
        instance: InstanceId,
        /// None until it has been given one.
        node: Option<NodeId>,
        /// None until it knows of one.
        cluster: Option<ClusterId>,
        /// The cluster that it belongs to: it is starting, or waits to be taken in again.
        #[serde(default)]
        rejoins: Option<ClusterId>,
        /// The seed list that it was started with.
        seeds: Vec<String>,
        /// The members that it knows, itself included once it is one.
        members: BTreeMap<NodeId, NodeAddresses>,
        /// The system group's leader, as far as it knows.
        system_leader: Option<NodeId>,
    },
    /// The asker is a member.
    Joined {
        /// Its id.
        node: NodeId,
        /// The cluster's name.
        cluster: ClusterId,
        /// All members.
        members: BTreeMap<NodeId, NodeAddresses>,
    },
    /// Ask the system group's leader.
    NotLeader {
        /// Its peer address, where known.
        leader_addr: Option<String>,
    },
    /// There is no cluster here yet.
    NotFormed,
    /// No, and why.
    Refused(String),
}

/// Answers questions of others. Runs at most as many at a time as there are handshake slots, each for at
/// most [`super::HANDSHAKE_MAX`].
pub type AskHandler = Arc<dyn Fn(Ask) -> BoxFuture<'static, Answer> + Send + Sync>;
