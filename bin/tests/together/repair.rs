//! A node whose disk rotted, or went back to what was on it before: refused, and rebuilt from the others where that is asked for.

use crate::harness::{Cluster, Node, eventually};
use std::path::{Path, PathBuf};
use trandb_client::blocking::Client;

const KEYS: usize = 60;

/// Large enough that the middle of the log is the middle of a value.
const VALUE_BYTES: usize = 2000;

/// Exit code of a node whose data is not what was written.
const EX_DATAERR: Option<i32> = Some(65);

fn value(at: usize, round: u8) -> Vec<u8> {
    vec![at as u8 ^ round; VALUE_BYTES]
}

fn fill(client: &Client, round: u8) {
    for at in 0..KEYS {
        client.put(format!("k{at}"), value(at, round)).expect("is written");
    }
}

fn check(client: &Client, round: u8) {
    for at in 0..KEYS {
        let found = client.get(format!("k{at}")).expect("is read").unwrap_or_else(|| panic!("k{at} is lost"));
        assert_eq!(found.value, value(at, round));
    }
}

fn flip(file: &Path, at: usize) {
    let mut bytes = std::fs::read(file).expect("is there");
    bytes[at] ^= 0x10;
    std::fs::write(file, bytes).expect("is ours");
}

/// The first segment of its log.
fn segment(node: &Node) -> PathBuf {
    let files = std::fs::read_dir(node.data_dir().join("wal")).expect("a log");
    let files = files.map(|entry| entry.expect("is read").path());
    files.min().expect("a segment")
}

fn is_refused(node: &mut Node, arguments: &[&str], why: &str) {
    node.restart_with(arguments);
    assert_eq!(node.wait_exit(), EX_DATAERR, "{}", node.log());
    assert!(node.log().contains(why), "{}", node.log());
}

#[test]
fn a_damaged_log_is_refused_and_rebuilt_from_the_others_where_that_is_asked_for() {
    let mut cluster = Cluster::start(3, &["--partitions", "4"]);
    fill(&cluster.client(), 0);
    assert_eq!(cluster.wait_identical(3), KEYS as u64);
    let old = cluster.nodes[2].view().answered_by;
    cluster.nodes[2].kill9();
    flip(&segment(&cluster.nodes[2]), 40 * VALUE_BYTES);
    fill(&cluster.client(), 1);

    let node = &mut cluster.nodes[2];
    is_refused(node, &[], ".wal at byte ");
    assert!(node.log().contains("--repair puts damaged data aside"), "{}", node.log());
    node.restart_with(&["--repair"]);
    node.wait_ready();
    let new = node.view().answered_by;
    assert!(new.0 > 3, "{new} comes back in place of {old}");
    assert!(node.data_dir().join("damaged-1/wal").is_dir(), "what was damaged is kept");
    eventually("replicas on the new node in place of the old one's", || {
        let view = cluster.nodes[0].view();
        let on = |node| view.partitions.iter().filter(|partition| partition.replicas.contains(&node)).count();
        if (on(new), on(old)) == (view.partitions.len(), 0) { Ok(()) } else { Err(format!("{view:?}")) }
    });
    assert_eq!(cluster.wait_identical(3), KEYS as u64);
    check(&cluster.nodes[2].client(), 1);

    // Asked for once more, it finds nothing to do.
    cluster.nodes[2].kill9();
    cluster.nodes[2].restart_with(&["--repair"]);
    cluster.nodes[2].wait_ready();
    assert_eq!(cluster.nodes[2].view().answered_by, new);
    assert!(!cluster.nodes[2].data_dir().join("damaged-2").exists());
}

#[test]
fn a_damaged_checkpoint_is_refused_and_rebuilt_from_the_others_where_that_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("node.toml");
    // What fjall has written is where it was written, and not written again.
    std::fs::write(&config, "[storage]\nengine = \"fjall\"\n").expect("is written");
    let config = config.to_str().expect("is text");
    let mut cluster = Cluster::start(3, &["--partitions", "4", "--config", config]);
    for round in 0..2 {
        fill(&cluster.client(), round);
        assert_eq!(cluster.nodes[0].http("POST", "/admin/checkpoint", &[], b"").status, 200);
    }
    assert_eq!(cluster.wait_identical(3), KEYS as u64);
    let node = &mut cluster.nodes[2];
    node.kill9();
    let files = std::fs::read_dir(node.data_dir().join("engine-fjall")).expect("an engine");
    let files = files.map(|entry| entry.expect("is read").path()).filter(|path| path.is_file());
    let largest = files.max_by_key(|file| std::fs::metadata(file).map_or(0, |it| it.len()));
    // The middle of the first checkpoint's values.
    flip(&largest.expect("a file"), 20 * VALUE_BYTES);
    is_refused(node, &[], "--repair puts damaged data aside");
    node.restart_with(&["--repair"]);
    node.wait_ready();
    assert!(node.data_dir().join("damaged-1/engine-fjall").is_dir(), "what was damaged is kept");
    assert_eq!(cluster.wait_identical(3), KEYS as u64);
    check(&cluster.nodes[2].client(), 1);
}

/// As when a snapshot of a machine is put back: it has forgotten what its node acknowledged since.
#[test]
fn an_older_copy_is_refused_and_rebuilt_from_the_others_where_that_is_asked_for() {
    let mut cluster = Cluster::start(3, &["--partitions", "4"]);
    fill(&cluster.client(), 0);
    assert_eq!(cluster.wait_identical(3), KEYS as u64);
    // Those with a smaller number dial the others: who has to tell, and who hears of it first, differs.
    for at in [0, 2] {
        let node = &mut cluster.nodes[at];
        node.kill9();
        let copy = node.data_dir().with_extension("copy");
        copy_directory(&node.data_dir(), &copy);
        node.restart();
        fill(&cluster.client(), 1);
        assert_eq!(cluster.wait_identical(3), KEYS as u64);
        let node = &mut cluster.nodes[at];
        node.kill9();
        // All of it, but no older than it was.
        node.restart();
        let old = node.view().answered_by;
        node.kill9();
        node.wipe();
        std::fs::rename(&copy, node.data_dir()).expect("the folder is ours");
        is_refused(node, &[], "this is an older copy of the data directory");
        node.restart_with(&["--repair"]);
        node.wait_ready();
        let new = node.view().answered_by;
        assert!(new.0 > 3, "{new} comes back in place of {old}");
        assert!(node.data_dir().join("damaged-1/wal").is_dir(), "what was there is kept");
        assert_eq!(cluster.wait_identical(3), KEYS as u64);
        check(&cluster.nodes[at].client(), 1);
    }
}

#[test]
fn a_node_whose_data_was_put_aside_founds_no_cluster() {
    let mut cluster = Cluster::start(3, &["--partitions", "4"]);
    fill(&cluster.client(), 0);
    assert_eq!(cluster.wait_identical(3), KEYS as u64);
    for node in &mut cluster.nodes {
        node.kill9();
    }
    // Two of three at once: what they had is with the third, which leads nothing without them.
    for at in [0, 1] {
        flip(&segment(&cluster.nodes[at]), 40 * VALUE_BYTES);
        cluster.nodes[at].restart_with(&["--repair"]);
    }
    for at in [0, 1] {
        let why = "no seed is in cluster";
        cluster.nodes[at].wait_logged(why);
        // Nor the next time, when nothing is damaged any more.
        cluster.nodes[at].kill9();
        cluster.nodes[at].restart_with(&[]);
        cluster.nodes[at].wait_logged_times(why, 2);
        cluster.nodes[at].kill9();
    }
}

#[test]
fn a_node_that_is_alone_is_not_rebuilt() {
    let mut cluster = Cluster::start(1, &["--partitions", "4"]);
    fill(&cluster.client(), 0);
    let node = &mut cluster.nodes[0];
    node.kill9();
    flip(&segment(node), 40 * VALUE_BYTES);
    let before = std::fs::read(segment(node)).expect("is there");
    is_refused(node, &["--repair"], "no seed names another node");
    assert!(std::fs::read(segment(node)).expect("is where it was") == before);
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("the folder is ours");
    for entry in std::fs::read_dir(from).expect("is there") {
        let entry = entry.expect("is there");
        let (is, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().expect("is known").is_dir() {
            true => copy_directory(&is, &to),
            false => drop(std::fs::copy(&is, &to).expect("is copied")),
        }
    }
}
