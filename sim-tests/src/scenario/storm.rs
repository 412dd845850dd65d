//! Whatever the seed wants: its workloads run while its faults strike, those of machines beside those of the network.
//! Then everything is healed, and all must be well again.

use super::{Scenario, Script};
use crate::cluster::Cluster;
use crate::fault::Lane;
use crate::liveness::Liveness;
use crate::plan::{Loss, Plan};
use crate::workload::Board;
use std::time::Duration;
use tokio::time::sleep;

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "storm",
    about: "cluster, settings, workloads and faults as the seed wants",
    plan: Plan::draw,
    script: |cluster, plan, board| -> Script { Box::pin(script(cluster, plan, board)) },
};

/// How long the workloads go on after the last fault.
const CALM: Duration = Duration::from_secs(1);

pub(super) async fn script(cluster: Cluster, plan: Plan, board: Board) -> turmoil::Result {
    let liveness = Liveness::new(&cluster, &plan, board)?;
    form(&cluster, &plan, &liveness).await?;
    let (joined, (), (), ()) = futures_util::join!(
        join(&cluster, &plan, &liveness),
        lose_disk(&cluster, &plan),
        strike(&cluster, &plan, Lane::Network),
        strike(&cluster, &plan, Lane::Machine)
    );
    cluster.weather().rage(false);
    joined?;
    sleep(CALM).await;
    liveness.ends_well().await
}

/// The founders become a cluster, in whatever weather there is. Where links are given up before what was lost is sent again, they are
/// hardly ever all there at once: then it has to clear first.
async fn form(cluster: &Cluster, plan: &Plan, liveness: &Liveness) -> turmoil::Result {
    let weather = cluster.weather();
    weather.rage(true);
    let formed = liveness.whole_of(plan.founders(), "after forming").await;
    if formed.is_ok() || !weather.rages() {
        return formed;
    }
    tracing::info!("the weather clears for the cluster to form");
    weather.rage(false);
    liveness.whole_of(plan.founders(), "after forming, in fair weather").await?;
    weather.rage(true);
    Ok(())
}

/// One node after the other that was not there from the beginning. Members' ids are their places then.
async fn join(cluster: &Cluster, plan: &Plan, liveness: &Liveness) -> turmoil::Result {
    for (node, &after) in (plan.founders()..).zip(&plan.joins) {
        sleep(after).await;
        tracing::info!(node = node + 1, "a node joins");
        cluster.host(node).arrive();
        liveness.has_members(node + 1).await?;
    }
    Ok(())
}

/// The machine that is to lose its disk does, and comes back with an empty one.
async fn lose_disk(cluster: &Cluster, plan: &Plan) {
    let Some(Loss { node, after, lasts, repaired }) = plan.loss else { return };
    sleep(after).await;
    cluster.lose_disk(node, repaired).await;
    sleep(lasts).await;
    cluster.bounce(node).await;
}

/// One fault of a lane after the other.
async fn strike(cluster: &Cluster, plan: &Plan, lane: Lane) {
    for planned in plan.lane(lane) {
        sleep(planned.after).await;
        tracing::info!(fault = planned.fault.name, node = planned.strike.node + 1, "fault begins");
        (planned.fault.inflict)(cluster.clone(), planned.strike).await;
        tracing::info!(fault = planned.fault.name, "fault over");
    }
}
