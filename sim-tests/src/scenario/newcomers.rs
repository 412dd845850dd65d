//! Nodes join a cluster of one, one after the other, and each time one of them loses its power right after.
//!
//! As soon as some nodes of a storm joined later, one storm in twenty was not whole again. A node that was taken in, and lost its
//! power before it was told who the others are, refused them ever after, and so did one whose log said it, but no checkpoint
//! (`peers-forgotten` has it back). A node that restarted began none of the replicas that were on their way to others; with one
//! replica each nobody else could lead (`moving-forgotten`). Beside these: who was told an old state by a leader which that state
//! did not know refused it from then on; a node could be counted as a voter before it had anything in its log, and waited for the
//! group that waited for it; and changes of members waited a minute for who was not wanted any more. So they did once more in a storm with
//! weather far worse than that of plans, where a leader was asked so late that it knew the later map already: what is asked says now of
//! which map it is.

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
    name: "newcomers",
    about: "nodes join a cluster of one, and each time one of them loses its power right after",
    plan,
    script: |cluster, plan, board| -> Script { Box::pin(script(cluster, plan, board)) },
};

/// Nodes of this scenario.
const NODES: usize = 4;

/// How long the power is off.
const OFF: Duration = Duration::from_millis(300);

/// A replica or two of each partition, so that others have to move whenever a node joins.
fn plan(seed: u64) -> Plan {
    Plan {
        replication: 1 + (seed % 2) as u32,
        sync_max: Duration::from_millis(4),
        workloads: places(&["register", "bank"]),
        clients: 1,
        joins: vec![Duration::from_millis(300); NODES - 1],
        ..Plan::calm(seed, NODES)
    }
}

async fn script(cluster: Cluster, plan: Plan, board: Board) -> turmoil::Result {
    let liveness = Liveness::new(&cluster, &plan, board)?;
    let mut random = StdRng::seed_from_u64(!plan.seed);
    liveness.whole_of(plan.founders(), "after forming").await?;
    for (node, &after) in (plan.founders()..).zip(&plan.joins) {
        sleep(after).await;
        cluster.host(node).arrive();
        sleep(Duration::from_millis(random.random_range(0..1_500))).await;
        // The new one as often as one of the others.
        let victim = if random.random_bool(0.5) { node } else { random.random_range(0..node) };
        cluster.crash(victim).await;
        sleep(OFF).await;
        cluster.bounce(victim).await;
        liveness.has_members(node + 1).await?;
    }
    liveness.ends_well().await
}
