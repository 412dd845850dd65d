//! An actor of one of a node's partitions panics on a message: its supervisor starts another one, which begins with what is
//! on disk. A node in which one panics again and again fails, and is started again.

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

/// So many deaths of an actor within a minute are its supervisor's end, and so the node's.
const PANICS_MAX: u64 = 5;

async fn inflict(cluster: Cluster, strike: Strike) {
    let Some(node) = cluster.host(strike.node).member() else { return };
    let_panic(node);
    if cluster.host(strike.node).count_panic() < PANICS_MAX {
        sleep(strike.lasts / 4).await;
    } else {
        // The same actor may have died each time, which is once too often.
        cluster.fails_and_restarts(strike.node, strike.lasts).await;
    }
}
