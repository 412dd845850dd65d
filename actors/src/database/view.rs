//! The cluster as people and clients see it, from what this node knows.

use super::{Database, Readiness};
use trandb_cluster::wire::{ClusterView, NodeView, PartitionView, Topology};
use trandb_cluster::{NodeId, PartitionId};

impl Database {
    /// The partition map, for clients that go to leaders directly.
    pub fn topology(&self) -> Topology {
        let routes = self.routes.borrow().clone();
        let state = self.context.system();
        Topology {
            epoch: state.epoch,
            nodes: state
                .members()
                .filter(|(_, info)| !info.addresses.native.is_empty())
                .map(|(node, info)| (node, info.addresses.native.clone()))
                .collect(),
            partitions: state
                .partitions
                .iter()
                .map(|(&id, info)| (info.start, id, routes.leader(id)))
                .collect(),
            keyspaces: state.keyspaces.iter().map(|(name, &id)| (name.clone(), id)).collect(),
        }
    }

    /// The cluster as `GET /admin/cluster` shows it.
    pub fn cluster_view(&self) -> ClusterView {
        let routes = self.routes.borrow().clone();
        let state = self.context.system();
        let peers = self.context.hub.states().borrow().clone();
        let me = self.context.node;
        let nodes = state
            .nodes
            .iter()
            .map(|(&id, info)| {
                let state = match peers.get(&id) {
                    _ if info.removed => "removed",
                    _ if id == me => "up",
                    Some(peer) => peer.name(),
                    None => "down",
                };
                NodeView {
                    id,
                    state: state.into(),
                    peer: info.addresses.peer.clone(),
                    http: info.addresses.http.clone(),
                    native: info.addresses.native.clone(),
                    leads: routes.leads.values().filter(|lead| lead.leader == Some(id)).count() as u32,
                }
            })
            .collect();
        let system = state.cluster_id.map(|_| {
            let voters = routes.voters(PartitionId::SYSTEM).unwrap_or_default().to_vec();
            (PartitionId::SYSTEM, voters, String::new())
        });
        let data = state
            .partitions
            .iter()
            .map(|(&id, info)| (id, info.replicas.clone(), format!("{:016x}", info.start.0)));
        let partitions = system
            .into_iter()
            .chain(data)
            .map(|(id, replicas, start)| {
                let lead = routes.leads.get(&id).cloned().unwrap_or_default();
                PartitionView {
                    id,
                    leader: lead.leader,
                    term: lead.term,
                    replicas,
                    applied: lead.applied,
                    start,
                }
            })
            .collect();
        ClusterView { cluster_id: state.cluster_id, answered_by: me, epoch: state.epoch, nodes, partitions }
    }

    /// Whether this node should be sent requests: it knows its cluster and its partitions, every one of
    /// which has a leader that it has heard of, and it is not stopping.
    pub fn readiness(&self) -> Readiness {
        let mut reasons = Vec::new();
        if self.context.is_stopping() {
            reasons.push("the node is stopping".to_owned());
        }
        reasons.extend(self.context.no_room().map(|why| why.message));
        let state = self.context.system();
        if state.cluster_id.is_none() {
            reasons.push("the node does not know its cluster yet".to_owned());
        }
        let routes = self.routes.borrow().clone();
        // Who leads what may be heard before.
        if routes.table.partitions().len() == 0 {
            reasons.push("the partition map is not known yet".to_owned());
        }
        let peers = self.context.hub.states().borrow().clone();
        let me = self.context.node;
        // A leader that cannot be reached is as good as none; its group is about to elect another.
        let reachable = |leader: NodeId| leader == me || peers.get(&leader).is_some_and(|peer| peer.is_up());
        let headless: Vec<String> = std::iter::once(PartitionId::SYSTEM)
            .chain(state.partitions.keys().copied())
            .filter(|&id| !routes.leader(id).is_some_and(reachable))
            .map(|id| id.to_string())
            .collect();
        if !headless.is_empty() {
            reasons.push(format!("no leader can be reached of {}", headless.join(", ")));
        }
        // Others serve in place of wrong replicas.
        let mut details = self.context.alarms.texts();
        // Reads and deletes go on, and no other node would take the values.
        details.extend(self.context.no_memory().map(|why| why.message));
        details.extend(routes.full.iter().map(|node| format!("{node} has no memory for more values")));
        Readiness { ready: reasons.is_empty(), reasons, details }
    }
}
