//! A node's memory is used up for a while: nothing is put where it keeps values.

use super::{Fault, Lane, Strike, Work};
use crate::cluster::Cluster;
use tokio::time::sleep;

/// The fault.
pub(super) const FAULT: Fault = Fault {
    name: "full-memory",
    about: "a node has no memory for more values",
    lane: Lane::Machine,
    nodes_min: 1,
    inflict: |cluster, strike| -> Work { Box::pin(inflict(cluster, strike)) },
};

async fn inflict(cluster: Cluster, strike: Strike) {
    let memory = cluster.host(strike.node).memory();
    memory.fill(true);
    sleep(strike.lasts).await;
    memory.fill(false);
}
