//! The HTTP door over real sockets, in front of a map.

use super::*;
use crate::gateway::testing::{FakeDatabase, filled};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use trandb_cluster::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

mod txn;

struct Door {
    addr: SocketAddr,
    database: FakeDatabase,
    shutdown: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

async fn open_with(gateway: GatewayOptions) -> Door {
    let database = FakeDatabase::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback binds");
    let addr = listener.local_addr().expect("bound");
    let shutdown = CancellationToken::new();
    let options = HttpOptions {
        gateway,
        metrics: Arc::new(|| "trandb_up 1\n".to_owned()),
        version: "1.2.3".to_owned(),
        commit: "abc".to_owned(),
    };
    let backend = Arc::new(database.clone());
    let ended = tokio::spawn(serve(Box::new(listener), backend, options, shutdown.clone()));
    Door { addr, database, shutdown, ended }
}

async fn open() -> Door {
    open_with(GatewayOptions::default()).await
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The problem's code, and that it is a whole problem.
    fn problem(&self) -> String {
        let json = self.json();
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(json["status"], self.status);
        assert_eq!(json["request_id"], self.headers["x-request-id"]);
        for member in ["type", "title", "detail", "retryable"] {
            assert!(json.get(member).is_some(), "{member}: {json}");
        }
        json["code"].as_str().expect("text").to_owned()
    }
}

/// Sends raw bytes on a connection of their own and reads until the node closes it.
async fn raw(addr: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).await.expect("connects");
    // The node may have said enough before it has read everything.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(15), read).await.expect("closed in time").expect("not reset");
    answer
}

fn parse(answer: &[u8]) -> Answer {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    let head = std::str::from_utf8(&answer[..end]).expect("text");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    Answer { status: status.expect("a status"), headers, body: answer[end + 4..].to_vec() }
}

async fn send(door: &Door, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    parse(&raw(door.addr, &[request.as_bytes(), body].concat()).await)
}

async fn get(door: &Door, path: &str) -> Answer {
    send(door, "GET", path, &[], b"").await
}

#[tokio::test]
async fn a_key_is_written_read_and_removed() {
    let door = open().await;
    let put = send(&door, "PUT", "/keys/a%2Fb", &[], b"\x00\xffvalue").await;
    assert_eq!(put.status, 200);
    let etag = put.headers["etag"].clone();
    assert_eq!(etag, format!("\"{}\"", put.json()["version"].as_str().expect("text")));

    let answer = get(&door, "/keys/a/b").await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"\x00\xffvalue"[..]));
    assert_eq!(answer.headers["etag"], etag);
    assert_eq!(answer.headers["content-type"], "application/octet-stream");

    let head = send(&door, "HEAD", "/keys/a/b", &[], b"").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.headers["etag"], etag);
    assert_ne!(head.headers.get("content-length").map(String::as_str), Some("0"), "the value is not empty");

    let same = send(&door, "GET", "/keys/a/b", &[("if-none-match", &etag)], b"").await;
    assert_eq!((same.status, same.body.len()), (304, 0));

    assert_eq!(send(&door, "DELETE", "/keys/a/b", &[], b"").await.status, 204);
    assert_eq!(send(&door, "DELETE", "/keys/a/b", &[], b"").await.status, 204);
    let gone = get(&door, "/keys/a/b").await;
    assert_eq!((gone.status, gone.problem()), (404, "not_found".to_owned()));
    let gone = send(&door, "HEAD", "/keys/a/b", &[], b"").await;
    assert_eq!((gone.status, gone.body.len()), (404, 0));
}

#[tokio::test]
async fn conditions_are_kept() {
    let door = open().await;
    let absent = [("if-none-match", "*")];
    let created = send(&door, "PUT", "/keys/k", &absent, b"1").await;
    assert_eq!(created.status, 200);
    let lost = send(&door, "PUT", "/keys/k", &absent, b"2").await;
    assert_eq!((lost.status, lost.problem()), (412, "condition_failed".to_owned()));
    assert_eq!(lost.headers["etag"], created.headers["etag"]);

    let stale = [("if-match", "\"1\"")];
    assert_eq!(send(&door, "PUT", "/keys/k", &stale, b"2").await.status, 412);
    assert_eq!(send(&door, "DELETE", "/keys/k", &stale, b"").await.status, 412);
    let current = [("if-match", created.headers["etag"].as_str())];
    assert_eq!(send(&door, "PUT", "/keys/k", &current, b"2").await.status, 200);
    assert_eq!(get(&door, "/keys/k").await.body, b"2");
    assert_eq!(send(&door, "DELETE", "/keys/absent", &[("if-match", "*")], b"").await.status, 412);
    assert_eq!(send(&door, "PUT", "/keys/k", &[("if-match", "nonsense")], b"3").await.status, 400);
}

#[tokio::test]
async fn sizes_are_exact() {
    let door = open().await;
    let longest = format!("/keys/{}", "k".repeat(KEY_BYTES_MAX));
    assert_eq!(send(&door, "PUT", &longest, &[], b"v").await.status, 200);
    for (path, detail) in [
        (format!("{longest}k"), "the key has 1025 bytes, the limit is 1024"),
        ("/keys/".to_owned(), "the key is empty"),
        ("/keys/%ff".to_owned(), "the key is not UTF-8 at byte 0"),
        ("/keys/a%2".to_owned(), "the key has a bad percent-encoding at byte 1"),
    ] {
        for (method, body) in [("GET", &b""[..]), ("PUT", b"v"), ("DELETE", b"")] {
            let answer = send(&door, method, &path, &[], body).await;
            assert_eq!((answer.status, answer.problem()), (400, "invalid".to_owned()), "{method} {path}");
            assert_eq!(answer.json()["detail"], detail);
        }
    }

    let largest = filled(VALUE_BYTES_MAX);
    assert_eq!(send(&door, "PUT", "/keys/large", &[], &largest).await.status, 200);
    assert_eq!(get(&door, "/keys/large").await.body, largest);
    let answer = send(&door, "PUT", "/keys/large", &[], &filled(VALUE_BYTES_MAX + 1)).await;
    assert_eq!((answer.status, answer.problem()), (413, "too_large".to_owned()));
}

#[tokio::test]
async fn a_length_over_the_limit_is_refused_without_the_body() {
    let door = open().await;
    let head = "PUT /keys/k HTTP/1.1\r\nhost: test\r\ncontent-length: 4194305\r\n\r\n";
    let answer = parse(&raw(door.addr, head.as_bytes()).await);
    assert_eq!((answer.status, answer.problem()), (413, "too_large".to_owned()));
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let mut request =
        b"PUT /keys/k HTTP/1.1\r\nhost: test\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
            .to_vec();
    for chunk in body.chunks(100_000) {
        request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    request
}

#[tokio::test]
async fn chunked_bodies_have_the_same_limit() {
    let door = open().await;
    let largest = filled(VALUE_BYTES_MAX);
    assert_eq!(parse(&raw(door.addr, &chunked(&largest)).await).status, 200);
    assert_eq!(get(&door, "/keys/k").await.body, largest);
    let answer = parse(&raw(door.addr, &chunked(&filled(VALUE_BYTES_MAX + 1))).await);
    assert_eq!((answer.status, answer.problem()), (413, "too_large".to_owned()));
}

#[tokio::test]
async fn pages_follow_their_cursor() {
    let door = open().await;
    for key in ["a1", "a2", "a3", "b1"] {
        assert_eq!(send(&door, "PUT", &format!("/keys/{key}"), &[], b"v").await.status, 200);
    }
    let first = get(&door, "/keys?prefix=a&limit=2").await.json();
    let keys = |page: &Value| -> Vec<String> {
        let entries = page["entries"].as_array().expect("entries");
        entries.iter().map(|entry| entry["key"].as_str().expect("text").to_owned()).collect()
    };
    assert_eq!(keys(&first), ["a1", "a2"]);
    let cursor = first["cursor"].as_str().expect("more");
    let second = get(&door, &format!("/keys?prefix=a&limit=2&cursor={cursor}")).await.json();
    assert_eq!(keys(&second), ["a3"]);
    assert_eq!(second["cursor"], Value::Null);
    for (path, detail) in [
        ("/keys?limit=0", "query parameter \"limit\" is 0, not a number from 1 to 10000"),
        ("/keys?limit=10001", "query parameter \"limit\" is 10001, not a number from 1 to 10000"),
        ("/keys?cursor=%21", "query parameter \"cursor\" is none that was given out"),
        ("/keys/k?tll=3", "unknown query parameter \"tll\"; known here: at, keyspace"),
        ("/healthz?x=", "unknown query parameter \"x\"; known here: none"),
    ] {
        let answer = get(&door, path).await;
        assert_eq!((answer.status, answer.problem()), (400, "invalid".to_owned()), "{path}");
        assert_eq!(answer.json()["detail"], detail);
    }
    let ttl = send(&door, "PUT", "/keys/k?ttl=5", &[], b"v").await;
    assert_eq!(ttl.json()["detail"], "ttl is not supported yet");
}

#[tokio::test]
async fn keyspaces_are_apart() {
    let door = open().await;
    assert_eq!(send(&door, "PUT", "/keys/k?keyspace=other", &[], b"v").await.status, 200);
    assert_eq!(get(&door, "/keys/k").await.status, 404);
    assert_eq!(send(&door, "GET", "/keys/k", &[("x-trandb-keyspace", "other")], b"").await.status, 200);
    assert_eq!(get(&door, "/keys/k?keyspace=nowhere").await.problem(), "not_found");
    let both = send(&door, "GET", "/keys/k?keyspace=other", &[("x-trandb-keyspace", "default")], b"").await;
    assert_eq!(both.status, 400);
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_are_problems() {
    let door = open().await;
    let answer = get(&door, "/nowhere").await;
    assert_eq!((answer.status, answer.problem()), (404, "not_found".to_owned()));
    let answer = send(&door, "POST", "/keys/k", &[], b"").await;
    assert_eq!((answer.status, answer.problem()), (405, "invalid".to_owned()));
    let allowed: BTreeSet<&str> = answer.headers["allow"].split(',').map(str::trim).collect();
    assert_eq!(allowed, BTreeSet::from(["GET", "HEAD", "PUT", "DELETE"]));
}

#[tokio::test]
async fn failures_say_when_to_try_again() {
    let door = open().await;
    let set = |error| *door.database.failure.lock().expect("no panic") = Some(error);
    set(Error::unavailable("partition p3 has no leader"));
    let answer = get(&door, "/keys/k").await;
    assert_eq!((answer.status, answer.problem()), (503, "unavailable".to_owned()));
    assert_eq!(answer.headers["retry-after"], "1");
    let answer = get(&door, "/readyz").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["reasons"][0], "partition p3 has no leader");
    set(Error::overloaded("full"));
    let answer = get(&door, "/keys/k").await;
    assert_eq!((answer.status, answer.headers["retry-after"].as_str()), (429, "1"));
    set(Error::unknown("no answer"));
    assert_eq!(send(&door, "PUT", "/keys/k", &[], b"v").await.status, 504);
}

#[tokio::test]
async fn requests_have_ids_and_traces() {
    let door = open().await;
    let first = get(&door, "/healthz").await.headers["x-request-id"].clone();
    let second = get(&door, "/healthz").await.headers["x-request-id"].clone();
    assert!(first.starts_with("n1-") && first != second, "{first} {second}");
    let headers = [
        ("x-request-id", "mine-7"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ];
    let answer = send(&door, "GET", "/keys/k", &headers, b"").await;
    assert_eq!(answer.headers["x-request-id"], "mine-7");
    assert_eq!(answer.json()["request_id"], "mine-7");
    let trace = door.database.last_trace.lock().expect("no panic").expect("passed on");
    assert_eq!(trace.span_id, 0x00f0_67aa_0ba9_02b7);
    let answer = send(&door, "GET", "/healthz", &[("x-request-id", "two words")], b"").await;
    assert!(answer.headers["x-request-id"].starts_with("n1-"));
}

#[tokio::test]
async fn operators_are_answered() {
    let door = open().await;
    assert_eq!(get(&door, "/healthz").await.json()["status"], "ok");
    assert_eq!(get(&door, "/readyz").await.json()["ready"], true);
    assert_eq!(get(&door, "/metrics").await.body, b"trandb_up 1\n");
    assert_eq!(get(&door, "/version").await.json(), serde_json::json!({"version": "1.2.3", "commit": "abc"}));
    let cluster = get(&door, "/admin/cluster").await.json();
    assert_eq!(cluster["cluster_id"], "0000000000000000000000000000000a");
    assert_eq!(cluster["nodes"][0]["id"], 1);
    let verified = get(&door, "/admin/verify").await.json();
    assert_eq!(
        verified["partitions"][0]["replicas"],
        serde_json::json!([{"node": 1, "digest": "00ff"}, {"node": 2, "error": "down"}])
    );
}

#[tokio::test]
async fn checkpoints_are_asked_for_and_not_read() {
    let door = open().await;
    let report = send(&door, "POST", "/admin/checkpoint", &[], b"").await.json();
    assert_eq!(
        report,
        serde_json::json!({"complete": false, "replicas": [
            {"partition": 1, "node": 1, "index": 7}, {"partition": 1, "node": 2, "error": "down"}
        ]})
    );
    assert_eq!(get(&door, "/admin/checkpoint").await.status, 405);
}

#[tokio::test]
async fn the_document_names_every_route_and_no_other() {
    let door = open().await;
    let document = get(&door, "/openapi.json").await.json();
    let paths = document["paths"].as_object().expect("paths");
    let documented: BTreeSet<String> = paths.keys().cloned().collect();
    let routes = routes::documented();
    assert_eq!(documented, routes.iter().copied().flatten().map(|path| (*path).to_owned()).collect());
    for route in routes {
        let answer = send(&door, "PATCH", &route[0].replace("{key}", "k"), &[], b"").await;
        assert_eq!(answer.status, 405, "{route:?}");
        let allowed: BTreeSet<String> =
            answer.headers["allow"].split(',').map(|method| method.trim().to_lowercase()).collect();
        let operations = route.iter().flat_map(|path| paths[*path].as_object().expect("operations").keys());
        let mut documented: BTreeSet<String> =
            operations.filter(|key| *key != "parameters").cloned().collect();
        if documented.contains("get") {
            // The router answers HEAD wherever it answers GET.
            documented.insert("head".to_owned());
        }
        assert_eq!(allowed, documented, "{route:?}");
    }
    for (path, known) in
        [("/keys", &scan::PARAMETERS[..]), ("/txn/{id}/keys", &super::txn::keys::SCAN_PARAMETERS)]
    {
        let scan = paths[path]["get"]["parameters"].as_array().expect("parameters");
        let named: BTreeSet<&str> = scan
            .iter()
            .filter_map(|parameter| match parameter["$ref"].as_str() {
                Some("#/components/parameters/At") => Some("at"),
                Some("#/components/parameters/Keyspace") => Some("keyspace"),
                Some(_) => None,
                None => parameter["name"].as_str(),
            })
            .collect();
        assert_eq!(named, known.iter().copied().collect(), "{path}");
    }
    let mut refs = Vec::new();
    references(&document, &mut refs);
    for reference in refs {
        let pointer = reference.strip_prefix('#').expect("within the document");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn garbage_and_cut_requests_end_their_connection_only() {
    let door = open().await;
    let answer = raw(door.addr, b"\x16\x03\x01\x02\x00 not http\r\n\r\n").await;
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", answer.escape_ascii());
    let long = format!("GET /keys/{} HTTP/1.1\r\n\r\n", "k".repeat(100_000));
    let answer = raw(door.addr, long.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 4"), "{}", answer.escape_ascii());
    let mut cut = TcpStream::connect(door.addr).await.expect("connects");
    cut.write_all(b"PUT /keys/k HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\nhalf")
        .await
        .expect("writes");
    drop(cut);
    assert_eq!(get(&door, "/healthz").await.status, 200);
    assert_eq!(get(&door, "/keys/k").await.status, 404, "half a body is no value");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let door = open_with(GatewayOptions { connections_max: 1, ..GatewayOptions::default() }).await;
    let mut first = TcpStream::connect(door.addr).await.expect("connects");
    first.write_all(b"GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n").await.expect("writes");
    let mut byte = [0];
    first.read_exact(&mut byte).await.expect("served");
    let answer = parse(&raw(door.addr, b"GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n").await);
    assert_eq!((answer.status, answer.problem()), (429, "overloaded".to_owned()));
    assert_eq!(answer.json()["detail"], "connection limit of 1 reached");
}

#[tokio::test]
async fn stopping_answers_what_is_in_flight() {
    let door = open().await;
    door.database.gate.send_replace(false);
    let mut idle = TcpStream::connect(door.addr).await.expect("connects");
    let mut busy = TcpStream::connect(door.addr).await.expect("connects");
    busy.write_all(b"GET /keys/k HTTP/1.1\r\nhost: t\r\n\r\n").await.expect("writes");
    door.database.called(1).await;
    door.shutdown.cancel();
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(5), idle.read_to_end(&mut rest)).await;
    closed.expect("closed at once").expect("not reset");
    assert!(!door.ended.is_finished());
    door.database.gate.send_replace(true);
    busy.read_to_end(&mut rest).await.expect("answered");
    assert_eq!(parse(&rest).status, 404);
    tokio::time::timeout(Duration::from_secs(5), door.ended).await.expect("in time").expect("no panic");
    assert!(TcpStream::connect(door.addr).await.is_err(), "nobody listens");
}

#[tokio::test]
async fn stopping_cuts_what_does_not_end() {
    let door = open_with(GatewayOptions { drain_ms: 50, ..GatewayOptions::default() }).await;
    door.database.gate.send_replace(false);
    let mut busy = TcpStream::connect(door.addr).await.expect("connects");
    busy.write_all(b"GET /keys/k HTTP/1.1\r\nhost: t\r\n\r\n").await.expect("writes");
    door.database.called(1).await;
    door.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), door.ended).await.expect("in time").expect("no panic");
    let mut rest = Vec::new();
    let _ = busy.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "{}", rest.escape_ascii());
}

/// One end of a connection in memory, so that time can be paused, and its server's task.
fn served() -> (tokio::io::DuplexStream, tokio::task::JoinHandle<Closed>) {
    let options = HttpOptions {
        gateway: GatewayOptions::default(),
        metrics: Arc::new(String::new),
        version: String::new(),
        commit: String::new(),
    };
    let http = Arc::new(Http::new(Arc::new(FakeDatabase::new()), options));
    let router = routes::router(Arc::clone(&http));
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (order, close) = tokio::sync::oneshot::channel();
    let slot = crate::gateway::connection::Slots::new(1, ::metrics::Gauge::noop()).take().expect("free");
    let task = tokio::spawn(async move {
        let _order = order;
        server::serve(Connection { stream: Box::new(theirs), close, slot }, http, router).await
    });
    (ours, task)
}

/// Reads one response without a body of its own length; enough for `/healthz`.
async fn read_some(stream: &mut tokio::io::DuplexStream) -> String {
    let mut bytes = vec![0; 4096];
    let read = stream.read(&mut bytes).await.expect("reads");
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

#[tokio::test(start_paused = true)]
async fn an_idle_client_may_stay_and_a_slow_head_may_not() {
    let (mut stream, task) = served();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: t\r\n").await.expect("writes");
        tokio::time::sleep(Duration::from_secs(5)).await;
        stream.write_all(b"\r\n").await.expect("writes");
        assert!(read_some(&mut stream).await.starts_with("HTTP/1.1 200"));
    }
    let started = Instant::now();
    stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.expect("writes");
    assert!(read_some(&mut stream).await.starts_with("HTTP/1.1 408"));
    assert_eq!(started.elapsed().as_secs(), 10);
    drop(stream);
    let closed = task.await.expect("no panic");
    assert!(
        matches!(&closed, Closed::Fault(error) if error.message == "the head took over 10 s"),
        "{closed:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn time_to_answer_begins_when_the_body_is_there() {
    let (mut stream, _task) = served();
    stream.write_all(b"PUT /keys/k HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\n1").await.expect("writes");
    tokio::time::sleep(Duration::from_secs(20)).await;
    stream.write_all(b"2").await.expect("writes");
    assert!(read_some(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_a_timeout() {
    let (mut stream, task) = served();
    let started = Instant::now();
    stream
        .write_all(b"PUT /keys/k HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\nhalf")
        .await
        .expect("writes");
    assert!(read_some(&mut stream).await.starts_with("HTTP/1.1 408"));
    assert_eq!(started.elapsed().as_secs(), 30);
    drop(stream);
    task.await.expect("no panic");
}
