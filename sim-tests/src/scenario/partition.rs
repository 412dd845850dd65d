//! One node is cut off from the others and comes back; then one loses its power and comes back.
//!
//! Cut off, it refuses writes and linearizable reads; the other two go on. After each fault all replicas are
//! identical, every register shows its newest acknowledged write, and the history is linearizable.
//!
//! It found, with one seed of seven, that clients asked again a moment before their deadline: a node that was cut off had
//! refused, its second refusal came too late, and a write that was surely not done ended as one of unknown outcome.

use super::{Scenario, Script};
use crate::cluster::Cluster;
use crate::liveness::Liveness;
use crate::plan::Plan;
use crate::workload::{Board, REGISTERS, register};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use trandb_client::{Client, Condition, ErrorCode};

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "partition",
    about: "one of three nodes is cut off and comes back, then one loses its power and comes back",
    plan: |seed| Plan::calm(seed, NODES),
    script: |cluster, plan, board| -> Script { Box::pin(script(cluster, plan, board)) },
};

/// How long a node that was cut off may take to know that it is: its leases and its peers' heartbeats end first.
const CUT_OFF_KNOWN: Duration = Duration::from_millis(1_500);

/// How long the workload runs undisturbed before and between faults.
const CALM: Duration = Duration::from_secs(1);

/// Nodes of this scenario.
const NODES: usize = 3;

async fn script(cluster: Cluster, plan: Plan, board: Board) -> turmoil::Result {
    let run = Liveness::new(&cluster, &plan, board.clone())?;
    let mut random = StdRng::seed_from_u64(!plan.seed);
    let mut node = || random.random_range(0..NODES);
    let (isolated, crashed) = (node(), node());
    let isolated_for = Duration::from_millis(random.random_range(2_000..5_000));
    let crashed_for = Duration::from_millis(random.random_range(200..3_000));
    let others = |node: usize| (0..NODES).filter(move |other| *other != node);

    run.whole("after forming").await?;
    sleep(CALM).await;

    tracing::info!(node = cluster.names()[isolated], "cut off");
    cluster.isolate(isolated);
    let cut = Instant::now();
    run.serves(others(isolated).collect(), "cut off from the third").await?;
    tokio::time::sleep_until(cut + CUT_OFF_KNOWN).await;
    refuses(&cluster.client(isolated, plan.seed)?, isolated, &board).await?;
    tokio::time::sleep_until(cut + isolated_for).await;
    tracing::info!(node = cluster.names()[isolated], "healed");
    cluster.heal(isolated);
    run.whole("after the partition").await?;
    run.serves((0..NODES).collect(), "after the partition").await?;
    sleep(CALM).await;

    cluster.crash(crashed).await;
    let off = Instant::now();
    run.serves(others(crashed).collect(), "without the third").await?;
    tokio::time::sleep_until(off + crashed_for).await;
    cluster.bounce(crashed).await;
    run.whole("after the crash").await?;
    sleep(CALM).await;

    board.stop();
    run.serves((0..NODES).collect(), "at the end").await?;
    run.whole("at the end").await
}

/// This node neither writes nor reads any register, and says that it surely did not.
async fn refuses(client: &Client, node: usize, board: &Board) -> turmoil::Result {
    // One at a time would take longer than the partition: each is refused only after a while.
    let probes = (0..REGISTERS).map(|index| async move {
        let key = register(index);
        let value = bytes::Bytes::from(format!("refused by n{}", node + 1));
        let wrote = board.put(client, &key, value, Condition::Any).await;
        let read = board.get(client, &key).await;
        (key, wrote.map(|written| written.version), read.map(|found| found.map(|found| found.version)))
    });
    for (key, wrote, read) in futures_util::future::join_all(probes).await {
        let codes = (wrote.as_ref().err().map(|e| e.code), read.as_ref().err().map(|e| e.code));
        if codes != (Some(ErrorCode::Unavailable), Some(ErrorCode::Unavailable)) {
            let why = format!("n{} is cut off but not unavailable: {key}: {wrote:?}, {read:?}", node + 1);
            return Err(why.into());
        }
    }
    Ok(())
}
