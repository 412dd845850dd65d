//! A wall clock jumps, ahead or back, and later returns.

use super::{Fault, Lane, Strike, Work};
use crate::cluster::Cluster;
use tokio::time::sleep;

/// The fault.
pub(super) const FAULT: Fault = Fault {
    name: "clock-jump",
    about: "a wall clock jumps ahead or back",
    lane: Lane::Machine,
    nodes_min: 1,
    inflict: |cluster, strike| -> Work { Box::pin(inflict(cluster, strike)) },
};

async fn inflict(cluster: Cluster, strike: Strike) {
    const JUMP_MS_MAX: u64 = 10_000;
    let ahead = (strike.random % (2 * JUMP_MS_MAX)) as i64 - JUMP_MS_MAX as i64;
    cluster.host(strike.node).clock().jump(ahead);
    sleep(strike.lasts).await;
    cluster.host(strike.node).clock().jump(-ahead);
}
