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

/// Seldom do the votes come while the lease is still good.
const ROUNDS: u64 = 3;

async fn inflict(cluster: Cluster, strike: Strike) {
    for round in 0..ROUNDS {
        once(&cluster, Strike { random: strike.random.rotate_left(round as u32 * 13), ..strike }).await;
    }
}

async fn once(cluster: &Cluster, strike: Strike) {
    let Some((leader, mut others)) = choose(cluster, strike.random as usize).await else { return };
    let lease = cluster.host(leader).lease();
    let places = others.len();
    others.rotate_left((strike.random >> 32) as usize % places);
    // The leader and those that restart are a majority, and so are all but the leader.
    let (blind, restarted) = others.split_at(places / 2);
    for &node in blind {
        cluster.part(leader, node);
    }
    // They ask for votes from the end of their own lease on, at first often and then ever more seldom.
    let asking = Duration::from_millis(strike.random % 200);
    sleep(lease * 9 / 10 + asking).await;
    for &node in restarted {
        cluster.crash(node).await;
    }
    cluster.isolate(leader);
    for &node in restarted {
        cluster.bounce(node).await;
    }
    // Long enough for another leader, and for whoever still asks this one.
    sleep(lease * 3).await;
    cluster.heal(leader);
    sleep(strike.lasts / ROUNDS as u32).await;
}

/// The leader of some group with three replicas or more, and where the others are. Not the system group's leader where
/// there is a choice: without timestamps nobody else could write anything that it should know of.
async fn choose(cluster: &Cluster, from: usize) -> Option<(usize, Vec<usize>)> {
    let mut groups = cluster.groups().await?;
    let system = groups.first()?.leader;
    let turn = from % groups.len();
    groups.rotate_left(turn);
    groups.retain(|group| group.leader.is_some() && group.replicas.len() >= 3);
    let chosen = groups.iter().find(|group| group.leader != system).or(groups.first())?;
    let leader = chosen.leader?;
    Some((leader, chosen.replicas.iter().copied().filter(|&node| node != leader).collect()))
}
