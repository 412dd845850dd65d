//! Giving leadership away: a node that stops, or that can write nothing, is of no use as a leader.

use crate::context::NodeContext;
use crate::control::{ControlCall, ControlMessage};
use std::time::Duration;
use trandb_cluster::{NodeId, PartitionId};

/// How long this may take; what is not handed over by then is elected away from us.
const HAND_OVER_MAX: Duration = Duration::from_secs(5);

/// Gives every group that this node leads to another replica that is up. Stops early when there is none.
pub(super) async fn hand_over(context: &NodeContext) {
    let me = context.node;
    let transfers = {
        let routes = context.routes.borrow().clone();
        let states = context.hub.states();
        let states = states.borrow();
        let up = |node: &NodeId| *node != me && states.get(node).is_some_and(|state| state.is_up());
        let mut turn = 0;
        routes
            .leads
            .iter()
            .filter(|(_, lead)| lead.leader == Some(me))
            .filter_map(|(&group, lead)| {
                let heirs: Vec<NodeId> = lead.voters.iter().copied().filter(up).collect();
                turn += 1;
                Some((group, *heirs.get(turn % heirs.len().max(1))?))
            })
            .collect::<Vec<(PartitionId, NodeId)>>()
    };
    let calls = transfers.into_iter().map(|(group, to)| {
        let make = move |reply| ControlMessage::Control(ControlCall::Transfer { group, to }, reply);
        async move {
            match context.hub.call(me, "control", HAND_OVER_MAX, 64, make).await {
                Ok(Ok(_)) => {}
                Ok(Err(why)) => {
                    tracing::warn!(partition = %group, %to, why, "leadership was not handed over")
                }
                Err(error) => {
                    tracing::warn!(partition = %group, %to, %error, "leadership was not handed over")
                }
            }
        }
    });
    futures_util::future::join_all(calls).await;
}
