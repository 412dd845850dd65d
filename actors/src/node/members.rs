//! Membership as a running node takes part in it: letting others in, founding, and reporting itself.

use crate::context::NodeContext;
use crate::control::{propose, propose_anywhere};
use crate::router::{Gossip, RouterMessage};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use trandb_cluster::system::{NodeAddresses, NodeInfo, SystemApplied, SystemCommand};
use trandb_cluster::{ClusterId, InstanceId, NodeId, PartitionId, wire};
use trandb_runtime::peer::{Answer, Ask};

/// How long the system group is given to take a command.
const DEADLINE: Duration = Duration::from_secs(3);

/// How long after a failed attempt the next one is made.
const RETRY: Duration = Duration::from_millis(50);

/// Takes a node in, or says who can.
pub(super) async fn admit(
    context: &NodeContext,
    instance: InstanceId,
    node: NodeId,
    addresses: NodeAddresses,
) -> Answer {
    let system = context.system();
    let Some(cluster) = system.cluster_id else { return Answer::NotFormed };
    let leader = context.leader(PartitionId::SYSTEM);
    if leader != Some(context.node) {
        let leader_addr = leader
            .and_then(|leader| system.nodes.get(&leader))
            .map(|info| info.addresses.peer.clone())
            .filter(|peer| !peer.is_empty());
        return Answer::NotLeader { leader_addr };
    }
    let peer = addresses.peer.clone();
    let command = SystemCommand::Join { instance, node, addresses };
    match tokio::time::timeout(DEADLINE, propose(context, command)).await {
        Ok(Ok(SystemApplied::Joined(node))) => {
            tracing::info!(%node, peer, "a node was taken in");
            Answer::Joined { node, cluster, members: super::forming::peers(&context.system()) }
        }
        Ok(Ok(other)) => Answer::Refused(format!("the system group answered {other:?}")),
        Ok(Err(why)) => Answer::Refused(why),
        Err(_) => Answer::Refused(format!("the system group did not answer within {DEADLINE:?}")),
    }
}

/// Proposes the cluster's first command for as long as it has no name. Every founder does; the first wins.
pub(super) async fn found(context: Arc<NodeContext>, nodes: BTreeMap<NodeId, NodeInfo>) {
    let settings = &context.config.node;
    let random = || u128::from(context.random.next_u64());
    let command = SystemCommand::Found {
        cluster_id: ClusterId(random() << 64 | random()),
        nodes,
        partitions: settings.partitions,
        replication: settings.replication,
    };
    while context.system().cluster_id.is_none() {
        if context.leader(PartitionId::SYSTEM) == Some(context.node) {
            match tokio::time::timeout(DEADLINE, propose(&context, command.clone())).await {
                Ok(Ok(SystemApplied::Founded(cluster))) => tracing::info!(%cluster, "the cluster is founded"),
                Ok(Ok(other)) => tracing::warn!(?other, "founding was answered oddly"),
                Ok(Err(why)) => tracing::debug!(why, "founding failed and is tried again"),
                Err(_) => tracing::debug!("founding took too long and is tried again"),
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Asks who the members are while another node's map is newer than this node's. It may lack the system group's leader among
/// its peers, from which it would hear of newer ones. Runs until the node stops.
pub(super) async fn catch_up(context: Arc<NodeContext>) {
    /// Between two looks. Who is behind at two of them is not just about to hear.
    const LOOK: Duration = Duration::from_secs(1);
    let heard = context.hub.heard();
    let mut behind = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let epoch = context.system().epoch;
        let states = context.hub.states().borrow().clone();
        let ahead = heard.borrow().iter().find_map(|(&node, gossip)| {
            // What was heard stays when its node is down, which would not answer.
            states.get(&node).filter(|state| state.is_up())?;
            // One of another version says nothing here.
            let gossip: Gossip = wire::decode(gossip).ok()?;
            (gossip.epoch > epoch).then_some(node)
        });
        let waits = std::mem::replace(&mut behind, ahead.map(|_| epoch)) == Some(epoch);
        let Some(at) = ahead.filter(|_| waits).and_then(|node| context.hub.peers().remove(&node)) else {
            continue;
        };
        match context.hub.ask(&at, Ask::Discover).await {
            Ok(Answer::Discovered { members, .. }) => {
                let peers = members.into_iter().map(|(node, addresses)| (node, addresses.peer));
                let peers = peers.filter(|(node, peer)| *node != context.node && !peer.is_empty()).collect();
                context.tell_router(RouterMessage::Members(peers));
            }
            Ok(other) => tracing::debug!(at, ?other, "the members were not told"),
            Err(error) => tracing::debug!(at, %error, "the members were not told"),
        }
    }
}

/// Keeps the system group informed of this node's addresses. Runs until the node stops.
pub(super) async fn report(context: Arc<NodeContext>, addresses: NodeAddresses) {
    let mut system = context.system.subscribe();
    loop {
        let known = system
            .borrow_and_update()
            .nodes
            .get(&context.node)
            .is_some_and(|info| info.instance == context.instance && info.addresses == addresses);
        let founded = context.system().cluster_id.is_some();
        if known || !founded {
            // The sender lives in the context, which this task holds.
            if system.changed().await.is_err() {
                return;
            }
            continue;
        }
        let command = SystemCommand::Join {
            instance: context.instance,
            node: context.node,
            addresses: addresses.clone(),
        };
        if let Err(why) = propose_anywhere(&context, command, DEADLINE).await {
            tracing::debug!(why, "this node's addresses were not noted yet");
            tokio::time::sleep(RETRY).await;
        }
    }
}
