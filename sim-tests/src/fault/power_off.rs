//! The power goes in the middle of what a node does with its disk: writes are torn, names half changed.

use super::{Fault, Lane, Strike, Work};
use crate::cluster::Cluster;

/// The fault.
pub(super) const FAULT: Fault = Fault {
    name: "power-off",
    about: "the power goes between two calls to the disk",
    lane: Lane::Machine,
    nodes_min: 1,
    inflict: |cluster, strike| -> Work { Box::pin(inflict(cluster, strike)) },
};

async fn inflict(cluster: Cluster, strike: Strike) {
    const CALLS_MAX: u64 = 60;
    cluster.host(strike.node).disk().power_off_after(strike.random % CALLS_MAX);
    cluster.fails_and_restarts(strike.node, strike.lasts).await;
}
