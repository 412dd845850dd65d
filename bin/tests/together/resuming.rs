//! A replica that gets a snapshot while its link breaks.

use crate::harness::{Cluster, Node, eventually};
use std::time::Duration;

const PARTITIONS: usize = 4;

/// So many of them that each partition's snapshot has several parts.
const KEYS: usize = 60;
const VALUE_BYTES: usize = 70_000;

/// From so many log entries on, a new member is no voter before it has caught up: a change of the voters would begin its
/// snapshot anew.
const ENTRIES: u64 = 256;

/// The label of what concerns the system group.
const SYSTEM: &str = "{partition=\"0\"}";

/// Of every log.
const FIRST_SEGMENT: &str = "0000000000000001.wal";

/// How long senders stand still between two parts, and, in all, how long the receiver does: the link is lost meanwhile, and
/// is not there when they go on.
const HELD_MS: u64 = 3000;
const FROZEN: Duration = Duration::from_secs(5);

/// A metric of each partition, but not of the system group, whose snapshot has one part only.
fn values(node: &Node, name: &str) -> Vec<u64> {
    let samples = node.samples(name).into_iter();
    samples.filter(|(labels, _)| !labels.contains(SYSTEM)).map(|(_, value)| value as u64).collect()
}

/// Its sum over both nodes that live.
fn both(cluster: &Cluster, name: &str) -> u64 {
    cluster.nodes[..2].iter().flat_map(|node| values(node, name)).sum()
}

/// Whether its log still has the segment that it began with, and with it the first entries of a group.
fn has_first_segment(node: &Node) -> bool {
    node.data_dir().join("wal").join(FIRST_SEGMENT).exists()
}

#[test]
fn a_snapshot_whose_link_breaks_goes_on_where_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("node.toml");
    // A log that no follower needs goes with the second checkpoint after it, and its file once it has a successor.
    let settings = "[raft]\nkept_entries = 0\n[storage]\nwal_segment_bytes = 16777216\ncheckpoint_log_bytes = 16777216\n";
    std::fs::write(&config, settings).expect("is written");
    let config = config.to_str().expect("is text");
    let mut cluster = Cluster::start(3, &["--partitions", &PARTITIONS.to_string(), "--config", config]);
    let client = cluster.client();
    assert!(cluster.nodes.iter().all(has_first_segment), "logs begin with {FIRST_SEGMENT}");
    // While all live and keep up, so that nobody's entries are under way and put this off.
    let mut round = 0_u8;
    eventually("logs without their beginning", || {
        for at in 0..KEYS {
            let value = vec![at as u8 ^ round; VALUE_BYTES];
            client.put(format!("large/{at}"), value).map_err(|error| error.to_string())?;
        }
        round = round.wrapping_add(1);
        assert_eq!(cluster.nodes[0].http("POST", "/admin/checkpoint", &[], b"").status, 200);
        let begun = cluster.nodes[..2].iter().filter(|node| has_first_segment(node)).count();
        let applied = values(&cluster.nodes[0], "trandb_raft_applied_index");
        if begun == 0 && applied.len() == PARTITIONS && applied.iter().all(|&index| index > ENTRIES) {
            Ok(())
        } else {
            Err(format!("{begun} of 2 have it after {round} rounds, entries: {applied:?}"))
        }
    });
    // Who begins anew needs what is in no log any more.
    cluster.nodes[2].kill9();
    cluster.nodes[2].wipe();
    for node in &cluster.nodes[..2] {
        let path = format!("/admin/debug/hold?at=snapshot-going&ms={HELD_MS}");
        assert_eq!(node.http("POST", &path, &[], b"").status, 204);
    }
    cluster.nodes[2].restart_with(&[]);
    eventually("a snapshot that is under way", || {
        match both(&cluster, "trandb_raft_snapshot_sent_bytes_total") {
            0 => Err("nothing of one was sent"),
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
