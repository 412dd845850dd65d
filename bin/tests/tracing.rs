//! One request, one trace: spans of the node that took it and of the node that did it, as a collector gets them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest that the export of a trace may take before another request is tried.
const EXPORT: Duration = Duration::from_secs(10);

/// A span as it was exported.
#[derive(Debug, Clone)]
struct Span {
    name: String,
    trace: String,
    id: String,
    parent: String,
    node: String,
}

/// Takes spans over HTTP, as a collector does.
#[derive(Clone)]
struct Collector {
    endpoint: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let collector = Self { endpoint, spans: Arc::default() };
        let spans = collector.spans.clone();
        in_background(move || {
            for stream in listener.incoming().flatten() {
                let spans = spans.clone();
                in_background(move || {
                    let mut reader = BufReader::new(stream);
                    while let Some((_, body)) = message(&mut reader) {
                        spans.lock().expect("no panic").extend(spans_in(&body));
                        let answered =
                            reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                        if answered.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        collector
    }

    fn trace(&self, id: &str) -> Vec<Span> {
        self.spans.lock().expect("no panic").iter().filter(|span| span.trace == id).cloned().collect()
    }
}

#[allow(clippy::disallowed_methods, reason = "the collector stands for another program")]
fn in_background(work: impl FnOnce() + Send + 'static) {
    std::thread::spawn(work);
}

#[allow(clippy::disallowed_methods, reason = "real processes run in real time")]
fn now() -> Instant {
    Instant::now()
}

fn wait_until<T>(what: &str, done: impl FnMut() -> Option<T>) -> T {
    wait_up_to(PATIENCE, done).unwrap_or_else(|| panic!("{what} has not happened"))
}

#[allow(clippy::disallowed_methods, reason = "real processes run in real time")]
fn wait_up_to<T>(patience: Duration, mut done: impl FnMut() -> Option<T>) -> Option<T> {
    let start = now();
    loop {
        if let Some(done) = done() {
            return Some(done);
        }
        if start.elapsed() >= patience {
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The first line and the body of an HTTP message; none when the stream has ended.
fn message(reader: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).ok().filter(|&bytes| bytes > 0)?;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((first, body))
}

/// The fields of a protobuf message that hold bytes, by number.
fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(message: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = message.split_first().expect("a whole number");
            *message = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let length = match tag & 7 {
            0 => {
                varint(&mut message);
                continue;
            }
            1 => 8,
            2 => varint(&mut message) as usize,
            _ => 4,
        };
        let (bytes, rest) = message.split_at(length);
        message = rest;
        if tag & 7 == 2 {
            found.push((tag >> 3, bytes));
        }
    }
    found
}

fn field(message: &[u8], number: u64) -> Option<Vec<u8>> {
    fields(message).into_iter().find_map(|(field, bytes)| (field == number).then(|| bytes.to_vec()))
}

/// The spans of an export request: resource spans, in them scope spans, in them spans.
fn spans_in(request: &[u8]) -> Vec<Span> {
    let mut messages = vec![request.to_vec()];
    for number in [1, 2, 2] {
        messages = messages
            .iter()
            .flat_map(|message| fields(message).into_iter().filter(move |(field, _)| *field == number))
            .map(|(_, bytes)| bytes.to_vec())
            .collect();
    }
    let hexadecimal = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap_or_default()).expect("text");
    messages
        .iter()
        .map(|span| Span {
            trace: hexadecimal(field(span, 1).unwrap_or_default()),
            id: hexadecimal(field(span, 2).unwrap_or_default()),
            parent: hexadecimal(field(span, 4).unwrap_or_default()),
            name: text(field(span, 5)),
            node: fields(span)
                .into_iter()
                .filter(|(number, _)| *number == 9)
                .find(|(_, attribute)| field(attribute, 1).as_deref() == Some(b"node"))
                .and_then(|(_, attribute)| field(&field(attribute, 2)?, 1))
                .map(|node| String::from_utf8(node).expect("text"))
                .unwrap_or_default(),
        })
        .collect()
}

/// A node that is killed when the test is over, however it ends.
struct Node {
    process: Child,
    http: String,
}

impl Drop for Node {
    fn drop(&mut self) {
        // One that has ended already needs no killing.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn start(dir: &std::path::Path, ports: [u16; 3], seeds: &str, collector: &Collector) -> Node {
    let [native, peer, http] = ports.map(|port| format!("127.0.0.1:{port}"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_trandb-node"));
    for (name, _) in std::env::vars() {
        if name.starts_with("TRANDB_") || name.starts_with("OTEL_") {
            command.env_remove(name);
        }
    }
    let process = command
        .args(["--native", &native, "--peer", &peer, "--http", &http, "--seeds", seeds, "--data-dir"])
        .arg(dir)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint)
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program runs");
    Node { process, http }
}

/// Ports that were free just now, all different.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("bound").port())
}

/// The status of one request, 0 if there is no answer.
fn ask(http: &str, method: &str, path: &str, traceparent: &str, body: &str) -> u16 {
    ask_for(http, method, path, traceparent, body).0
}

/// The same, and the body.
fn ask_for(http: &str, method: &str, path: &str, traceparent: &str, body: &str) -> (u16, String) {
    let try_it = || -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(http).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ntraceparent: {traceparent}\r\n\
             content-length: {length}\r\n\r\n{body}"
        )
        .ok()?;
        let (first, body) = message(&mut BufReader::new(stream))?;
        Some((first.split(' ').nth(1)?.parse().ok()?, String::from_utf8(body).ok()?))
    };
    try_it().unwrap_or_default()
}

/// Three nodes that send their spans to `collector`, all ready.
fn three(dir: &std::path::Path, collector: &Collector) -> Vec<Node> {
    let ports: [u16; 9] = free_ports();
    let seeds = format!("127.0.0.1:{},127.0.0.1:{},127.0.0.1:{}", ports[1], ports[4], ports[7]);
    let nodes: Vec<Node> = ports
        .chunks(3)
        .map(|ports| {
            let ports = [ports[0], ports[1], ports[2]];
            start(&dir.join(ports[0].to_string()), ports, &seeds, collector)
        })
        .collect();
    for node in &nodes {
        wait_until("a ready node", || (ask(&node.http, "GET", "/readyz", "-", "") == 200).then_some(()));
    }
    nodes
}

#[test]
fn a_request_is_one_trace_over_the_nodes_that_serve_it() {
    let collector = Collector::start();
    let dir = tempfile::tempdir().expect("a directory");
    let nodes = three(dir.path(), &collector);

    // Whoever leads the key's partition, two of the three nodes have to ask another one.
    let caller = "00f067aa0ba902b7";
    for (number, node) in nodes.iter().enumerate() {
        let requests =
            [(1, "PUT", "/keys/traced"), (2, "GET", "/keys/traced"), (3, "GET", "/keys?prefix=traced")];
        for (kind, method, path) in requests {
            let header = format!("00-{kind}{number:031x}-{caller}-01");
            // Again while a leader is being elected: a trace may then hold more than one request.
            wait_until("an answer", || (ask(&node.http, method, path, &header, "v") == 200).then_some(()));
        }
    }

    let mut crossings = BTreeSet::new();
    for number in 0..nodes.len() {
        for (kind, outer, inner) in [
            (1, "PUT /keys/{key}", "partition write"),
            (2, "GET /keys/{key}", "partition read"),
            (3, "GET /keys", "partition scan"),
        ] {
            let id = format!("{kind}{number:031x}");
            let wanted: BTreeSet<&str> =
                if kind == 1 { [outer, inner, "replicate"].into() } else { [outer, inner].into() };
            let spans = wait_until(&format!("the export of {outer} with {inner}"), || {
                let spans = collector.trace(&id);
                let names: BTreeSet<&str> = spans.iter().map(|span| span.name.as_str()).collect();
                let here = |id: &str| id == caller || spans.iter().any(|span| span.id == id);
                let whole = names.is_superset(&wanted) && spans.iter().all(|span| here(&span.parent));
                whole.then_some(spans)
            });
            let by_id: BTreeMap<&str, &Span> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
            for span in &spans {
                match span.name.as_str() {
                    "replicate" => assert_eq!(by_id[span.parent.as_str()].name, inner, "{spans:?}"),
                    name if name == inner => {
                        let request = by_id[span.parent.as_str()];
                        assert_eq!(request.name, outer, "{spans:?}");
                        assert!(!span.node.is_empty() && !request.node.is_empty(), "{spans:?}");
                        if span.node != request.node {
                            crossings.insert((kind, request.node.clone()));
                        }
                    }
                    _ => assert_eq!((span.name.as_str(), span.parent.as_str()), (outer, caller), "{spans:?}"),
                }
            }
        }
    }
    for kind in 1..=3 {
        let crossed = crossings.iter().filter(|(crossed, _)| *crossed == kind).count();
        assert!(crossed >= 2, "traces of kind {kind} that go to another node: {crossings:?}");
    }
}

/// The phases of a transaction, each with the span that it is a part of.
const PHASES: &[(&str, &str)] = &[
    ("txn begin", "POST /batch"),
    ("txn prepare", "POST /batch"),
    ("partition prepare", "txn prepare"),
    ("txn decide", "POST /batch"),
    ("partition decide", "txn decide"),
    ("txn resolve", "POST /batch"),
    ("partition resolve", "txn resolve"),
    ("partition finish", "txn resolve"),
];

#[test]
fn each_phase_of_a_transaction_is_a_span_of_its_request() {
    let collector = Collector::start();
    let dir = tempfile::tempdir().expect("a directory");
    let nodes = three(dir.path(), &collector);
    let caller = "00f067aa0ba902b7";
    wait_until("leaders on all nodes", || {
        let (_, body) = ask_for(&nodes[0].http, "GET", "/admin/cluster", "-", "");
        let view: serde_json::Value = serde_json::from_str(&body).ok()?;
        // The system group, whose first token is none, has no part in it.
        let data = view["partitions"].as_array()?.iter().filter(|partition| partition["start"] != "");
        let leaders: BTreeSet<String> = data.map(|partition| partition["leader"].to_string()).collect();
        (leaders.len() == 3 && !leaders.contains("null")).then_some(())
    });
    let ops: Vec<String> =
        (0..32).map(|key| format!(r#"{{"op":"put","key":"phases/{key}","value":"v"}}"#)).collect();
    let batch = format!("{{\"ops\":[{}]}}", ops.join(","));
    let header = |id: &str| format!("00-{id}-{caller}-01");

    let has = |spans: &[Span], name: &str, parent: &str| {
        spans.iter().any(|span| {
            span.name == name && spans.iter().any(|above| above.id == span.parent && above.name == parent)
        })
    };
    // One trace of one batch over all partitions, so over all nodes, each of which exports by itself. Again while a leader is being
    // elected, and should leadership have moved, so that a node had no part in it.
    let mut number = 0;
    let spans = wait_until("the export of all phases by all nodes", || {
        number += 1;
        let id = format!("4{number:031x}");
        if ask(&nodes[0].http, "POST", "/batch", &header(&id), &batch) != 200 {
            return None;
        }
        wait_up_to(EXPORT, || {
            let spans = collector.trace(&id);
            // The anchor prepares nothing, and may be all that its node leads.
            let partitions = spans.iter().filter(|span| span.name.starts_with("partition "));
            let leading = partitions.map(|span| &span.node).collect::<BTreeSet<_>>().len();
            (leading == 3 && PHASES.iter().all(|(name, parent)| has(&spans, name, parent))).then_some(spans)
        })
    });
    for (name, parent) in PHASES {
        for span in spans.iter().filter(|span| span.name == *name) {
            let above = spans.iter().find(|above| above.id == span.parent);
            assert_eq!(above.map(|above| above.name.as_str()), Some(*parent), "{span:?}");
        }
    }
    assert!(has(&spans, "replicate", "partition prepare"), "{spans:?}");

    // A lock that is waited for, and a commit in one partition, each asked for through another node.
    let (begun, lock, commit) = (format!("5{:031x}", 1), format!("6{:031x}", 1), format!("7{:031x}", 1));
    let txn = wait_until("an open transaction", || {
        let (status, body) = ask_for(&nodes[1].http, "POST", "/txn", &header(&begun), "");
        let id = body.split('"').skip_while(|part| *part != "id").nth(2).map(str::to_owned);
        id.filter(|_| status == 201)
    });
    let path = format!("/txn/{txn}/keys/locked");
    wait_until("the lock", || {
        let status = ask(&nodes[2].http, "POST", &format!("{path}/lock"), &header(&lock), "");
        (status == 204).then_some(())
    });
    assert_eq!(ask(&nodes[0].http, "PUT", &path, "-", "v"), 200);
    let answer = ask_for(&nodes[2].http, "POST", &format!("/txn/{txn}/commit"), &header(&commit), "");
    assert_eq!(answer.0, 200, "{}", answer.1);
    for (id, name, parent) in [
        (&begun, "txn begin", "POST /txn"),
        (&lock, "txn lock wait", "/txn/{id}/keys"),
        (&commit, "txn commit", "POST /txn/{id}/commit"),
        (&commit, "partition commit", "txn commit"),
    ] {
        wait_until(&format!("the export of {name} within {parent}"), || {
            has(&collector.trace(id), name, parent).then_some(())
        });
    }
}
