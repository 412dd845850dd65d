//! All machines lose their power, one of them its disk, too; then all are on again, at about the same time.
//!
//! A member that was starting, and had not read its log yet, told others of no cluster. A node with an empty disk took it for
//! another fresh one: two of three are a majority, so it founded a second cluster, as the member that it had been and had
//! forgotten everything of (`starting-is-fresh`). The others let it in under that number, where it could vote anew. They look at its
//! data directory now, and refuse it; so this shows as a node that waits for ever.

use super::{Scenario, Script};
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
    name: "blank",
    about: "all nodes lose their power, one of them its disk, too",
    plan,
    script: |cluster, plan, board| -> Script { Box::pin(script(cluster, plan, board)) },
};

/// Nodes of this scenario.
const NODES: usize = 3;

/// How often.
const ROUNDS: usize = 3;

/// How long the workload runs undisturbed before each.
const CALM: Duration = Duration::from_millis(500);

/// How long the power is off.
const OFF: Duration = Duration::from_millis(200);

/// Slow disks, so that those that know a cluster have not read it yet when they are asked.
fn plan(seed: u64) -> Plan {
    Plan {
        sync_max: Duration::from_millis(20),
        workloads: places(&["register", "bank"]),
        clients: 1,
        ..Plan::calm(seed, NODES)
    }
}

async fn script(cluster: Cluster, plan: Plan, board: Board) -> turmoil::Result {
    let liveness = Liveness::new(&cluster, &plan, board)?;
    let mut random = StdRng::seed_from_u64(!plan.seed);
    liveness.whole("after forming").await?;
    for _ in 0..ROUNDS {
        sleep(CALM).await;
        let lost = random.random_range(0..NODES);
        for node in 0..NODES {
            if node == lost {
                cluster.lose_disk(node, false).await;
            } else {
                cluster.crash(node).await;
            }
        }
        sleep(OFF).await;
        let mut order: Vec<usize> = (0..NODES).collect();
        order.rotate_left(random.random_range(0..NODES));
        for node in order {
            cluster.bounce(node).await;
            sleep(Duration::from_millis(random.random_range(0..60))).await;
        }
        liveness.whole("after the power is back").await?;
    }
    liveness.ends_well().await
}
