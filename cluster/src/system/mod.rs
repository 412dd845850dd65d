//! The system group's state: nodes, keyspaces, the partition map, and the timestamp window.

mod apply;

use crate::ids::{ClusterId, Epoch, InstanceId, KeyspaceId, NodeId, PartitionId};
use crate::key::Token;
use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The name of the keyspace that exists from the start.
pub const DEFAULT_KEYSPACE: &str = "default";

/// Where a node can be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddresses {
    /// Peer links.
    pub peer: String,
    /// HTTP.
    pub http: String,
    /// Native protocol.
    pub native: String,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its data directory's own number; zero until a seed has reported in.
    pub instance: InstanceId,
    /// Where it is.
    pub addresses: NodeAddresses,
    /// Gone for good: its place was taken by a fresh data directory. Kept so that its id is never reused.
    #[serde(default)]
    pub removed: bool,
}

/// A partition of the map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionInfo {
    /// Its first token; it reaches to the next partition's first.
    pub start: Token,
    /// The nodes that should hold a replica, most preferred leader first.
    pub replicas: Vec<NodeId>,
    /// The members that the group is created with. A node in here whose replica is empty initialises the
    /// group with exactly this set, which is the same whoever does it first.
    pub founders: Vec<NodeId>,
}

/// Everything the system group knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemState {
    /// None until [`SystemCommand::Found`] is applied.
    pub cluster_id: Option<ClusterId>,
    /// Replicas that each partition should have, where there are enough nodes.
    pub replication: u32,
    /// Members, the removed ones too.
    pub nodes: BTreeMap<NodeId, NodeInfo>,
    /// Keyspaces by name.
    pub keyspaces: BTreeMap<String, KeyspaceId>,
    /// The partition map.
    pub partitions: BTreeMap<PartitionId, PartitionInfo>,
    /// The index of the log entry that last changed nodes, keyspaces or partitions.
    pub epoch: Epoch,
    /// Timestamps up to here (exclusive) may have been issued.
    pub timestamp_window: Timestamp,
}

impl SystemState {
    /// The data directories of all nodes that have reported theirs.
    pub fn instances(&self) -> BTreeMap<NodeId, InstanceId> {
        let reported = self.nodes.iter().filter(|(_, info)| info.instance != InstanceId::default());
        reported.map(|(&id, info)| (id, info.instance)).collect()
    }

    /// Nodes that are not removed.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &NodeInfo)> {
        self.nodes.iter().filter(|(_, info)| !info.removed).map(|(&id, info)| (id, info))
    }
}

/// An entry in the system group's log. New kinds are added at the end; a kind is never reused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SystemCommand {
    /// The cluster begins. The first one applied wins; later ones change nothing.
    Found {
        /// A random name, made by whoever proposes.
        cluster_id: ClusterId,
        /// The first members.
        nodes: BTreeMap<NodeId, NodeInfo>,
        /// Data partitions.
        partitions: u32,
        /// Replicas per partition where there are enough nodes.
        replication: u32,
    },
    /// A node is there, or its addresses changed. A fresh data directory at a member's peer address takes
    /// that member's place: the old id is marked removed and a new id is given.
    Join {
        /// The data directory's number.
        instance: InstanceId,
        /// The id that it believes it has; zero asks for one.
        node: NodeId,
        /// Where it is.
        addresses: NodeAddresses,
    },
    /// Where partitions should live, as the planner wants it. Refused when the map has moved on from
    /// `epoch`.
    Place {
        /// The epoch that it was planned from.
        epoch: Epoch,
        /// Wanted replicas of each partition named.
        replicas: BTreeMap<PartitionId, Vec<NodeId>>,
    },
    /// Timestamps below `until` may be issued by the leader that proposed this.
    ReserveTimestamps {
        /// Exclusive. Never moves the window back.
        until: Timestamp,
    },
}

/// What applying a [`SystemCommand`] answers to whoever proposed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SystemApplied {
    /// The cluster's name, whether this command or an earlier one founded it.
    Founded(ClusterId),
    /// The node's id.
    Joined(NodeId),
    /// The map has changed (or was already so).
    Placed,
    /// The window's end before and after.
    Reserved {
        /// Before: nothing below this may be issued by whoever reserved.
        from: Timestamp,
        /// After.
        until: Timestamp,
    },
    /// Nothing was done, and why.
    Refused(String),
}
