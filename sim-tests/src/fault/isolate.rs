//! A node is cut off from all others, in both directions.

use super::{Fault, Lane, Strike, Work};
use crate::cluster::Cluster;
use tokio::time::sleep;

/// The fault.
pub(super) const FAULT: Fault = Fault {
    name: "isolate",
    about: "a node is cut off from the others",
    lane: Lane::Network,
    nodes_min: 2,
    inflict: |cluster, strike| -> Work { Box::pin(inflict(cluster, strike)) },
};

async fn inflict(cluster: Cluster, strike: Strike) {
    cluster.isolate(strike.node);
    sleep(strike.lasts).await;
    cluster.heal(strike.node);
}
