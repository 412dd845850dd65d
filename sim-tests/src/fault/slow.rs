//! Messages to and from a node take long, and overtake those of other connections.

use super::{Fault, Lane, Strike, Work};
use crate::cluster::Cluster;
use std::time::Duration;
use tokio::time::sleep;

/// The fault.
pub(super) const FAULT: Fault = Fault {
    name: "slow",
    about: "messages to and from a node take long",
    lane: Lane::Network,
    nodes_min: 2,
    inflict: |cluster, strike| -> Work { Box::pin(inflict(cluster, strike)) },
};

async fn inflict(cluster: Cluster, strike: Strike) {
    const LATENCY_MAX_MS: u64 = 120;
    let latency = Duration::from_millis(20 + strike.random % LATENCY_MAX_MS);
    cluster.slow(strike.node, Some(latency)).await;
    sleep(strike.lasts).await;
    cluster.slow(strike.node, None).await;
}
