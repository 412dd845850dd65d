//! Actors of partitions panic while their node starts.
//!
//! A storm found so (one seed of 8,000) that the node did not come up: the supervisor waited for Raft to start, Raft for the
//! partition's next actor, and that one for the supervisor, for two minutes.

use super::{Scenario, Script};
use crate::cluster::Cluster;
use crate::liveness::Liveness;
use crate::plan::Plan;
use crate::workload::{Board, places};
use std::time::Duration;
use tokio::time::sleep;
use trandb_cluster::NodeId;
use trandb_runtime::pace::let_panic;

/// The scenario. In release builds nobody panics.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "reborn",
    about: "actors of partitions panic while their node starts",
    plan,
    script: |cluster, plan, board| -> Script { Box::pin(script(cluster, plan, board)) },
};

/// Nodes of this scenario.
const NODES: usize = 3;

/// Between two starts.
const CALM: Duration = Duration::from_millis(500);

fn plan(seed: u64) -> Plan {
    Plan { partitions: 4, workloads: places(&["register", "bank"]), ..Plan::calm(seed, NODES) }
}

async fn script(cluster: Cluster, plan: Plan, board: Board) -> turmoil::Result {
    let liveness = Liveness::new(&cluster, &plan, board)?;
    liveness.whole("after forming").await?;
    for node in 0..NODES {
        // The first message of a partition's actor is Raft's, which asks how far it has come.
        for panics in 1..=plan.partitions {
            sleep(CALM).await;
            cluster.crash(node).await;
            // Founders' ids are their places in the list of seeds.
            (0..panics).for_each(|_| let_panic(NodeId(node as u64 + 1)));
            cluster.bounce(node).await;
            liveness.whole("after a start").await?;
        }
    }
    liveness.ends_well().await
}
