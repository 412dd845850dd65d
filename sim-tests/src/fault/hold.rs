//! Messages to and from a node stand still and then arrive all at once, as after a pause.

use super::{Fault, Lane, Strike, Work};
use crate::cluster::Cluster;
use tokio::time::sleep;

/// The fault.
pub(super) const FAULT: Fault = Fault {
    name: "hold",
    about: "messages to and from a node stand still, then all arrive",
    lane: Lane::Network,
    nodes_min: 2,
    inflict: |cluster, strike| -> Work { Box::pin(inflict(cluster, strike)) },
};

async fn inflict(cluster: Cluster, strike: Strike) {
    cluster.hold(strike.node);
    sleep(strike.lasts).await;
    cluster.release(strike.node);
}
