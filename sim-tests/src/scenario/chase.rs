//! All nodes move, one after the other: two of three as soon as everybody knows where the first one is now.
//!
//! A restarted node's state begins with its last checkpoint and goes on with what its log is known to have committed, which is not
//! all of it. Real nodes showed that such a state took the place of the addresses that the log says: a node that had just heard
//! where another one is looked for it where it had been, for ever, if it had moved itself meanwhile (`log-overlooked` has it back).

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
    name: "chase",
    about: "two nodes come back at other addresses as soon as it is known where the third one is",
    plan,
    script: |cluster, plan, board| -> Script { Box::pin(script(cluster, plan, board)) },
};

/// Nodes of this scenario.
const NODES: usize = 3;

/// How often all move.
const ROUNDS: usize = 4;

/// The longest that what a node has heard takes to be on its disk, in milliseconds.
const HEARD_MS: u64 = 20;

fn plan(seed: u64) -> Plan {
    Plan {
        sync_max: Duration::from_millis(4),
        workloads: places(&["register", "bank"]),
        clients: 1,
        // Else they would be told anew at each boot.
        keeps_seeds: true,
        ..Plan::calm(seed, NODES)
    }
}

async fn script(cluster: Cluster, plan: Plan, board: Board) -> turmoil::Result {
    let liveness = Liveness::new(&cluster, &plan, board)?;
    let mut random = StdRng::seed_from_u64(!plan.seed);
    liveness.whole("after forming").await?;
    for _ in 0..ROUNDS {
        let first = random.random_range(0..NODES);
        cluster.crash(first).await;
        cluster.host(first).move_peer_door();
        cluster.bounce(first).await;
        liveness.found_at(&(0..NODES).map(|node| cluster.host(node).peer_door()).collect()).await?;
        sleep(Duration::from_millis(random.random_range(HEARD_MS..4 * HEARD_MS))).await;

        let others = [(first + 1) % NODES, (first + 2) % NODES];
        for node in others {
            cluster.crash(node).await;
            cluster.host(node).move_peer_door();
        }
        for node in others {
            cluster.bounce(node).await;
        }
        liveness.whole("after all have moved").await?;
    }
    liveness.ends_well().await
}
