//! A cluster of which nobody asks anything.

use crate::harness::{Cluster, Node, eventually};
use std::time::{Duration, Instant};

/// Between two heartbeats of a leader, by default.
const HEARTBEAT: Duration = Duration::from_millis(250);

/// How long calls are counted.
const COUNTED: Duration = Duration::from_secs(4);

/// Calls of a node to its peers that were answered.
fn calls(node: &Node) -> u64 {
    node.metric("trandb_peer_rpc_seconds_count", &[]) as u64
}

/// Each group's term and leader.
fn leads(node: &Node) -> Vec<(u64, Option<trandb_client::NodeId>)> {
    node.view().partitions.into_iter().map(|group| (group.term, group.leader)).collect()
}

#[test]
fn the_groups_of_a_node_share_their_heartbeats() {
    let cluster = Cluster::start(3, &["--partitions", "16"]);
    // Leaders first find their places.
    eventually("few calls, and the same leaders before and after", || {
        let before = leads(&cluster.nodes[0]);
        let since = Instant::now();
        let first: Vec<u64> = cluster.nodes.iter().map(calls).collect();
        std::thread::sleep(COUNTED);
        let counted: Vec<u64> =
            cluster.nodes.iter().zip(first).map(|(node, first)| calls(node) - first).collect();
        let beats = since.elapsed().as_millis() as u64 / HEARTBEAT.as_millis() as u64 + 1;
        // One to each of two peers, and half as much again for whatever else there is to say. Alone, the five or six
        // groups that each node leads would send as many times more.
        let most = 2 * beats * 3 / 2;
        let least = beats;
        let steady = leads(&cluster.nodes[0]) == before;
        if steady && counted.iter().all(|calls| (least..=most).contains(calls)) {
            Ok(())
        } else {
            Err(format!("{counted:?} calls, {least} to {most} are right; steady: {steady}"))
        }
    });
}
