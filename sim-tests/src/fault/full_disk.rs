//! A disk fills up, and for a while there is no room after a restart either.

use super::{Fault, Lane, Strike, Work};
use crate::cluster::Cluster;
use trandb_runtime::disk::Full;

/// The fault.
pub(super) const FAULT: Fault = Fault {
    name: "full-disk",
    about: "a disk is full, and still is after a restart",
    lane: Lane::Machine,
    nodes_min: 1,
    inflict: |cluster, strike| -> Work { Box::pin(inflict(cluster, strike)) },
};

async fn inflict(cluster: Cluster, strike: Strike) {
    let full = if strike.random.is_multiple_of(2) { Full::ToGrow } else { Full::ToChange };
    let disk = cluster.host(strike.node).disk();
    disk.fill(Some(full));
    cluster.fails(strike.node, strike.lasts / 2).await;
    cluster.boots_in_vain(strike.node).await;
    cluster.fails(strike.node, strike.lasts / 2).await;
    disk.fill(None);
    cluster.recovers(strike.node).await;
}
