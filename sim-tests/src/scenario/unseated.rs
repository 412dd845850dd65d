//! Of seven nodes that found a cluster two soon vote no more; before a checkpoint says so, all lose their power at once.
//!
//! A node that restarts knows from its log who votes, but not how much of that is committed, and what it took over before said
//! that it votes itself: Raft lets it stand, and it may be elected. It has no lease, for it has no vote, so that nobody got a
//! timestamp, and nobody else stood, since there was a leader. Storm 8720 of ten thousand found it. To be had back by
//! planting `lead-without-vote`.

use super::{Scenario, Script};
use crate::cluster::Cluster;
use crate::liveness::Liveness;
use crate::plan::{NODES_MAX as NODES, Plan};
use crate::workload::{Board, places};
use std::time::Duration;
use tokio::time::sleep;

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "unseated",
    about: "seven nodes of which five vote lose their power as soon as it is so",
    plan,
    script: |cluster, plan, board| -> Script { Box::pin(script(cluster, plan, board)) },
};

/// Between two looks at who votes.
const LOOK: Duration = Duration::from_millis(20);

/// How much earlier those come back that vote no more.
const LEAD: Duration = Duration::from_millis(100);

/// Nodes that go on voting in the system group: the first ones.
const VOTERS: usize = 5;

fn plan(seed: u64) -> Plan {
    Plan { partitions: 2, workloads: places(&["register"]), clients: 1, ..Plan::calm(seed, NODES) }
}

async fn script(cluster: Cluster, plan: Plan, board: Board) -> turmoil::Result {
    let liveness = Liveness::new(&cluster, &plan, board)?;
    while cluster.groups().await.is_none_or(|groups| groups[0].replicas.len() != VOTERS) {
        sleep(LOOK).await;
    }
    for node in 0..NODES {
        cluster.crash(node).await;
    }
    for node in VOTERS..NODES {
        cluster.bounce(node).await;
    }
    sleep(LEAD).await;
    for node in 0..VOTERS {
        cluster.bounce(node).await;
    }
    liveness.whole("with power again").await?;
    liveness.ends_well().await
}
