//! The disk of a node that leads fills up; it hands over, and is the last to know.
//!
//! Storms found so, as soon as their disks took time, that a leader whose log waited for room counted its lease on when another
//! one led already: Raft cannot note the new term without room, and who is told of a transfer waits for no lease. Its timestamps
//! were below what had been acknowledged, so that transactions and scans did not see it. To be had back by planting
//! `lease-when-given-away`.

use super::{Scenario, Script};
use crate::cluster::Cluster;
use crate::liveness::Liveness;
use crate::plan::Plan;
use crate::workload::{Board, places};
use std::time::Duration;
use tokio::time::sleep;
use trandb_runtime::disk::Full;

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "heir",
    about: "the disks of nodes that lead fill up, and they hand over",
    plan,
    script: |cluster, plan, board| -> Script { Box::pin(script(cluster, plan, board)) },
};

/// Nodes of this scenario.
const NODES: usize = 3;

/// How often a disk fills up.
const ROUNDS: usize = 6;

/// How long it takes to sync at the most.
const SYNC: Duration = Duration::from_millis(4);

/// How long there is no room.
const FULL: Duration = Duration::from_millis(1_500);

/// Between two.
const CALM: Duration = Duration::from_millis(700);

fn plan(seed: u64) -> Plan {
    Plan {
        partitions: 2,
        sync_max: SYNC,
        workloads: places(&["register", "scans", "fork", "lists", "skew"]),
        ..Plan::calm(seed, NODES)
    }
}

async fn script(cluster: Cluster, plan: Plan, board: Board) -> turmoil::Result {
    let liveness = Liveness::new(&cluster, &plan, board)?;
    liveness.whole("after forming").await?;
    for round in 0..ROUNDS {
        sleep(CALM).await;
        // Of the system group, which issues timestamps, every other time.
        let group = if round % 2 == 0 { 0 } else { round };
        let Some(leader) = cluster.leader_of(group).await else { continue };
        let disk = cluster.host(leader).disk();
        disk.fill(Some(Full::ToChange));
        sleep(FULL).await;
        disk.fill(None);
        liveness.whole("with room again").await?;
    }
    liveness.ends_well().await
}
