//! Reads of the past through nodes that do not lead what is read.

use crate::harness::{Cluster, Node, eventually};
use trandb_client::{Timestamp, TxnOptions};

/// Keys; spread over all partitions by their hashes.
const KEYS: usize = 40;

fn key(at: usize) -> String {
    format!("past/{at:02}")
}

/// Reads that a node has answered from its own replica without leading.
fn answered_here(node: &Node) -> u64 {
    node.metric("trandb_follower_reads_total", &[]) as u64
}

#[test]
fn the_past_is_read_at_any_node_and_is_the_same_everywhere() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    cluster.wait_spread();
    let client = cluster.client();
    let put_all = |value: &'static str| -> Timestamp {
        let versions = (0..KEYS).map(|at| client.put(key(at), value).expect("is written").version);
        versions.max().expect("there are some")
    };
    let then = put_all("then");
    client.delete(key(0)).expect("is deleted");
    put_all("now");

    let scan = format!("/keys?prefix=past/&limit=100&at={then}");
    for node in &cluster.nodes {
        let one = node.client();
        eventually("a replica that answers", || {
            let before = answered_here(node);
            for at in 0..KEYS {
                // Over HTTP, since a native client asks leaders by itself.
                let found = node.http("GET", &format!("/keys/past%2F{at:02}?at={then}"), &[], b"");
                assert_eq!((found.status, &found.body[..]), (200, &b"then"[..]), "{at}");
            }
            let (keys, before) = (answered_here(node) - before, answered_here(node));
            let page = node.http("GET", &scan, &[], b"").json();
            let entries = page["entries"].as_array().expect("a page");
            assert_eq!(entries.len(), KEYS);
            assert!(entries.iter().all(|entry| entry["value"] == "then"), "{page}");
            let ranges = answered_here(node) - before;
            // It leads two of four partitions at most.
            let enough = keys >= KEYS as u64 / 5 && ranges >= 2;
            if enough { Ok(()) } else { Err(format!("{keys} gets and {ranges} ranges")) }
        });
        // What was written a moment ago is the leader's to say, whoever is asked.
        for round in 0..50 {
            let value = round.to_string();
            client.put(key(round % KEYS), value.clone()).expect("is written");
            let txn =
                one.begin_with(TxnOptions { read_only: true, ..TxnOptions::default() }).expect("begins");
            let found = txn.get(key(round % KEYS)).expect("is read").expect("is there");
            assert_eq!(found.value, value);
            txn.commit().expect("never aborts");
        }
    }
}
