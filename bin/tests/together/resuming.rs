//! A replica that gets a snapshot while its link breaks.

use crate::harness::{Cluster, Node, eventually};
use std::time::Duration;

/// So many of them that each partition's snapshot has several parts.
const KEYS: usize = 40;
const VALUE_BYTES: usize = 100_000;

/// How long senders stand still between two parts, and, in all, how long the receiver does: the link is lost meanwhile, and
/// is not there when they go on.
const HELD_MS: u64 = 3000;
const FROZEN: Duration = Duration::from_secs(5);

/// The sum over a metric's labels.
fn sum(node: &Node, name: &str) -> u64 {
    let text = node.http("GET", "/metrics", &[], b"").text();
    let of = |line: &str| line.strip_prefix(name)?.rsplit(' ').next()?.parse::<u64>().ok();
    text.lines().filter_map(of).sum()
}

fn both(cluster: &Cluster, name: &str) -> u64 {
    cluster.nodes[..2].iter().map(|node| sum(node, name)).sum()
}

#[test]
fn a_snapshot_whose_link_breaks_goes_on_where_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("node.toml");
    std::fs::write(&config, "[raft]\nkept_entries = 0\n").expect("is written");
    let config = config.to_str().expect("is text");
    let mut cluster = Cluster::start(3, &["--partitions", "4", "--config", config]);
    cluster.nodes[2].kill9();
    let client = cluster.nodes[0].client();
    // The log goes up to the checkpoint before the last, so that what the third node misses is there no more.
    for round in 0..2_u8 {
        for at in 0..KEYS {
            let value = vec![at as u8 ^ round; VALUE_BYTES];
            eventually("a write", || client.put(format!("large/{at}"), value.clone()));
        }
        assert_eq!(cluster.nodes[0].http("POST", "/admin/checkpoint", &[], b"").status, 200);
    }
    for node in &cluster.nodes[..2] {
        let path = format!("/admin/debug/hold?at=snapshot-going&ms={HELD_MS}");
        assert_eq!(node.http("POST", &path, &[], b"").status, 204);
    }
    cluster.nodes[2].restart_with(&[]);
    eventually("a snapshot that is under way", || {
        match both(&cluster, "trandb_raft_snapshot_sent_bytes_total") {
            0 => Err("none"),
            _ => Ok(()),
        }
    });
    cluster.nodes[2].sigstop();
    std::thread::sleep(FROZEN);
    cluster.nodes[2].sigcont();
    cluster.nodes[2].wait_ready();
    assert_eq!(cluster.wait_identical(3), KEYS as u64);
    assert!(both(&cluster, "trandb_raft_snapshots_resumed_total") > 0);
}
