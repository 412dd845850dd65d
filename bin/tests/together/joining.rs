//! Nodes that come in: to a cluster of one, in place of one that lost its disk, and from another address.

use crate::harness::{Cluster, Node, Ports, eventually};
use trandb_client::blocking::Client;

const KEYS: usize = 80;

fn fill(client: &Client) {
    for at in 0..KEYS {
        client.put(format!("k{at}"), format!("value {at}")).expect("is written");
    }
}

fn check(client: &Client) {
    for at in 0..KEYS {
        let found = client.get(format!("k{at}")).expect("is read").unwrap_or_else(|| panic!("k{at} is lost"));
        assert_eq!(found.value, format!("value {at}"));
    }
}

#[test]
fn a_cluster_of_one_grows_to_three_and_outlives_the_first() {
    let mut cluster = Cluster::start(1, &["--partitions", "4"]);
    fill(&cluster.nodes[0].client());
    cluster.join();
    assert_eq!(cluster.nodes[1].view().answered_by.0, 2);
    check(&cluster.nodes[1].client());
    cluster.join();
    assert_eq!(cluster.wait_identical(3), KEYS as u64);
    eventually("a share of the leaders for every node", || {
        let view = cluster.nodes[2].view();
        let all = view.nodes.len() == 3 && view.nodes.iter().all(|node| node.leads > 0);
        let spread = view.partitions.iter().all(|partition| partition.replicas.len() == 3);
        if all && spread { Ok(()) } else { Err(format!("{view:?}")) }
    });
    cluster.nodes[0].kill9();
    for node in &cluster.nodes[1..] {
        eventually("a write without the first node", || match node.http("PUT", "/keys/after", &[], b"v") {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.text()),
        });
        check(&node.client());
    }
}

#[test]
fn partitions_of_one_replica_move_to_a_node_that_joins() {
    let mut cluster = Cluster::start(1, &["--partitions", "4", "--replication", "1"]);
    fill(&cluster.nodes[0].client());
    cluster.join();
    eventually("partitions on both nodes, each on one", || {
        let view = cluster.nodes[1].view();
        let alone =
            view.partitions.iter().all(|partition| partition.id.0 == 0 || partition.replicas.len() == 1);
        let both = view.nodes.len() == 2 && view.nodes.iter().all(|node| node.leads > 0);
        if alone && both { Ok(()) } else { Err(format!("{view:?}")) }
    });
    for node in &cluster.nodes {
        check(&node.client());
    }
}

/// Five vote in the system group; the others only hear what it decides, and must hear all of it.
#[test]
fn a_sixth_node_and_a_seventh_are_told_what_five_decide() {
    let mut cluster = Cluster::start(5, &["--partitions", "4"]);
    fill(&cluster.client());
    cluster.join();
    cluster.join();
    eventually("a share of the replicas for every node, everywhere", || {
        for node in &cluster.nodes {
            let view = node.view();
            let used: std::collections::BTreeSet<_> =
                view.partitions.iter().flat_map(|partition| partition.replicas.iter().copied()).collect();
            if view.nodes.len() != 7 || used.len() != 7 {
                return Err(format!("{view:?}"));
            }
        }
        Ok(())
    });
    assert_eq!(cluster.wait_identical(3), KEYS as u64);
    for node in &cluster.nodes {
        check(&node.client());
    }
}

#[test]
fn a_node_that_lost_its_disk_comes_back_as_another_and_gets_its_replicas() {
    let mut cluster = Cluster::start(3, &["--partitions", "4"]);
    fill(&cluster.client());
    assert_eq!(cluster.wait_identical(3), KEYS as u64);
    let old = cluster.nodes[2].view().answered_by;
    cluster.nodes[2].kill9();
    cluster.nodes[2].wipe();
    cluster.nodes[2].restart();
    let new = cluster.nodes[2].view().answered_by;
    assert!(new.0 > 3, "{new} comes back in place of {old}");
    eventually("replicas on the new node in place of the old one's", || {
        let view = cluster.nodes[0].view();
        let moved = view
            .partitions
            .iter()
            .all(|partition| partition.replicas.contains(&new) && !partition.replicas.contains(&old));
        if moved { Ok(()) } else { Err(format!("{view:?}")) }
    });
    assert_eq!(cluster.wait_identical(3), KEYS as u64);
    check(&cluster.nodes[2].client());
}

/// The smaller id dials, so that nobody could reach the last one, nor it anybody; and two of three are no majority without each
/// other. All were started with the addresses that everybody had in the beginning.
#[test]
fn members_that_move_are_found_where_they_are() {
    let mut cluster = Cluster::start(3, &["--partitions", "4"]);
    fill(&cluster.client());
    for moving in [&[2][..], &[0], &[1, 2]] {
        for &node in moving {
            // Who follows may act on an entry before it is in its own file: killed then, it would not know where the first one is,
            // and everybody else moves with it. Stopped in order, it has what it has shown.
            cluster.nodes[node].sigterm();
            cluster.nodes[node].wait_exit();
            cluster.nodes[node].ports = Ports::free(1).remove(0);
        }
        for &node in moving {
            cluster.nodes[node].restart_with(&[]);
        }
        for &node in moving {
            cluster.nodes[node].wait_ready();
        }
        eventually("everybody up where it is", || {
            for node in &cluster.nodes {
                let view = node.view();
                let at = |other: &Node| {
                    view.nodes.iter().any(|seen| seen.peer == other.ports.peer && seen.state == "up")
                };
                if !cluster.nodes.iter().all(at) {
                    return Err(format!("{view:?}"));
                }
            }
            Ok(())
        });
        assert_eq!(cluster.wait_identical(3), KEYS as u64);
    }
    for node in &cluster.nodes {
        check(&node.client());
    }
}
