//! A node loses its power, and comes back at another peer address.

use super::{Fault, Lane, Strike, Work};
use crate::cluster::Cluster;
use tokio::time::sleep;

/// The fault. It is not undone: the node stays where it is then. Not all may move ([`crate::plan::Plan::may_move`]).
pub(super) const FAULT: Fault = Fault {
    name: "relocate",
    about: "a node loses its power, and comes back at another peer address",
    lane: Lane::Machine,
    nodes_min: 1,
    inflict: |cluster, strike| -> Work { Box::pin(inflict(cluster, strike)) },
};

async fn inflict(cluster: Cluster, strike: Strike) {
    cluster.crash(strike.node).await;
    if cluster.host(strike.node).may_move() {
        cluster.host(strike.node).move_peer_door();
    }
    sleep(strike.lasts / 2).await;
    cluster.bounce(strike.node).await;
    sleep(strike.lasts / 2).await;
}
