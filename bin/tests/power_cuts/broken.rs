//! Disks that fail: a real process is told by `strace` that a sync has failed, or finds its small disk full.

use crate::harness::{Node, Ports, eventually, request};
use crate::{settings, strace};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use trandb_client::blocking::Client;
use trandb_runtime::config::EngineKind;

/// What the program logs when it starts its node anew.
const ANEW: &str = "the node starts anew from what is on disk";

/// Syncs of one thread before one fails: the log's gets there first, after the node has founded its cluster.
const GOOD_SYNCS: usize = 400;

/// Writes after the node was seen to have come back: too few for the next failure.
const MORE: usize = 50;

fn put(client: &Client, acknowledged: &mut Vec<String>, bytes: usize) -> Result<(), trandb_client::Error> {
    let key = format!("key {:06}", acknowledged.len());
    let value = Bytes::from(vec![b'v'; bytes]);
    client.put(&key, value)?;
    acknowledged.push(key);
    Ok(())
}

fn all_there(client: &Client, acknowledged: &[String]) {
    for key in acknowledged {
        assert!(client.get(key).expect("is read").is_some(), "{key} was acknowledged");
    }
}

#[test]
fn a_failed_sync_is_not_tried_again_and_the_node_comes_back_by_itself() {
    if !strace::is_there() {
        println!("skipped: there is no strace here, or it may not trace");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace");
    let fault = format!("fdatasync:error=EIO:when={GOOD_SYNCS}");
    let wrapper = strace::faulty(&trace, &fault);
    let home = folder.path().join("node");
    let mut node = Node::start_by(
        wrapper,
        &home,
        Ports::free(1).remove(0),
        &[],
        settings::environment(EngineKind::default()),
    );
    node.wait_ready();
    let process = node.process_id();
    let client = node.client();
    let mut acknowledged = Vec::new();
    let until = Instant::now() + Duration::from_secs(120);
    while !node.log().contains(ANEW) {
        assert!(Instant::now() < until, "no sync has failed");
        // One that is not acknowledged is nobody's.
        let _ = put(&client, &mut acknowledged, 100);
    }
    node.wait_ready();
    for _ in 0..MORE {
        eventually("a write after the failure", || put(&client, &mut acknowledged, 100));
    }
    all_there(&client, &acknowledged);
    assert_eq!(node.process_id(), process);
    node.kill9();
    node.restart();
    all_there(&node.client(), &acknowledged);
}

/// A file system of its own, in memory.
struct Mount(PathBuf);

impl Mount {
    fn new(at: &Path, mib: usize) -> Self {
        std::fs::create_dir_all(at).expect("the folder is ours");
        let mount = Self(at.to_owned());
        mount.run("mount", &["-t", "tmpfs", "-o", &format!("size={mib}m,mode=700"), "tmpfs"]);
        mount
    }

    fn resize(&self, mib: usize) {
        self.run("mount", &["-o", &format!("remount,size={mib}m")]);
    }

    /// Leaves so much room and no more.
    fn leave(&self, kib: u64) {
        let is = rustix::fs::statvfs(&self.0).expect("is mounted");
        let used = (is.f_blocks - is.f_bfree) * is.f_frsize / 1024;
        self.run("mount", &["-o", &format!("remount,size={}k", used + kib)]);
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let status = Command::new(program).args(arguments).arg(&self.0).status().expect("runs");
        assert!(status.success(), "{program} {arguments:?}: {status}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Of values with which a disk is filled.
const VALUE_BYTES: usize = 300_000;

/// What a node says that cannot start for lack of room.
const WAITS: &str = "of room on the disk of its data directory";

/// A node that has met its full disk: what was acknowledged before, and what it says.
fn full_node(engine: EngineKind) -> (TempDir, Mount, Node, Vec<String>, trandb_client::Error) {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().join("node");
    let mount = Mount::new(&home.join("data"), 120);
    let mut node =
        Node::start_by(Vec::new(), &home, Ports::free(1).remove(0), &[], settings::environment(engine));
    node.wait_ready();
    let builder = trandb_client::Client::builder().timeout(Duration::from_secs(3));
    let client = Client::connect_with(builder, &node.ports.native).expect("is let in");
    let mut acknowledged = Vec::new();
    loop {
        if let Err(error) = put(&client, &mut acknowledged, VALUE_BYTES)
            && error.message.contains("no room on the disk")
        {
            return (folder, mount, node, acknowledged, error);
        }
        assert!(acknowledged.len() < 2000, "the disk does not fill up");
    }
}

#[test]
#[ignore = "mounts a file system, which takes root: just power-cuts --ignored full_disk"]
fn a_full_disk_is_survived_with_nothing_lost() {
    let (folder, mount, mut node, mut acknowledged, refusal) = full_node(EngineKind::default());
    let builder = trandb_client::Client::builder().timeout(Duration::from_secs(3));
    let client = Client::connect_with(builder, &node.ports.native).expect("is let in");
    println!("after {} writes: {refusal}", acknowledged.len());
    let readiness = node.http_once("GET", "/readyz", &[], b"");
    assert!(readiness.status == 503 && readiness.text().contains("no room on the disk"));
    assert!(node.http_once("GET", "/metrics", &[], b"").text().contains("trandb_wal_full 1"));
    assert!(node.log().contains("the log waits for room on its disk"));
    all_there(&client, &acknowledged);

    mount.resize(1000);
    eventually("a write after there is room", || put(&client, &mut acknowledged, VALUE_BYTES));
    node.wait_ready();
    println!("started anew {} times", node.log().matches(ANEW).count());
    for _ in 0..MORE {
        eventually("a write after there is room", || put(&client, &mut acknowledged, VALUE_BYTES));
    }
    all_there(&node.client(), &acknowledged);
    node.kill9();
    node.restart();
    all_there(&node.client(), &acknowledged);
    drop(node);
    drop(mount);
    drop(folder);
}

#[test]
#[ignore = "mounts a file system, which takes root: just power-cuts --ignored full_disk"]
fn a_full_disk_at_the_start_is_waited_for() {
    // What is left on the disk in KiB. sled is not to be opened without any, and with a little it depends whether it is opened,
    // and partitions load. fjall needs none before it is written to.
    let left =
        [(EngineKind::Sled, 0), (EngineKind::Sled, 64), (EngineKind::Sled, 600), (EngineKind::Fjall, 0)];
    for (engine, kib) in left {
        let (folder, mount, mut node, mut acknowledged, _) = full_node(engine);
        node.kill9();
        mount.leave(kib);
        node.restart_with(&[]);
        let answer = eventually("an answer about health", || {
            request(&node.ports.http, "GET", "/readyz", &[], b"").map_err(|error| error.to_string())
        });
        println!("{engine}, {kib} KiB: {} {}", answer.status, answer.text());
        if (engine, kib) == (EngineKind::Sled, 0) {
            assert!(answer.status == 503 && answer.text().contains(WAITS), "{}", answer.text());
            assert!(node.log().contains(WAITS));
        }
        // Longer than it takes to look for room. However far it came, it does not end.
        std::thread::sleep(Duration::from_secs(2));
        assert!(node.is_running(), "{}", node.log());
        mount.resize(1000);
        node.wait_ready();
        let client = node.client();
        all_there(&client, &acknowledged);
        eventually("a write after there is room", || put(&client, &mut acknowledged, 100));
        drop(node);
        drop(mount);
        drop(folder);
    }
}
