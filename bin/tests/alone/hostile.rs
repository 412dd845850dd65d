//! Bytes that no client of ours sends, on every port of a node that goes on serving.

use crate::harness::{Cluster, Node, eventually};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// Longer than any patience of the node with a silent stranger.
const STALL_MAX: Duration = Duration::from_secs(40);

fn connect(addr: &str) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("the node listens");
    stream.set_read_timeout(Some(STALL_MAX)).expect("is supported");
    stream
}

/// Sends bytes and no more, and waits until the node has closed the connection; what it said.
fn told(addr: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(addr);
    // The node may close before all is sent.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut said = Vec::new();
    // A reset is a way of closing.
    let _ = stream.read_to_end(&mut said);
    said
}

/// Sends a byte now and then, until the node has had enough.
fn dribble(addr: &str, bytes: &[u8]) {
    let mut stream = connect(addr);
    stream.set_read_timeout(Some(Duration::from_millis(500))).expect("is supported");
    let until = std::time::Instant::now() + STALL_MAX;
    let mut bytes = bytes.iter().cycle();
    while std::time::Instant::now() < until {
        if stream.write_all(&[*bytes.next().expect("is endless")]).is_err() {
            return;
        }
        match stream.read(&mut [0; 256]) {
            Ok(0) => return,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Ok(_) | Err(_) => {}
        }
    }
    panic!("{addr} is patient with a slow sender for {STALL_MAX:?}");
}

fn still_serves(node: &Node) {
    assert_eq!(node.http("PUT", "/keys/k", &[], b"v").status, 200);
    let found = node.client().get("k").expect("is read").expect("was written");
    assert_eq!(found.value, &b"v"[..]);
}

#[test]
fn strangers_are_refused_with_a_logged_reason_and_others_go_on() {
    let cluster = Cluster::start(1, &["--partitions", "4"]);
    let node = &cluster.nodes[0];
    // Open before, and still there after all of it.
    let client = node.client();
    client.put("before", "v").expect("is written");

    let native = &node.ports.native;
    let claim = u32::MAX.to_be_bytes();
    told(native, b"GET / HTTP/1.1\r\n\r\n");
    node.wait_logged("too_large: a frame of 1195725856 bytes");
    told(native, &claim);
    node.wait_logged("too_large: a frame of 4294967295 bytes");
    told(native, &[0, 0, 0, 9, 1, 2, 3]);
    node.wait_logged("the stream ended within a frame");
    told(native, &[0, 0, 0, 4, 0xc1, 0xc1, 0xc1, 0xc1]);
    node.wait_logged("not a hello");

    let peer = &node.ports.peer;
    told(peer, b"GET / HTTP/1.1\r\n\r\n");
    node.wait_logged("not a trandb peer: wrong first bytes");
    told(peer, b"");
    node.wait_logged("closed during the handshake");

    let http = &node.ports.http;
    let said = told(http, &[0, 1, 2, 3, 4, 5, 6, 7, b'\r', b'\n', b'\r', b'\n']);
    assert!(said.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&said));
    node.wait_logged("not HTTP");
    told(http, b"PUT /keys/k HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc");
    let said = told(http, b"PUT /keys/k HTTP/1.1\r\nhost: x\r\ncontent-length: 4294967296\r\n\r\n");
    assert!(said.starts_with(b"HTTP/1.1 413 "), "{}", String::from_utf8_lossy(&said));
    assert_eq!(node.http("GET", "/keys/k", &[], b"").status, 404, "half a value is none");

    still_serves(node);
    assert!(client.get("before").expect("is read").is_some());
}

#[test]
fn slow_senders_are_cut_off() {
    let cluster = Cluster::start(1, &["--partitions", "4"]);
    let node = &cluster.nodes[0];
    std::thread::scope(|scope| {
        scope.spawn(|| dribble(&node.ports.native, &[0]));
        scope.spawn(|| dribble(&node.ports.peer, b"TRAN"));
        scope.spawn(|| dribble(&node.ports.http, b"GET /keys/a"));
        for _ in 0..20 {
            still_serves(node);
        }
    });
    node.wait_logged("the head took over 10 s");
    still_serves(node);
}

#[test]
fn connections_over_the_limit_are_told_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("node.toml");
    std::fs::write(&config, "[limits]\nconnections = 2\n").expect("is written");
    let cluster = Cluster::start(1, &["--partitions", "4", "--config", config.to_str().expect("is text")]);
    let node = &cluster.nodes[0];
    for (addr, wanted) in [(&node.ports.native, ""), (&node.ports.http, "HTTP/1.1 429 ")] {
        // Those of the harness that are still closing count, so it may take a moment until the two are in.
        let held = eventually("two connections", || {
            let held = [connect(addr), connect(addr)];
            let refused = held.iter().any(|stream| {
                stream.set_read_timeout(Some(Duration::from_millis(300))).expect("is supported");
                (&*stream).read(&mut [0; 1]).is_ok()
            });
            if refused { Err("refused") } else { Ok(held) }
        });
        let said = String::from_utf8_lossy(&told(addr, b"")).into_owned();
        assert!(said.starts_with(wanted) && said.contains("connection limit of 2 reached"), "{addr}: {said}");
        drop(held);
    }
    node.wait_logged_times("connection over the limit refused", 2);
    eventually("room again", || {
        match crate::harness::request(&node.ports.http, "PUT", "/keys/k", &[], b"v") {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(answer.text()),
            Err(error) => Err(error.to_string()),
        }
    });
}
