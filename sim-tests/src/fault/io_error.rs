//! A read or a write fails, now or when the node boots again: it must not take for done what was not, nor for absent
//! what it could not read.

use super::{Fault, Lane, Strike, Work};
use crate::cluster::Cluster;
use trandb_runtime::disk::Call;

/// The fault.
pub(super) const FAULT: Fault = Fault {
    name: "io-error",
    about: "a read or a write of the log fails, and the node restarts",
    lane: Lane::Machine,
    nodes_min: 1,
    inflict: |cluster, strike| -> Work { Box::pin(inflict(cluster, strike)) },
};

async fn inflict(cluster: Cluster, strike: Strike) {
    const CALLS_MAX: u64 = 60;
    let disk = cluster.host(strike.node).disk();
    if strike.random.is_multiple_of(2) {
        disk.fail_call_after(Call::Write, strike.random / 2 % CALLS_MAX);
        cluster.fails_and_restarts(strike.node, strike.lasts).await;
    } else {
        // Nodes that run seldom read their disk, so it is one that boots.
        cluster.crash(strike.node).await;
        disk.fail_call_after(Call::Read, strike.random / 2 % CALLS_MAX);
        cluster.boots_in_vain(strike.node).await;
        cluster.fails_and_restarts(strike.node, strike.lasts).await;
    }
}
