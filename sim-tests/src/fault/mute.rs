//! A node hears its clients and does what they ask, but its answers are lost.

use super::{Fault, Lane, Strike, Work};
use crate::cluster::Cluster;
use tokio::time::sleep;

/// The fault.
pub(super) const FAULT: Fault = Fault {
    name: "mute",
    about: "a node's answers to its clients are lost",
    lane: Lane::Network,
    nodes_min: 1,
    inflict: |cluster, strike| -> Work { Box::pin(inflict(cluster, strike)) },
};

async fn inflict(cluster: Cluster, strike: Strike) {
    cluster.mute(strike.node);
    sleep(strike.lasts).await;
    cluster.unmute(strike.node);
}
