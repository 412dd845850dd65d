//! Coordinators of a node die at one step of their commits: what they prepared, decided or told is all that is left.

use super::{Fault, Lane, Strike, Work};
use crate::cluster::Cluster;
use tokio::time::sleep;
use trandb_runtime::pace::{DEATHS, let_die};

/// The fault. In release builds nobody dies.
pub(super) const FAULT: Fault = Fault {
    name: "coordinator",
    about: "coordinators of a node die at one step of their commits (debug builds)",
    lane: Lane::Machine,
    nodes_min: 1,
    inflict: |cluster, strike| -> Work { Box::pin(inflict(cluster, strike)) },
};

async fn inflict(cluster: Cluster, strike: Strike) {
    let Some(node) = cluster.host(strike.node).member() else { return };
    let step = DEATHS[strike.random as usize % DEATHS.len()];
    let_die(node, step, true);
    sleep(strike.lasts).await;
    let_die(node, step, false);
}
