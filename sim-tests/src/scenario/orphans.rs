//! Actors of partitions panic with entries in flight, and are started again while these are still under way.
//!
//! A storm found so (one seed of 2,000) that the next actor did not know of them: it answered a scan at a snapshot above the
//! timestamp of an entry that was applied, and acknowledged, a moment later. To be had back by planting `forget-in-flight`.

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
    name: "orphans",
    about: "actors of partitions panic with entries in flight",
    plan,
    script: |cluster, plan, board| -> Script { Box::pin(script(cluster, plan, board)) },
};

/// Nodes of this scenario.
const NODES: usize = 3;

/// How often an actor of each node panics: an actor that does so too often takes its node with it.
const ROUNDS: usize = 4;

/// How long messages take: entries are in flight most of the time.
const LATENCY: Duration = Duration::from_millis(25);

/// Between two panics.
const CALM: Duration = Duration::from_millis(400);

fn plan(seed: u64) -> Plan {
    Plan {
        partitions: 2,
        latency_max: LATENCY,
        workloads: places(&["scans", "fork", "bank", "lists"]),
        ..Plan::calm(seed, NODES)
    }
}

async fn script(cluster: Cluster, plan: Plan, board: Board) -> turmoil::Result {
    let liveness = Liveness::new(&cluster, &plan, board)?;
    liveness.whole("after forming").await?;
    for _ in 0..ROUNDS {
        for node in 1..=NODES as u64 {
            sleep(CALM).await;
            let_panic(NodeId(node));
        }
    }
    sleep(CALM).await;
    liveness.ends_well().await
}
