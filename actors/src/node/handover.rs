//! Giving leadership away: a node that stops, or that can write nothing, is of no use as a leader.

use crate::context::NodeContext;
use crate::control::{ControlCall, ControlMessage};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::placement::Handover;
use trandb_cluster::{NodeId, PartitionId};

/// How long a stopping node may take; what is not handed over by then is elected away from it.
const HAND_OVER_MAX: Duration = Duration::from_secs(5);

/// How long a group may take to answer whether it was handed over.
const TRANSFER_MAX: Duration = Duration::from_secs(5);

/// How often it is looked at what is still led here, and who may lead it.
const LOOK: Duration = Duration::from_millis(100);

/// Gives every group that this node leads to another replica that is up and may lead. Ends early when there is none.
pub(super) async fn hand_over(context: &NodeContext) {
    let _ = tokio::time::timeout(HAND_OVER_MAX, give_away(context, false)).await;
}

/// The same, for as long as this is waited for: whoever may not lead now may do so in a moment.
pub(super) async fn keep_handing_over(context: &NodeContext) {
    give_away(context, true).await;
}

async fn give_away(context: &NodeContext, for_ever: bool) {
    let begun = Instant::now();
    let mut handover = Handover::default();
    let mut under_way = FuturesUnordered::new();
    loop {
        let (led, fit) = (led(context), fit(context));
        for (group, to) in handover.next(ms_since(begun), &led, &fit) {
            under_way.push(transfer(context, group, to));
        }
        if !for_ever && !handover.goes_on(&led, &fit) {
            return;
        }
        tokio::select! {
            Some(group) = under_way.next() => handover.ended(ms_since(begun), group),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn ms_since(begun: Instant) -> u64 {
    begun.elapsed().as_millis() as u64
}

/// The groups that this node leads, with their voters. One whose log is full may not have heard from its own replica that it
/// leads no more; its peers say so.
fn led(context: &NodeContext) -> BTreeMap<PartitionId, Vec<NodeId>> {
    let routes = context.routes.borrow().clone();
    let led = routes.leads.iter().filter(|(_, lead)| lead.leader == Some(context.node));
    led.map(|(&group, lead)| (group, lead.voters.clone())).collect()
}

/// The other nodes that are up, neither stopping nor without room on their disks.
fn fit(context: &NodeContext) -> BTreeSet<NodeId> {
    let routes = context.routes.borrow().clone();
    let states = context.hub.states();
    let states = states.borrow();
    let up = states.iter().filter(|(_, state)| state.is_up()).map(|(&node, _)| node);
    up.filter(|node| *node != context.node && !routes.stopping.contains(node)).collect()
}

/// Answers which it was, once that has ended.
async fn transfer(context: &NodeContext, group: PartitionId, to: NodeId) -> PartitionId {
    let make = move |reply| ControlMessage::Control(ControlCall::Transfer { group, to }, reply);
    let why = match context.hub.call(context.node, "control", TRANSFER_MAX, 64, make).await {
        Ok(Ok(_)) => return group,
        Ok(Err(why)) => why,
        Err(error) => error.to_string(),
    };
    tracing::warn!(partition = %group, %to, why, "leadership was not handed over");
    group
}
