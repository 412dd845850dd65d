//! Disks that are full: nodes on small file systems of their own, which takes root to mount.
//!
//! `just power-cuts --ignored full_disk` runs these.

use crate::broken::{ANEW, MORE, all_there, put};
use crate::harness::{Node, Ports, StopOnDrop, eventually, request};
use crate::settings;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use trandb_client::blocking::Client;
use trandb_runtime::config::EngineKind;

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
#[ignore = "mounts a file system, which takes root"]
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
#[ignore = "mounts a file system, which takes root"]
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

/// How long writes may fail or wait when one of three disks is full.
const GAP_MAX: Duration = Duration::from_secs(10);

/// How many groups each node leads, as `node` sees it.
fn leads(node: &Node) -> BTreeMap<u64, usize> {
    let mut leads = BTreeMap::new();
    for partition in node.view().partitions {
        *leads.entry(partition.leader.map_or(0, |leader| leader.0)).or_default() += 1;
    }
    leads
}

#[test]
#[ignore = "mounts a file system, which takes root"]
fn of_three_nodes_one_with_a_full_disk_leads_nothing_and_writes_go_on() {
    const WRITERS: usize = 4;
    let folder = tempfile::tempdir().expect("a folder");
    let home = |at: usize| folder.path().join(at.to_string());
    let mount = Mount::new(&home(0).join("data"), 120);
    let ports = Ports::free(3);
    let seeds: Vec<&str> = ports.iter().map(|ports| ports.peer.as_str()).collect();
    let arguments = ["--seeds".to_owned(), seeds.join(",")];
    let begin = |(at, ports): (usize, &Ports)| {
        let mut environment = settings::environment(EngineKind::default());
        environment.retain(|(name, _)| *name != "TRANDB_NODE__PARTITIONS");
        environment.push(("TRANDB_NODE__PARTITIONS", "12".to_owned()));
        Node::start_by(Vec::new(), &home(at), ports.clone(), &arguments, environment)
    };
    let mut nodes: Vec<Node> = ports.iter().enumerate().map(begin).collect();
    for node in &mut nodes {
        node.wait_ready();
    }
    let small = nodes[0].view().answered_by.0;
    eventually("leaders on all three", || {
        let leads = leads(&nodes[1]);
        if (1..=3).all(|node| leads.get(&node).is_some_and(|&count| count >= 3)) {
            Ok(())
        } else {
            Err(format!("{leads:?}"))
        }
    });

    let acknowledged = Mutex::new(Vec::new());
    // The longest that one took, retries included, since the disk was full.
    let gap = Mutex::new(Duration::ZERO);
    let (stop, is_full) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for writer in 0..WRITERS {
            // Each knows one of the nodes that have room, and writes wherever its keys are.
            let client = nodes[1 + writer % 2].client();
            let (stop, is_full, acknowledged, gap) = (&stop, &is_full, &acknowledged, &gap);
            scope.spawn(move || {
                for at in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let key = format!("{writer}/{at}");
                    let begun = Instant::now();
                    while client.put(&key, vec![b'v'; VALUE_BYTES]).is_err() {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                    if is_full.load(Ordering::Relaxed) {
                        let mut gap = gap.lock().expect("no panic");
                        *gap = (*gap).max(begun.elapsed());
                    }
                    acknowledged.lock().expect("no panic").push(key);
                }
            });
        }
        nodes[0].wait_logged("the log waits for room on its disk");
        is_full.store(true, Ordering::Relaxed);
        let since = Instant::now();
        eventually("a full node that leads nothing", || match leads(&nodes[1]).get(&small) {
            None => Ok(()),
            Some(count) => Err(format!("it leads {count}")),
        });
        println!("leads nothing after {:?}", since.elapsed());
        assert!(since.elapsed() < GAP_MAX);
        let before = acknowledged.lock().expect("no panic").len();
        // Longer than it takes to spread leaders anew: none comes back.
        while since.elapsed() < GAP_MAX {
            std::thread::sleep(Duration::from_millis(200));
            assert_eq!(leads(&nodes[1]).get(&small), None);
        }
        let more = acknowledged.lock().expect("no panic").len() - before;
        println!("{more} writes meanwhile");
        assert!(more > WRITERS, "{more} writes");
    });
    let gap = *gap.lock().expect("no panic");
    println!("a write took {gap:?} at most");
    assert!(gap < GAP_MAX);
    let readiness = nodes[0].http_once("GET", "/readyz", &[], b"");
    assert!(
        readiness.status == 503 && readiness.text().contains("no room on the disk"),
        "{}\n{}",
        readiness.text(),
        nodes[0].log()
    );

    mount.resize(2000);
    nodes[0].wait_ready();
    eventually("leaders on the node that has room again", || match leads(&nodes[1]).get(&small) {
        Some(count) if *count >= 3 => Ok(()),
        leads => Err(format!("{leads:?}")),
    });
    let acknowledged = acknowledged.into_inner().expect("no panic");
    all_there(&nodes[0].client(), &acknowledged);
    eventually("replicas that hold the same", || {
        let report = nodes[0].client().verify().map_err(|error| error.to_string())?;
        let all = report.partitions.iter().all(|part| part.replicas.iter().all(|(_, digest)| digest.is_ok()));
        if report.identical && all { Ok(()) } else { Err(format!("{report:?}")) }
    });
    drop(nodes);
    drop(mount);
}
