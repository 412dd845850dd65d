//! The clock of the node that gives out timestamps jumps ahead; a moment later it loses its power, with transactions under way.
//! The next one's clock is far behind the timestamps that it has to go on from.
//!
//! A storm with clocks seven seconds apart found so that timestamps stood still until the clock had caught up,
//! and with them the leases of transactions whose coordinators were dead; and that partitions compared those leases with
//! their own clocks, and so looked for abandoned transactions as late. What was prepared was held for that long.

use super::{Scenario, Script};
use crate::cluster::Cluster;
use crate::liveness::Liveness;
use crate::plan::Plan;
use crate::workload::{Board, places};
use std::time::Duration;
use tokio::time::sleep;

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "ahead",
    about: "timestamps run ahead of all clocks when the node that gives them out dies",
    plan,
    script: |cluster, plan, board| -> Script { Box::pin(script(cluster, plan, board)) },
};

/// Nodes of this scenario.
const NODES: usize = 3;

/// How far the clock jumps: twice as far as the longest time that anything may be held.
const JUMP_MS: i64 = 20_000;

/// How long transactions run before, and after.
const CALM: Duration = Duration::from_millis(500);

fn plan(seed: u64) -> Plan {
    Plan {
        workloads: places(&["bank", "lists", "skew", "fork", "cycle", "steps"]),
        ..Plan::calm(seed, NODES)
    }
}

async fn script(cluster: Cluster, plan: Plan, board: Board) -> turmoil::Result {
    let liveness = Liveness::new(&cluster, &plan, board.clone())?;
    liveness.whole("after forming").await?;
    sleep(CALM).await;
    let oracle = cluster.leader_of(0).await.unwrap_or_default();
    cluster.host(oracle).clock().jump(JUMP_MS);
    sleep(CALM).await;
    cluster.crash(oracle).await;
    cluster.host(oracle).clock().jump(-JUMP_MS);
    sleep(CALM).await;
    board.stop();
    cluster.bounce(oracle).await;
    liveness.whole("after the crash").await?;
    liveness.releases("after the crash").await?;
    liveness.serves((0..NODES).collect(), "at the end").await
}
