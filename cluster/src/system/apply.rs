//! Applying the system group's log entries. Every replica computes the same answer, refusals too.

use super::{
    DEFAULT_KEYSPACE, NodeAddresses, NodeInfo, PartitionInfo, SystemApplied, SystemCommand, SystemState,
};
use crate::ids::{ClusterId, Epoch, InstanceId, KeyspaceId, NodeId, PartitionId};
use crate::limits::{NODES_MAX, PARTITIONS_MAX, REPLICATION_MAX};
use crate::placement;
use crate::timestamp::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Why a command is refused: lower case, what is the matter, with which values.
type Refusal = String;

impl SystemState {
    /// Applies the log entry at `index` and answers what its proposer is told. The epoch becomes `index` when
    /// nodes, keyspaces or partitions change, and only then.
    pub fn apply(&mut self, index: u64, command: SystemCommand) -> SystemApplied {
        let epoch = Epoch(index);
        let applied = match command {
            SystemCommand::Found { cluster_id, nodes, partitions, replication } => {
                self.found(epoch, cluster_id, nodes, partitions, replication).map(SystemApplied::Founded)
            }
            SystemCommand::Join { instance, node, addresses } => {
                self.join(epoch, instance, node, addresses).map(SystemApplied::Joined)
            }
            SystemCommand::Place { epoch: planned, replicas } => {
                self.place(epoch, planned, replicas).map(|()| SystemApplied::Placed)
            }
            SystemCommand::ReserveTimestamps { until } => Ok(self.reserve_timestamps(until)),
        };
        applied.unwrap_or_else(SystemApplied::Refused)
    }

    fn found(
        &mut self,
        epoch: Epoch,
        cluster_id: ClusterId,
        nodes: BTreeMap<NodeId, NodeInfo>,
        partitions: u32,
        replication: u32,
    ) -> Result<ClusterId, Refusal> {
        if let Some(founded) = self.cluster_id {
            return Ok(founded);
        }
        if nodes.is_empty() || nodes.len() > NODES_MAX {
            return Err(format!("{} nodes, a cluster has 1 to {NODES_MAX}", nodes.len()));
        }
        if nodes.contains_key(&NodeId(0)) {
            return Err("a founding node has no id".to_owned());
        }
        if !(1..=PARTITIONS_MAX).contains(&partitions) {
            return Err(format!("{partitions} partitions, a cluster has 1 to {PARTITIONS_MAX}"));
        }
        if !(1..=REPLICATION_MAX).contains(&(replication as usize)) {
            return Err(format!("replication {replication}, it can be 1 to {REPLICATION_MAX}"));
        }
        let ids: Vec<NodeId> = nodes.keys().copied().collect();
        self.partitions = (0..)
            .zip(placement::place(&ids, partitions, replication as usize))
            .map(|(i, (id, replicas))| {
                let start = placement::start_token(i, partitions);
                (id, PartitionInfo { start, founders: replicas.clone(), replicas })
            })
            .collect();
        self.cluster_id = Some(cluster_id);
        self.nodes = nodes;
        self.replication = replication;
        self.keyspaces = BTreeMap::from([(DEFAULT_KEYSPACE.to_owned(), KeyspaceId::DEFAULT)]);
        self.epoch = epoch;
        Ok(cluster_id)
    }

    fn join(
        &mut self,
        epoch: Epoch,
        instance: InstanceId,
        node: NodeId,
        addresses: NodeAddresses,
    ) -> Result<NodeId, Refusal> {
        if self.cluster_id.is_none() {
            return Err("the cluster is not founded yet".to_owned());
        }
        if instance == InstanceId::default() {
            return Err("a data directory without a number cannot join".to_owned());
        }
        let id = match self.nodes.iter().find(|(_, info)| info.instance == instance) {
            Some((&id, info)) if info.removed => {
                return Err(format!("data directory {instance} was {id}, which is removed"));
            }
            Some((&id, _)) if node != NodeId(0) && node != id => {
                return Err(format!("data directory {instance} is {id}, not {node}"));
            }
            Some((&id, _)) => id,
            None if node == NodeId(0) => self.admit(&addresses)?,
            None => self.adopt(node)?,
        };
        let info = NodeInfo { instance, addresses, removed: false };
        if self.nodes.get(&id) != Some(&info) {
            self.nodes.insert(id, info);
            self.epoch = epoch;
        }
        Ok(id)
    }

    /// The id for a data directory that nobody has seen and that claims none.
    fn admit(&mut self, addresses: &NodeAddresses) -> Result<NodeId, Refusal> {
        let there = self.members().find(|(_, info)| info.addresses.peer == addresses.peer);
        let replaced = match there {
            // A seed that has not reported in until now: this is it.
            Some((id, info)) if info.instance == InstanceId::default() => return Ok(id),
            Some((id, _)) => Some(id),
            None => None,
        };
        let members = self.members().count() - usize::from(replaced.is_some());
        if members >= NODES_MAX {
            return Err(format!("the cluster has {members} nodes, the limit is {NODES_MAX}"));
        }
        if let Some(info) = replaced.and_then(|id| self.nodes.get_mut(&id)) {
            info.removed = true;
        }
        let last = self.nodes.keys().next_back().copied().unwrap_or_default();
        Ok(NodeId(last.0 + 1))
    }

    /// The id for a data directory that nobody has seen and that claims to be `node`: only a seed that has not
    /// reported in yet can be that.
    fn adopt(&self, node: NodeId) -> Result<NodeId, Refusal> {
        match self.nodes.get(&node) {
            Some(info) if info.instance == InstanceId::default() && !info.removed => Ok(node),
            Some(info) if info.removed => Err(format!("{node} is removed")),
            Some(info) => Err(format!("{node} is data directory {}, not this one", info.instance)),
            None => Err(format!("{node} is no member of this cluster")),
        }
    }

    fn place(
        &mut self,
        epoch: Epoch,
        planned: Epoch,
        replicas: BTreeMap<PartitionId, Vec<NodeId>>,
    ) -> Result<(), Refusal> {
        let is_so = |(id, wanted): (&PartitionId, &Vec<NodeId>)| {
            self.partitions.get(id).is_some_and(|info| info.replicas == *wanted)
        };
        // An answer that was lost is asked for again, with an epoch that this very command has made old.
        if replicas.iter().all(is_so) {
            return Ok(());
        }
        if planned != self.epoch {
            return Err(format!("planned from {planned}, the map is at {}", self.epoch));
        }
        for (id, wanted) in &replicas {
            if !self.partitions.contains_key(id) {
                return Err(format!("there is no partition {id}"));
            }
            if wanted.is_empty() || wanted.len() > REPLICATION_MAX {
                return Err(format!(
                    "{} replicas for {id}, it can have 1 to {REPLICATION_MAX}",
                    wanted.len()
                ));
            }
            let mut seen = BTreeSet::new();
            for node in wanted {
                if !seen.insert(node) {
                    return Err(format!("{node} stands twice among the replicas of {id}"));
                }
                if self.nodes.get(node).is_none_or(|info| info.removed) {
                    return Err(format!("{node}, wanted for {id}, is no member"));
                }
            }
        }
        for (id, wanted) in replicas {
            self.partitions.get_mut(&id).expect("all were checked").replicas = wanted;
        }
        self.epoch = epoch;
        Ok(())
    }

    fn reserve_timestamps(&mut self, until: Timestamp) -> SystemApplied {
        let from = self.timestamp_window;
        self.timestamp_window = from.max(until);
        SystemApplied::Reserved { from, until: self.timestamp_window }
    }
}
