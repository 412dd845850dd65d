//! A replica that gets a snapshot while its link breaks.

use crate::harness::{Cluster, Node, eventually};
use std::time::Duration;
use trandb_client::blocking::Client;

/// So many of them that each partition's snapshot has several parts.
const KEYS: usize = 40;
const VALUE_BYTES: usize = 100_000;

/// How long senders stand still between two parts, and, in all, how long the receiver does: the link is lost meanwhile, and
/// is not there when they go on.
const HELD_MS: u64 = 3000;
const FROZEN: Duration = Duration::from_secs(5);

/// How often the third node is killed and left behind until it has to get a snapshot.
const ATTEMPTS: u8 = 5;

/// Whether every replica of every partition holds the same.
fn caught_up(client: &Client) -> bool {
    client.verify().is_ok_and(|report| {
        let full = report
            .partitions
            .iter()
            .all(|part| part.replicas.len() == 3 && part.replicas.iter().all(|(_, digest)| digest.is_ok()));
        full && report.identical
    })
}

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
    let client = cluster.nodes[0].client();
    // The log goes only when it may, a little after the checkpoint: then the node may still catch up from it.
    let attempts = (0..ATTEMPTS).any(|attempt| {
        cluster.nodes[2].kill9();
        // It goes up to the checkpoint before the last.
        for round in 0..2_u8 {
            for at in 0..KEYS {
                let value = vec![at as u8 ^ (2 * attempt + round); VALUE_BYTES];
                eventually("a write", || client.put(format!("large/{at}"), value.clone()));
            }
            assert_eq!(cluster.nodes[0].http("POST", "/admin/checkpoint", &[], b"").status, 200);
        }
        for node in &cluster.nodes[..2] {
            let path = format!("/admin/debug/hold?at=snapshot-going&ms={HELD_MS}");
            assert_eq!(node.http("POST", &path, &[], b"").status, 204);
        }
        cluster.nodes[2].restart_with(&[]);
        eventually("a snapshot that is under way, or replicas that caught up", || {
            let sent = both(&cluster, "trandb_raft_snapshot_sent_bytes_total") > 0;
            if sent || caught_up(&client) { Ok::<_, &str>(sent) } else { Err("neither") }
        })
    });
    assert!(attempts, "no snapshot was sent in {ATTEMPTS} attempts");
    cluster.nodes[2].sigstop();
    std::thread::sleep(FROZEN);
    cluster.nodes[2].sigcont();
    cluster.nodes[2].wait_ready();
    assert_eq!(cluster.wait_identical(3), KEYS as u64);
    assert!(both(&cluster, "trandb_raft_snapshots_resumed_total") > 0);
}
