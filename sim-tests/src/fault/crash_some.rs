//! Some nodes lose their power at once, a majority perhaps, and come back one by one.

use super::{Fault, Lane, Strike, Work};
use crate::cluster::Cluster;
use tokio::time::sleep;

/// The fault.
pub(super) const FAULT: Fault = Fault {
    name: "crash-some",
    about: "some nodes lose their power",
    lane: Lane::Machine,
    nodes_min: 3,
    inflict: |cluster, strike| -> Work { Box::pin(inflict(cluster, strike)) },
};

async fn inflict(cluster: Cluster, strike: Strike) {
    let struck = |node: usize| node == strike.node || strike.random >> node & 1 == 1;
    let struck: Vec<usize> = (0..cluster.nodes()).filter(|&node| struck(node)).collect();
    for &node in &struck {
        cluster.crash(node).await;
    }
    for &node in &struck {
        sleep(strike.lasts / struck.len() as u32).await;
        cluster.bounce(node).await;
    }
}
