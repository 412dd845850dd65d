//! Both followers of a partition's leader lose their power while transactions commit, are away for longer than it waits, and
//! are back before anybody else leads. Five nodes, so that timestamps go on meanwhile.
//!
//! A storm found so (one seed of 3,500) that a leader that had told the caller of a commit that its outcome was unknown also
//! forgot that the entry was in flight. Its lease was good again a moment before the entry was applied, so that a transaction
//! that had begun later read what the entry was about to overwrite, and its own commit saw nothing newer than its begin: two
//! of the bank's 600 were gone. To be had back by planting `forget-in-flight`.

use super::{Scenario, Script};
use crate::cluster::Cluster;
use crate::liveness::Liveness;
use crate::plan::Plan;
use crate::workload::{Board, places};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;
use tokio::time::sleep;
use trandb_cluster::NodeId;
use trandb_runtime::pace::slow_down;

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "forsaken",
    about: "both followers of a leader lose their power for longer than it waits, again and again",
    plan,
    script: |cluster, plan, board| -> Script { Box::pin(script(cluster, plan, board)) },
};

/// Nodes of this scenario.
const NODES: usize = 5;

/// How often.
const ROUNDS: usize = 8;

/// How long transactions run undisturbed before each.
const CALM: Duration = Duration::from_millis(500);

/// How far away the leader is before.
const FAR: Duration = Duration::from_millis(60);

/// How late it applies what its followers acknowledge when they are back.
const BUSY: Duration = Duration::from_millis(100);

/// How long it takes the followers to be back.
const RETURN: Duration = Duration::from_secs(1);

/// Transactions that read what they write, in one partition, where a single entry commits them; by clients that wait until the
/// followers are back.
fn plan(seed: u64) -> Plan {
    Plan {
        partitions: 1,
        workloads: places(&["bank", "lists", "skew", "fork", "cycle", "steps"]),
        patience: Duration::from_secs(10),
        ..Plan::calm(seed, NODES)
    }
}

async fn script(cluster: Cluster, plan: Plan, board: Board) -> turmoil::Result {
    let liveness = Liveness::new(&cluster, &plan, board)?;
    let mut random = StdRng::seed_from_u64(!plan.seed);
    liveness.whole("after forming").await?;
    for _ in 0..ROUNDS {
        sleep(CALM).await;
        let groups = cluster.groups().await.unwrap_or_default();
        let Some((_, partitions)) = groups.split_first() else { continue };
        let Some(leader) = partitions[0].leader else { continue };
        let followers: Vec<usize> =
            partitions[0].replicas.iter().copied().filter(|&node| node != leader).collect();
        // Some entry is always in flight then.
        cluster.slow(leader, Some(FAR)).await;
        sleep(FAR * 3).await;
        for &node in &followers {
            cluster.crash(node).await;
        }
        cluster.slow(leader, None).await;
        // Two leases are what a leader waits for its followers.
        sleep(cluster.host(leader).lease().mul_f64(random.random_range(2.1..2.6))).await;
        // Founders' ids are their places in the list of seeds.
        let busy = |by| slow_down(NodeId(leader as u64 + 1), "appliers", by);
        busy(Some(BUSY));
        for &node in &followers {
            cluster.bounce(node).await;
        }
        sleep(RETURN).await;
        busy(None);
        liveness.whole("after the followers are back").await?;
    }
    liveness.ends_well().await
}
