//! The nodes fall into two parts that cannot reach each other.

use super::{Fault, Lane, Strike, Work};
use crate::cluster::Cluster;
use tokio::time::sleep;

/// The fault.
pub(super) const FAULT: Fault = Fault {
    name: "split",
    about: "the nodes fall into two parts",
    lane: Lane::Network,
    nodes_min: 2,
    inflict: |cluster, strike| -> Work { Box::pin(inflict(cluster, strike)) },
};

async fn inflict(cluster: Cluster, strike: Strike) {
    let in_one = |node: usize| strike.random >> node & 1 == 1;
    for one in (0..cluster.nodes()).filter(|&node| in_one(node)) {
        for other in (0..cluster.nodes()).filter(|&node| !in_one(node)) {
            cluster.part(one, other);
        }
    }
    sleep(strike.lasts).await;
    cluster.heal_all();
}
