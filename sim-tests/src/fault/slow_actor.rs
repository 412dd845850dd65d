//! One kind of actor of a node takes long for each message, so that its mailbox fills, while all else is as fast as ever. It
//! comes and goes: what is quick again overtakes what is still being waited for.

use super::{Fault, Lane, Strike, Work};
use crate::cluster::Cluster;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use trandb_runtime::pace::{ACTORS, slow_down};

/// The fault. Release builds have no slow actors.
pub(super) const FAULT: Fault = Fault {
    name: "slow-actor",
    about: "one kind of actor of a node takes long for each message, on and off (debug builds)",
    lane: Lane::Machine,
    nodes_min: 1,
    inflict: |cluster, strike| -> Work { Box::pin(inflict(cluster, strike)) },
};

/// How long it is slow, and then is not.
const ON: Duration = Duration::from_millis(200);
const OFF: Duration = Duration::from_millis(50);

async fn inflict(cluster: Cluster, strike: Strike) {
    const BY_MS_MAX: u64 = 12;
    let Some(node) = cluster.host(strike.node).member() else { return };
    let actor = ACTORS[strike.random as usize % ACTORS.len()];
    let by = Duration::from_millis(1 + strike.random / 8 % BY_MS_MAX);
    let end = Instant::now() + strike.lasts;
    while Instant::now() < end {
        slow_down(node, actor, Some(by));
        sleep(ON).await;
        slow_down(node, actor, None);
        sleep(OFF).await;
    }
}
