//! All followers of a leader lose their power and are back at once, just as it is cut off.
//!
//! They granted it a lease, and whoever restarts has forgotten that: it must not vote until the lease is over, or another one
//! leads while the old one answers reads from its own state. No storm has found that twice in a hundred; to be had back
//! by planting `vote-after-restart`.

use super::{Scenario, Script, roles};
use crate::cluster::Cluster;
use crate::liveness::Liveness;
use crate::plan::Plan;
use crate::workload::{Board, places};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;
use tokio::time::sleep;

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "lenders",
    about: "the followers of a leader restart at once, just as it is cut off, again and again",
    plan,
    script: |cluster, plan, board| -> Script { Box::pin(script(cluster, plan, board)) },
};

/// Nodes of this scenario.
const NODES: usize = 3;

/// How often.
const ROUNDS: usize = 8;

/// So short that clients of the leader do not wait for its writes alone, but read.
const PATIENCE: Duration = Duration::from_millis(60);

/// Before each.
const CALM: Duration = Duration::from_millis(700);

fn plan(seed: u64) -> Plan {
    Plan { partitions: 1, workloads: places(&["register"]), patience: PATIENCE, ..Plan::calm(seed, NODES) }
}

async fn script(cluster: Cluster, plan: Plan, board: Board) -> turmoil::Result {
    let liveness = Liveness::new(&cluster, &plan, board)?;
    let mut random = StdRng::seed_from_u64(!plan.seed);
    liveness.whole("after forming").await?;
    for _ in 0..ROUNDS {
        sleep(CALM).await;
        let groups = cluster.groups().await.unwrap_or_default();
        let Some((Some(blind), leader)) = roles(&groups) else { continue };
        let Some(lender) = (0..NODES).find(|node| ![blind, leader].contains(node)) else { continue };
        let lease = cluster.host(leader).lease();
        cluster.part(leader, blind);
        sleep(lease.mul_f64(random.random_range(1.0..1.4))).await;
        cluster.crash(lender).await;
        cluster.isolate(leader);
        cluster.bounce(lender).await;
        sleep(lease * 3).await;
        cluster.heal(leader);
        liveness.whole("with the leader back").await?;
    }
    liveness.ends_well().await
}
