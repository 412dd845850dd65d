//! A node comes back with an older copy of its disk, as when a snapshot of a machine is put back, while the leader that it had
//! acknowledged writes to is cut off.
//!
//! With the third node, which had not seen those, it is a majority that knows nothing of them. It must not take part any more: the
//! third one has heard how far its log had been durable. To be had back by planting `older-copy-unnoticed`.

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
    name: "relapse",
    about: "a node comes back with an older copy of its disk",
    plan,
    script: |cluster, plan, board| -> Script { Box::pin(script(cluster, plan, board)) },
};

/// Nodes of this scenario.
const NODES: usize = 3;

/// How often.
const ROUNDS: usize = 3;

/// So short that clients of the leader do not wait for its writes alone, but read.
const PATIENCE: Duration = Duration::from_millis(60);

/// How long the workload runs on from the copy.
const CALM: Duration = Duration::from_millis(700);

/// How long a node with an older copy may run before it knows.
const NOTICED_MAX: Duration = Duration::from_secs(3);

fn plan(seed: u64) -> Plan {
    Plan { workloads: places(&["register", "bank"]), patience: PATIENCE, ..Plan::calm(seed, NODES) }
}

async fn script(cluster: Cluster, plan: Plan, board: Board) -> turmoil::Result {
    let liveness = Liveness::new(&cluster, &plan, board)?;
    let mut random = StdRng::seed_from_u64(!plan.seed);
    liveness.whole("after forming").await?;
    for _ in 0..ROUNDS {
        let groups = cluster.groups().await.unwrap_or_default();
        let Some((Some(third), leader)) = roles(&groups) else {
            // One of them leads all, for now.
            sleep(CALM).await;
            continue;
        };
        let Some(node) = (0..NODES).find(|node| ![third, leader].contains(node)) else { continue };
        let host = cluster.host(node);
        let copy = host.copy_disk();
        sleep(CALM).await;
        cluster.part(leader, third);
        sleep(Duration::from_millis(random.random_range(50..400))).await;
        cluster.crash(node).await;
        host.put_back(copy);
        cluster.isolate(leader);
        cluster.boots_in_vain(node).await;
        sleep(NOTICED_MAX).await;
        if !host.has_failed() {
            return Err(format!("n{} goes on with an older copy of its disk", node + 1).into());
        }
        cluster.heal(leader);
        cluster.lose_disk(node, true).await;
        cluster.recovers(node).await;
        liveness.whole("after the node was taken in anew").await?;
    }
    liveness.ends_well().await
}
