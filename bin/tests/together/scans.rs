//! Scans: ranges and pages across partitions, and pages that are one snapshot while others write.

use crate::harness::{Cluster, Node, StopOnDrop, eventually};
use std::sync::atomic::{AtomicBool, Ordering};
use trandb_client::ScanRequest;

/// Keys of a range; spread over all partitions by their hashes.
const KEYS: usize = 120;

fn key(at: usize) -> String {
    format!("scan/{at:03}")
}

/// All pages of a scan by HTTP: keys and values.
fn pages(node: &Node, query: &str, limit: usize) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = node.http("GET", &format!("/keys?{query}&limit={limit}{cursor}"), &[], b"").json();
        let entries = page["entries"].as_array().expect("a page").clone();
        assert!(entries.len() <= limit);
        let text = |entry: &serde_json::Value, name: &str| entry[name].as_str().expect("is text").to_owned();
        found.extend(entries.iter().map(|entry| (text(entry, "key"), text(entry, "value"))));
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

#[test]
fn ranges_are_ordered_and_complete_through_every_node() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    let client = cluster.client();
    for at in 0..KEYS {
        client.put(key(at), at.to_string()).expect("is written");
    }
    client.put("scam", "before").expect("is written");
    client.put("scan0", "after").expect("is written");
    let expected =
        |from: usize, to: usize| (from..to).map(|at| (key(at), at.to_string())).collect::<Vec<_>>();
    for node in &cluster.nodes {
        assert_eq!(pages(node, "prefix=scan/", 1000), expected(0, KEYS));
        assert_eq!(pages(node, "prefix=scan/", 7), expected(0, KEYS), "pages fit together");
        assert_eq!(pages(node, "start=scan/010&end=scan/020", 100), expected(10, 20));
        assert_eq!(pages(node, "prefix=scan/01", 3), expected(10, 20));
        assert_eq!(pages(node, "prefix=nothing", 3), []);
        let native = node.client();
        let scan = ScanRequest { prefix: "scan/".into(), limit: 5, ..ScanRequest::default() };
        let page = native.scan(scan.clone()).expect("is read");
        let keys: Vec<_> = page.entries.iter().map(|entry| entry.key.clone()).collect();
        assert_eq!(keys, (0..5).map(key).collect::<Vec<_>>());
        // The cursor goes on at another node, too.
        let other = cluster.nodes[0].client();
        let page = other.scan(ScanRequest { cursor: page.cursor, ..scan }).expect("is read");
        assert_eq!(page.entries[0].key, key(5));
    }
}

#[test]
fn pages_are_one_snapshot_while_others_write() {
    /// Fewer, since a round of writes should take no longer than a few scans.
    const WRITTEN: usize = 24;
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    let client = cluster.client();
    for at in 0..WRITTEN {
        client.put(key(at), "0").expect("is written");
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        // Round n sets every key to n, in order: a snapshot holds some n in front and n - 1 behind.
        scope.spawn(|| {
            let mut round = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                round += 1;
                for at in 0..WRITTEN {
                    client.put(key(at), round.to_string()).expect("is written");
                }
            }
        });
        let mut newest = 0;
        let mut nodes = cluster.nodes.iter().cycle();
        let mut scan = || {
            let found = pages(nodes.next().expect("is endless"), "prefix=scan/", 7);
            assert_eq!(found.len(), WRITTEN);
            let values: Vec<u32> = found.iter().map(|(_, value)| value.parse().expect("a round")).collect();
            let (first, last) = (values[0], values[WRITTEN - 1]);
            assert!(values.is_sorted_by(|a, b| a >= b) && first - last <= 1, "no snapshot: {values:?}");
            assert!(first >= newest, "older than a scan before it: {first} after {newest}");
            newest = first;
            first
        };
        eventually("scans between writes", || match scan() {
            // Enough rounds that pages without a common snapshot would have shown.
            round if round >= 3 => Ok(()),
            round => Err(format!("round {round}")),
        });
    });
}
