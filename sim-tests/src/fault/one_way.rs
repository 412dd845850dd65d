//! What a node says reaches nobody, while it still hears all others.

use super::{Fault, Lane, Strike, Work};
use crate::cluster::Cluster;
use tokio::time::sleep;

/// The fault.
pub(super) const FAULT: Fault = Fault {
    name: "one-way",
    about: "what a node says reaches no other node",
    lane: Lane::Network,
    nodes_min: 2,
    inflict: |cluster, strike| -> Work { Box::pin(inflict(cluster, strike)) },
};

async fn inflict(cluster: Cluster, strike: Strike) {
    for other in (0..cluster.nodes()).filter(|&other| other != strike.node) {
        cluster.silence(strike.node, other);
    }
    sleep(strike.lasts).await;
    cluster.heal_all();
}
