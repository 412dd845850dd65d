//! Some of a leader's followers lose sight of it and want another one; the rest lose their power and are back at once, just
//! as the leader is cut off. Those have forgotten that they granted it a lease, which it still uses.

use super::{Fault, Lane, Strike, Work};
use crate::cluster::Cluster;
use std::time::Duration;
use tokio::time::sleep;

/// The fault. What it is about is who hears whom, so it comes before and after others of the network.
pub(super) const FAULT: Fault = Fault {
    name: "amnesia",
    about: "a leader's followers restart as it is cut off, and others want to lead",
    lane: Lane::Network,
    nodes_min: 3,
    inflict: |cluster, strike| -> Work { Box::pin(inflict(cluster, strike)) },
};

async fn inflict(cluster: Cluster, strike: Strike) {
    let leader = cluster.leader_of(strike.random as usize).await.unwrap_or(strike.node);
    let nodes = cluster.nodes();
    let mut others: Vec<usize> = (0..nodes).filter(|&node| node != leader).collect();
    others.rotate_left((strike.random >> 32) as usize % (nodes - 1));
    // The leader and those that restart are a majority, and so are all but the leader.
    let (blind, restarted) = others.split_at((nodes - 1) / 2);
    for &node in blind {
        cluster.part(leader, node);
    }
    // They ask for votes once their own lease is over, at first often and then ever more seldom.
    let asking = Duration::from_millis(strike.random % 400);
    sleep(cluster.host(leader).lease() + asking).await;
    for &node in restarted {
        cluster.crash(node).await;
    }
    cluster.isolate(leader);
    for &node in restarted {
        cluster.bounce(node).await;
    }
    sleep(strike.lasts).await;
    cluster.heal(leader);
}
