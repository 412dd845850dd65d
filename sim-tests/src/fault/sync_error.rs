//! A sync of the log fails: the node must stop and not trust what it wrote.

use super::{Fault, Lane, Strike, Work};
use crate::cluster::Cluster;

/// The fault.
pub(super) const FAULT: Fault = Fault {
    name: "sync-error",
    about: "a sync of the log fails, and the node restarts",
    lane: Lane::Machine,
    nodes_min: 1,
    inflict: |cluster, strike| -> Work { Box::pin(inflict(cluster, strike)) },
};

async fn inflict(cluster: Cluster, strike: Strike) {
    cluster.host(strike.node).disk().fail_next_sync();
    cluster.fails_and_restarts(strike.node, strike.lasts).await;
}
