//! The leader of some partition is cut off, wherever it is.

use super::{Fault, Lane, Strike, Work};
use crate::cluster::Cluster;
use tokio::time::sleep;

/// The fault.
pub(super) const FAULT: Fault = Fault {
    name: "behead",
    about: "a partition's leader is cut off",
    lane: Lane::Network,
    nodes_min: 2,
    inflict: |cluster, strike| -> Work { Box::pin(inflict(cluster, strike)) },
};

/// The system group's place among all groups.
const SYSTEM: usize = 0;

async fn inflict(cluster: Cluster, strike: Strike) {
    // The system group, which the others get their timestamps from, more often than any one of them.
    let group = if strike.random.is_multiple_of(3) { SYSTEM } else { (strike.random / 3) as usize };
    let node = cluster.leader_of(group).await.unwrap_or(strike.node);
    cluster.isolate(node);
    sleep(strike.lasts).await;
    cluster.heal(node);
}
