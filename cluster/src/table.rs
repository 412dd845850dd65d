//! The partition map as requests use it: immutable, one per epoch, made from the system group's state.

use crate::error::Error;
use crate::ids::{Epoch, KeyspaceId, NodeId, PartitionId};
use crate::key::Token;
use crate::limits::KEYSPACE_BYTES_MAX;
use crate::system::{DEFAULT_KEYSPACE, NodeInfo, SystemState};
use std::collections::BTreeMap;

/// A partition of the [`RoutingTable`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its first token; it reaches to the next partition's first.
    pub start: Token,
    /// The partition.
    pub id: PartitionId,
    /// The nodes that should hold a replica, most preferred leader first.
    pub replicas: Vec<NodeId>,
}

/// Where every key lives, as of one epoch. Empty before the cluster is founded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoutingTable {
    epoch: Epoch,
    /// In token order.
    routes: Vec<Route>,
    /// Places in `routes`.
    places: BTreeMap<PartitionId, usize>,
    keyspaces: BTreeMap<String, KeyspaceId>,
    /// Members that are not removed.
    nodes: BTreeMap<NodeId, NodeInfo>,
}

impl RoutingTable {
    /// The table of a state.
    pub fn from_state(state: &SystemState) -> Self {
        let mut routes: Vec<Route> = state
            .partitions
            .iter()
            .map(|(&id, info)| Route { start: info.start, id, replicas: info.replicas.clone() })
            .collect();
        routes.sort_by_key(|route| route.start);
        let places = routes.iter().enumerate().map(|(place, route)| (route.id, place)).collect();
        Self {
            epoch: state.epoch,
            routes,
            places,
            keyspaces: state.keyspaces.clone(),
            nodes: state.members().map(|(id, info)| (id, info.clone())).collect(),
        }
    }

    /// The epoch that it shows.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The partition that a token lies in; none before the cluster is founded. Tokens before the first
    /// partition's belong to the last one, as the ring closes there.
    pub fn partition_of(&self, token: Token) -> Option<PartitionId> {
        let after = self.routes.partition_point(|route| route.start <= token);
        let route = if after == 0 { self.routes.last() } else { self.routes.get(after - 1) };
        route.map(|route| route.id)
    }

    /// The nodes that should hold a replica, most preferred leader first. Empty for an unknown partition, and for
    /// the system group, whose members only Raft knows.
    pub fn replicas(&self, partition: PartitionId) -> &[NodeId] {
        self.places.get(&partition).map_or(&[], |&place| &self.routes[place].replicas)
    }

    /// Every data partition, in token order.
    pub fn partitions(&self) -> impl ExactSizeIterator<Item = &Route> {
        self.routes.iter()
    }

    /// The keyspace called `name`; none is `default`.
    ///
    /// # Errors
    /// `unavailable` before the cluster is founded, `invalid` for a name over its limit, `not_found`.
    pub fn keyspace(&self, name: Option<&str>) -> Result<KeyspaceId, Error> {
        let name = name.unwrap_or(DEFAULT_KEYSPACE);
        if name.len() > KEYSPACE_BYTES_MAX {
            return Err(Error::invalid(format!(
                "the keyspace's name has {} bytes, the limit is {KEYSPACE_BYTES_MAX}",
                name.len()
            )));
        }
        if self.routes.is_empty() {
            return Err(Error::unavailable("the cluster is still forming"));
        }
        self.keyspaces
            .get(name)
            .copied()
            .ok_or_else(|| Error::not_found(format!("there is no keyspace called {name}")))
    }

    /// Keyspaces by name.
    pub fn keyspaces(&self) -> impl Iterator<Item = (&str, KeyspaceId)> {
        self.keyspaces.iter().map(|(name, &id)| (name.as_str(), id))
    }

    /// A member; none for one that is unknown or removed.
    pub fn node(&self, node: NodeId) -> Option<&NodeInfo> {
        self.nodes.get(&node)
    }

    /// Every member that is not removed.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (NodeId, &NodeInfo)> {
        self.nodes.iter().map(|(&id, info)| (id, info))
    }
}
