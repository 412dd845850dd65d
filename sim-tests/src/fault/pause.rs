//! A process stands still while time goes on: its timers all fire at once, and nobody hears of it meanwhile, its clients
//! included.
//!
//! Simulated hosts cannot be stopped, so its time leaps in the beginning and it is kept from all others until theirs has
//! come as far. What it does in between nobody can see; and since that is at least one lease, no lease that it granted
//! before ends for it earlier than for the one that holds it.

use super::{Fault, Lane, Strike, Work};
use crate::cluster::Cluster;
use tokio::time::sleep;

/// The fault. It works by the network, and no other fault of the network may let the messages go before.
pub(super) const FAULT: Fault = Fault {
    name: "pause",
    about: "a process stands still, and its timers then all fire at once",
    lane: Lane::Network,
    nodes_min: 1,
    inflict: |cluster, strike| -> Work { Box::pin(inflict(cluster, strike)) },
};

async fn inflict(cluster: Cluster, strike: Strike) {
    let host = cluster.host(strike.node);
    let lasts = strike.lasts.max(host.lease() * 11 / 10);
    cluster.hold_all(strike.node);
    host.leap(lasts);
    sleep(lasts).await;
    cluster.release_all(strike.node);
}
