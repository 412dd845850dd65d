//! Nodes that do not start, each with its reason and exit code.

use crate::harness::{Cluster, Node, Ports, refused};
use std::net::TcpListener;
use std::path::Path;

/// Starts with free ports; `extra` comes last.
fn refused_with(data_dir: &Path, extra: &[&str]) -> (i32, String) {
    let data_dir = data_dir.to_str().expect("is text");
    let fixed = ["--log-format", "human", "--port-base", "0", "--partitions", "4", "--data-dir", data_dir];
    refused(&[&fixed[..], extra].concat())
}

#[test]
fn a_port_in_use() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let addr = taken.local_addr().expect("is bound").to_string();
    for (flag, door) in [("--native", "native"), ("--peer", "peer"), ("--http", "http")] {
        let (code, log) = refused_with(&folder.path().join("data"), &[flag, &addr]);
        assert_eq!(code, 69, "{log}");
        assert!(log.contains(&format!("cannot listen on {addr} for the {door} door")), "{log}");
    }
}

#[test]
fn a_directory_in_use_or_of_a_newer_format() {
    let mut cluster = Cluster::start(1, &["--partitions", "4"]);
    let node = &mut cluster.nodes[0];
    let (code, log) = refused_with(&node.data_dir(), &[]);
    assert_eq!(code, 75, "{log}");
    assert!(log.contains("is in use by process"), "{log}");
    assert_eq!(node.http("PUT", "/keys/k", &[], b"v").status, 200, "the one that runs is not disturbed");
    node.kill9();

    std::fs::write(node.data_dir().join("VERSION"), "trandb 99\n").expect("is written");
    let (code, log) = refused_with(&node.data_dir(), &[]);
    assert_eq!(code, 78, "{log}");
    assert!(log.contains("has format 99, this release reads up to 1"), "{log}");
}

#[test]
fn a_directory_whose_log_is_gone_or_damaged() {
    let mut cluster = Cluster::start(1, &["--partitions", "4"]);
    let node = &mut cluster.nodes[0];
    for key in ["/keys/a", "/keys/b", "/keys/c"] {
        assert_eq!(node.http("PUT", key, &[], b"v").status, 200);
    }
    node.kill9();
    let segment = node.data_dir().join("wal/0000000000000001.wal");

    let mut bytes = std::fs::read(&segment).expect("is readable");
    let end = bytes.iter().rposition(|&byte| byte != 0).expect("is not empty");
    // A byte that is not zero is none of the padding between batches, which says nothing.
    let middle = bytes[..=end / 2].iter().rposition(|&byte| byte != 0).expect("the header is not empty");
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).expect("is written");
    let (code, log) = refused_with(&node.data_dir(), &[]);
    assert_eq!(code, 65, "{log}");
    assert!(log.contains("0000000000000001.wal at byte "), "{log}");

    std::fs::remove_file(&segment).expect("is removed");
    // Twice: the refusal must not leave an empty log behind that is taken the next time.
    for _ in 0..2 {
        let (code, log) = refused_with(&node.data_dir(), &[]);
        assert_eq!(code, 65, "{log}");
        assert!(log.contains("no segment is left, though this node is a member of cluster"), "{log}");
    }
}

#[test]
fn a_directory_that_is_none_or_holds_something_else() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("letter.txt"), "dear").expect("is written");
    let (code, log) = refused_with(folder.path(), &[]);
    assert_eq!(code, 78, "{log}");
    assert!(log.contains("is no data directory and not empty"), "{log}");

    for path in ["letter.txt", "letter.txt/below"] {
        let (code, log) = refused_with(&folder.path().join(path), &[]);
        assert_eq!(code, 74, "{log}");
        assert!(log.contains("cannot be used"), "{log}");
    }
}

#[test]
fn a_directory_of_another_cluster() {
    let mut old = Cluster::start(1, &["--partitions", "4"]);
    old.nodes[0].kill9();
    let other = Cluster::start(1, &["--partitions", "4"]);
    let (code, log) = refused_with(&old.nodes[0].data_dir(), &["--seeds", &other.nodes[0].ports.peer]);
    assert_eq!(code, 78, "{log}");
    assert!(log.contains("the data directory belongs to cluster"), "{log}");
}

#[test]
fn settings_that_cannot_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("node.toml");
    std::fs::write(&file, "[http]\nadr = \"127.0.0.1:0\"\n").expect("is written");
    let config = file.to_str().expect("is text");
    let data_dir = folder.path().join("data");
    for (extra, wanted) in [
        (["--config", config], "node.toml:2: http.adr"),
        (["--http", "0.0.0.0:0"], "others can reach"),
        (["--replication", "2"], "node.replication is 2"),
    ] {
        let (code, log) = refused_with(&data_dir, &extra);
        assert_eq!(code, 78, "{log}");
        assert!(log.contains(wanted), "{extra:?}: {log}");
    }
    assert!(!data_dir.exists(), "nothing was touched");
}

/// The opposite, so that the refusals above are about what they say.
#[test]
fn a_node_beyond_loopback_starts_with_insecure() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ports = Ports::free(1).remove(0);
    let port = ports.http.rsplit(':').next().expect("has a port").to_owned();
    ports.http = format!("0.0.0.0:{port}");
    let arguments = ["--insecure", "--advertise", "127.0.0.1", "--ephemeral", "--partitions", "4"];
    let mut node = Node::start(folder.path(), ports, &arguments.map(str::to_owned));
    node.ports.http = format!("127.0.0.1:{port}");
    node.wait_ready();
}
