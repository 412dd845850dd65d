//! All nodes lose their power at once and get it back at once.

use super::{Fault, Lane, Strike, Work};
use crate::cluster::Cluster;
use tokio::time::sleep;

/// The fault.
pub(super) const FAULT: Fault = Fault {
    name: "blackout",
    about: "all nodes lose their power",
    lane: Lane::Machine,
    nodes_min: 1,
    inflict: |cluster, strike| -> Work { Box::pin(inflict(cluster, strike)) },
};

async fn inflict(cluster: Cluster, strike: Strike) {
    for node in 0..cluster.nodes() {
        cluster.crash(node).await;
    }
    sleep(strike.lasts).await;
    for node in 0..cluster.nodes() {
        cluster.bounce(node).await;
    }
}
