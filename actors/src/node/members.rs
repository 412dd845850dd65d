//! Membership as a running node takes part in it: letting others in, founding, and reporting itself.

use super::Fatal;
use crate::context::NodeContext;
use crate::control::{propose, propose_anywhere};
use crate::router::{Gossip, RouterMessage};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use trandb_cluster::forming::normalize;
use trandb_cluster::system::{NodeAddresses, NodeInfo, SystemApplied, SystemCommand, SystemState};
use trandb_cluster::{ClusterId, InstanceId, NodeId, PartitionId, wire};
use trandb_runtime::peer::{Answer, Ask};
use trandb_runtime::planted::{Planted, is_planted};

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
    if system.instances().get(&node) == Some(&instance) {
        context.tell_router(RouterMessage::Moved(node, addresses.peer.clone()));
    }
    let leader = context.leader(PartitionId::SYSTEM);
    if leader == Some(context.node)
        && let Some(known) = system.nodes.get(&node)
        && (known.instance, &known.addresses, known.removed) == (instance, &addresses, false)
    {
        return Answer::Joined { node, cluster, members: super::forming::peers(&system) };
    }
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

/// Gives up once another node knows more of this one's log than there was when it started. Runs until then.
pub(super) async fn heed_reverted(context: Arc<NodeContext>) {
    let mut reverted = context.hub.reverted();
    if let Ok(why) = reverted.wait_for(Option::is_some).await
        && let Some(why) = &*why
    {
        tracing::error!(peer = %why.peer, known = why.known, has = why.has, "others have seen more of this node's log than is there");
        context.give_up(Fatal::reverted(why));
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
            (gossip.epoch > epoch).then_some((node, gossip.epoch))
        });
        let waits = std::mem::replace(&mut behind, ahead.map(|_| epoch)) == Some(epoch);
        let Some((node, epoch)) = ahead.filter(|_| waits) else { continue };
        let Some(at) = context.hub.peers().remove(&node) else { continue };
        match context.hub.ask(&at, Ask::Discover).await {
            Ok(Answer::Discovered { members, .. }) => {
                let peers = members.into_iter().map(|(node, addresses)| (node, addresses.peer));
                let peers = peers.filter(|(node, peer)| *node != context.node && !peer.is_empty()).collect();
                context.tell_router(RouterMessage::Members(epoch, peers));
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
        let system_knows = knows(&system.borrow_and_update(), &context, &addresses);
        if system_knows || context.system().cluster_id.is_none() {
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

/// Says at the doors of others where this node is, for as long as they may look for it somewhere else. Runs until the node stops.
///
/// Of two nodes the one with the smaller id dials. One that has moved cannot report it where nobody dials it, and one that was
/// away while others moved dials them where they were: so who has moved says so to everybody, and who is not dialed to those
/// that should. Whoever hears of it dials there ([`RouterMessage::Moved`]).
pub(super) async fn knock(context: Arc<NodeContext>, addresses: NodeAddresses) {
    /// Between two looks. What is wrong at both of them does not end by itself.
    const LOOK: Duration = Duration::from_secs(1);
    let mut before = BTreeSet::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let system = context.system();
        let peers = context.hub.peers();
        let mut doors = BTreeSet::new();
        if system.cluster_id.is_some() && !knows(&system, &context, &addresses) {
            doors.extend(peers.values().cloned());
            doors.extend(normalize(&context.config.node.seeds));
            doors.remove(&addresses.peer);
        } else {
            let states = context.hub.states().borrow().clone();
            let down = |node: &NodeId| states.get(node).is_none_or(|state| !state.is_up());
            let silent = peers.iter().filter(|(node, _)| **node < context.node && down(node));
            doors.extend(silent.map(|(_, at)| at.clone()));
        }
        let still: Vec<&String> = doors.iter().filter(|door| before.contains(*door)).collect();
        if !is_planted(Planted::MovedUnsaid) {
            futures_util::future::join_all(still.iter().map(|door| say(&context, door, &addresses))).await;
        }
        before = doors;
    }
}

/// Says at a door where this node is.
async fn say(context: &NodeContext, door: &str, addresses: &NodeAddresses) {
    let ask = Ask::Join { instance: context.instance, node: context.node, addresses: addresses.clone() };
    match context.hub.ask(door, ask).await {
        Ok(answer) => tracing::debug!(door, ?answer, "it was said where this node is"),
        Err(error) => tracing::debug!(door, %error, "it was not said where this node is"),
    }
}

/// Whether the system group has these addresses of this node.
fn knows(system: &SystemState, context: &NodeContext, addresses: &NodeAddresses) -> bool {
    let info = system.nodes.get(&context.node);
    info.is_some_and(|info| info.instance == context.instance && info.addresses == *addresses)
}

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;
