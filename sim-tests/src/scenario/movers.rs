//! One node or two at a time lose their power and are back at other peer addresses; others are away meanwhile.
//!
//! Of two nodes the one with the smaller id dials. Real nodes showed that a member with the largest id, started again at another
//! address, was dialed where it had been, for ever: it reported where it is through the links that it did not get
//! (`moved-unsaid` has it back). It says so at the others' doors now, and they dial it there at once, as two of three that have
//! moved are needed for the cluster itself to note it.

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
    name: "movers",
    about: "one node or two at a time come back at other addresses",
    plan,
    script: |cluster, plan, board| -> Script { Box::pin(script(cluster, plan, board)) },
};

/// Nodes of this scenario.
const NODES: usize = 3;

/// How often some move.
const ROUNDS: usize = 4;

/// How long the power is off, and between two that are back.
const OFF: Duration = Duration::from_millis(300);

fn plan(seed: u64) -> Plan {
    Plan {
        sync_max: Duration::from_millis(4),
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
        let first = random.random_range(0..NODES);
        let moving = [first, (first + 1) % NODES];
        let moving = &moving[..random.random_range(1..=2)];
        let off: Vec<usize> =
            (0..NODES).filter(|node| moving.contains(node) || random.random_bool(0.3)).collect();
        for &node in &off {
            cluster.crash(node).await;
        }
        for &node in moving {
            cluster.host(node).move_peer_door();
        }
        for node in off {
            sleep(OFF).await;
            cluster.bounce(node).await;
        }
        liveness.whole("after some have moved").await?;
    }
    liveness.ends_well().await
}
