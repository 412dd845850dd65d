//! A node is cut off and reached again, over and over, faster than links are made.

use super::{Fault, Lane, Strike, Work};
use crate::cluster::Cluster;
use std::time::Duration;
use tokio::time::sleep;

/// The fault.
pub(super) const FAULT: Fault = Fault {
    name: "flap",
    about: "a node is cut off and back, over and over",
    lane: Lane::Network,
    nodes_min: 2,
    inflict: |cluster, strike| -> Work { Box::pin(inflict(cluster, strike)) },
};

async fn inflict(cluster: Cluster, strike: Strike) {
    const EACH: Duration = Duration::from_millis(150);
    let mut left = strike.lasts;
    while !left.is_zero() {
        cluster.isolate(strike.node);
        sleep(EACH).await;
        cluster.heal(strike.node);
        sleep(EACH).await;
        left = left.saturating_sub(EACH * 2);
    }
}
