//! Three nodes that nothing disturbs, and every workload at once through each of them: how fast simulated time passes where
//! clients are busy. What is judged of storms is judged here, too.

use super::{Scenario, Script};
use crate::cluster::Cluster;
use crate::liveness::Liveness;
use crate::plan::Plan;
use crate::workload::{Board, WORKLOADS};
use std::time::Duration;
use tokio::time::sleep;

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "load",
    about: "three nodes under every workload at once, without faults: how fast simulated time passes",
    plan: |seed| Plan {
        workloads: (0..WORKLOADS.len()).collect(),
        sync_max: SYNC,
        ..Plan::calm(seed, NODES)
    },
    script: |cluster, plan, board| -> Script { Box::pin(script(cluster, plan, board)) },
};

/// Nodes of this scenario.
const NODES: usize = 3;

/// As long as a disk takes that is no bad one.
const SYNC: Duration = Duration::from_millis(4);

/// Long enough that forming the cluster and the last look at it are little of the run.
const LASTS: Duration = Duration::from_secs(30);

async fn script(cluster: Cluster, plan: Plan, board: Board) -> turmoil::Result {
    let liveness = Liveness::new(&cluster, &plan, board.clone())?;
    liveness.whole("after forming").await?;
    sleep(LASTS).await;
    board.stop();
    liveness.whole("at the end").await?;
    liveness.releases("at the end").await
}
