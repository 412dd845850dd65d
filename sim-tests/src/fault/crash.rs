//! A node loses its power, and what its disk had not synced.

use super::{Fault, Lane, Strike, Work};
use crate::cluster::Cluster;
use tokio::time::sleep;

/// The fault.
pub(super) const FAULT: Fault = Fault {
    name: "crash",
    about: "a node loses its power",
    lane: Lane::Machine,
    nodes_min: 1,
    inflict: |cluster, strike| -> Work { Box::pin(inflict(cluster, strike)) },
};

async fn inflict(cluster: Cluster, strike: Strike) {
    cluster.crash(strike.node).await;
    sleep(strike.lasts).await;
    cluster.bounce(strike.node).await;
}
