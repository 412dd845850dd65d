//! Nodes whose elections take different times, other ones after every restart: a node that leads is cut off, and another one has
//! just lost its power.
//!
//! A leader counted on its own settings for how long its followers vote for nobody else, and a node that was started with other
//! settings on these for how long it had promised that before. So an operator who shortened `raft.election_max_ms` node by node
//! had leaders that were deposed while they still answered reads from their own state (`lease-of-own`; two of sixty storms of
//! nodes that are cut off, with such settings). Nodes tell each other what they promise, and remember the longest now.

use super::{Scenario, Script};
use crate::cluster::Cluster;
use crate::liveness::Liveness;
use crate::plan::Plan;
use crate::settings::Settings;
use crate::workload::{Board, places};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;
use tokio::time::sleep;

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "uneven",
    about: "nodes with different election timeouts: a leader is cut off when another node has just restarted",
    plan,
    script: |cluster, plan, board| -> Script { Box::pin(script(cluster, plan, board)) },
};

/// Nodes of this scenario.
const NODES: usize = 3;

/// How often.
const ROUNDS: usize = 5;

/// How long the workload runs undisturbed before each: leaders are spread by then.
const CALM: Duration = Duration::from_secs(2);

/// How long a node is cut off.
const CUT: Duration = Duration::from_millis(1_800);

fn plan(seed: u64) -> Plan {
    Plan {
        settings: [(100, 1_200, 1_500), (100, 300, 400), (100, 300, 400)].map(Settings::with_raft).to_vec(),
        workloads: places(&["register", "counter", "lists"]),
        patience: Duration::from_millis(500),
        ..Plan::calm(seed, NODES)
    }
}

async fn script(cluster: Cluster, plan: Plan, board: Board) -> turmoil::Result {
    let liveness = Liveness::new(&cluster, &plan, board)?;
    let mut random = StdRng::seed_from_u64(!plan.seed);
    liveness.whole("after forming").await?;
    for _ in 0..ROUNDS {
        sleep(CALM).await;
        let cut = random.random_range(0..NODES);
        if random.random_bool(0.5) {
            let other = (cut + random.random_range(1..NODES)) % NODES;
            cluster.crash(other).await;
            cluster.bounce(other).await;
            sleep(Duration::from_millis(random.random_range(0..300))).await;
        }
        cluster.isolate(cut);
        sleep(CUT).await;
        cluster.heal(cut);
        liveness.whole("after a node was cut off").await?;
    }
    liveness.ends_well().await
}
