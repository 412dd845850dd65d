//! An actor of one of a node's partitions panics on a message: its supervisor starts another one, which begins with what is
//! on disk.

use super::{Fault, Lane, Strike, Work};
use crate::cluster::Cluster;
use tokio::time::sleep;
use trandb_runtime::pace::let_panic;

/// The fault. In release builds nobody panics.
pub(super) const FAULT: Fault = Fault {
    name: "actor-panic",
    about: "an actor of a node's partitions panics and is started again (debug builds)",
    lane: Lane::Machine,
    nodes_min: 1,
    inflict: |cluster, strike| -> Work { Box::pin(inflict(cluster, strike)) },
};

async fn inflict(cluster: Cluster, strike: Strike) {
    let Some(node) = cluster.host(strike.node).member() else { return };
    let_panic(node);
    sleep(strike.lasts / 4).await;
}
