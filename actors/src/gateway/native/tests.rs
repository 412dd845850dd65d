//! The native door over real sockets, in front of a map.

mod txn;

use super::input::HEADER_BYTES;
use super::*;
use crate::gateway::testing::{FakeDatabase, filled};
use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use trandb_cluster::command::Condition;
use trandb_cluster::limits::{CLIENT_FRAME_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use trandb_cluster::wire::{
    Hello, PROTOCOL, Request, RequestFrame, Response, ScanRequest, TraceContext, Welcome, decode, encode,
};
use trandb_cluster::{ErrorCode, NodeId, Timestamp};

struct Opened {
    addr: SocketAddr,
    database: FakeDatabase,
    shutdown: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

async fn open_with(options: GatewayOptions) -> Opened {
    let database = FakeDatabase::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback binds");
    let addr = listener.local_addr().expect("bound");
    let shutdown = CancellationToken::new();
    let backend = Arc::new(database.clone());
    let ended = tokio::spawn(serve(Box::new(listener), backend, options, shutdown.clone()));
    Opened { addr, database, shutdown, ended }
}

async fn open() -> Opened {
    open_with(GatewayOptions::default()).await
}

struct Client(TcpStream);

impl Client {
    async fn connect(addr: SocketAddr) -> Self {
        Self(TcpStream::connect(addr).await.expect("connects"))
    }

    /// Connects and is let in.
    async fn enter(addr: SocketAddr) -> Self {
        let mut client = Self::connect(addr).await;
        client.send(&Hello { protocol: PROTOCOL, client: "test".to_owned() }).await;
        let ServerFrame::Welcome(_) = client.receive().await else { panic!("not let in") };
        client
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("writes");
    }

    async fn send(&mut self, frame: &impl serde::Serialize) {
        self.write(&framed(&encode(frame))).await;
    }

    async fn ask(&mut self, id: u64, body: Request) {
        self.send(&RequestFrame { id, deadline_ms: 0, trace: None, body }).await;
    }

    async fn receive(&mut self) -> ServerFrame {
        tokio::time::timeout(Duration::from_secs(5), self.try_receive())
            .await
            .expect("in time")
            .expect("a frame")
    }

    /// None at the end of the stream.
    async fn try_receive(&mut self) -> Option<ServerFrame> {
        let length = match self.0.read_u32().await {
            Ok(length) => length as usize,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return None,
            Err(error) => panic!("{error}"),
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await.expect("a whole frame");
        Some(decode(&payload).expect("decodable"))
    }

    async fn answer(&mut self, id: u64) -> Result<Response, Error> {
        match self.receive().await {
            ServerFrame::Response { id: answered, result, .. } => {
                assert_eq!(answered, id);
                result
            }
            other => panic!("{other:?}"),
        }
    }

    /// The reason of a refusal, after which the stream ends.
    async fn refusal(&mut self) -> Error {
        let ServerFrame::Refused(error) = self.receive().await else { panic!("not refused") };
        assert_eq!(self.try_receive().await, None);
        error
    }
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

fn get(key: &'static str) -> Request {
    Request::Get { key: Bytes::from_static(key.as_bytes()), at: None, keyspace: None }
}

fn put(key: Bytes, value: Bytes, condition: Condition) -> Request {
    Request::Put { key, value, condition, keyspace: None }
}

#[tokio::test]
async fn every_request_is_answered() {
    let door = open().await;
    let mut client = Client::connect(door.addr).await;
    client.send(&Hello { protocol: PROTOCOL, client: String::new() }).await;
    let ServerFrame::Welcome(Welcome { protocol, node, in_flight_max, .. }) = client.receive().await else {
        panic!("not let in")
    };
    assert_eq!((protocol, node, in_flight_max), (PROTOCOL, NodeId(1), 1024));

    let key = Bytes::from_static(b"k");
    client.ask(1, get("k")).await;
    assert_eq!(client.answer(1).await, Ok(Response::Value(None)));
    client.ask(2, put(key.clone(), Bytes::from_static(b"v"), Condition::Absent)).await;
    let Ok(Response::Written { version, previous: None }) = client.answer(2).await else {
        panic!("not written")
    };
    client.ask(3, get("k")).await;
    let Ok(Response::Value(Some(found))) = client.answer(3).await else { panic!("not found") };
    assert_eq!((found.value, found.version), (Bytes::from_static(b"v"), version));
    client.ask(4, Request::Exists { key: key.clone(), keyspace: Some("default".to_owned()) }).await;
    assert_eq!(client.answer(4).await, Ok(Response::Exists(Some(version))));
    client.ask(5, put(key.clone(), Bytes::new(), Condition::Absent)).await;
    let error = client.answer(5).await.expect_err("present");
    assert_eq!(error, Error::condition_failed(format!("the key's version is {version}")));
    client.ask(6, Request::Scan(ScanRequest { limit: 10, ..ScanRequest::default() })).await;
    assert!(matches!(client.answer(6).await, Ok(Response::Page(page)) if page.entries.len() == 1));
    client.ask(7, Request::Delete { key, condition: Condition::Version(version), keyspace: None }).await;
    assert!(matches!(client.answer(7).await, Ok(Response::Written { previous: Some(_), .. })));
    client.ask(8, Request::Topology).await;
    assert!(matches!(client.answer(8).await, Ok(Response::Topology(_))));
    client.ask(9, Request::ClusterStatus).await;
    assert!(matches!(client.answer(9).await, Ok(Response::Cluster(view)) if view.nodes.len() == 1));
    client.ask(10, Request::Verify).await;
    assert!(matches!(client.answer(10).await, Ok(Response::Verified(_))));
    client.ask(11, Request::Ping).await;
    assert_eq!(client.answer(11).await, Ok(Response::Pong));
    client.ask(12, Request::Checkpoint).await;
    assert!(
        matches!(client.answer(12).await, Ok(Response::Checkpointed(report)) if report.replicas.len() == 2)
    );
}

#[tokio::test]
async fn bad_requests_are_answered_by_name_and_others_go_on() {
    let door = open().await;
    let mut client = Client::enter(door.addr).await;
    let value = Bytes::from_static(b"v");
    for (key, message) in [
        (Bytes::new(), "the key is empty"),
        (filled(KEY_BYTES_MAX + 1), "the key has 1025 bytes, the limit is 1024"),
        (Bytes::from_static(b"\xff"), "the key is not UTF-8 at byte 0"),
    ] {
        client.ask(1, put(key, value.clone(), Condition::Any)).await;
        assert_eq!(client.answer(1).await, Err(Error::invalid(message)));
    }
    let key = Bytes::from_static(b"k");
    client.ask(2, put(key.clone(), filled(VALUE_BYTES_MAX + 1), Condition::Any)).await;
    assert_eq!(client.answer(2).await.expect_err("over the limit").code, ErrorCode::TooLarge);
    client.ask(3, put(key.clone(), value.clone(), Condition::Version(Timestamp::ZERO))).await;
    assert_eq!(client.answer(3).await.expect_err("zero").code, ErrorCode::Invalid);
    client.ask(4, Request::Exists { key: key.clone(), keyspace: Some("nowhere".to_owned()) }).await;
    assert_eq!(client.answer(4).await.expect_err("no keyspace").code, ErrorCode::NotFound);
    #[derive(serde::Serialize)]
    struct FromTheFuture {
        id: u64,
        body: &'static str,
    }
    client.send(&FromTheFuture { id: 5, body: "Teleport" }).await;
    assert_eq!(client.answer(5).await.expect_err("unheard of").code, ErrorCode::Invalid);
    client.ask(6, put(filled(KEY_BYTES_MAX), filled(VALUE_BYTES_MAX), Condition::Any)).await;
    assert!(client.answer(6).await.is_ok());
    let key = String::from_utf8(filled(KEY_BYTES_MAX).to_vec()).expect("text");
    client.ask(7, get(key.leak())).await;
    assert!(
        matches!(client.answer(7).await, Ok(Response::Value(Some(found))) if found.value.len() == VALUE_BYTES_MAX)
    );
}

#[tokio::test]
async fn pipelined_requests_share_calls_and_all_come_back() {
    let door = open().await;
    let client = Client::enter(door.addr).await;
    let mut bytes = Vec::new();
    for id in 0..5_000 {
        let body = if id % 2 == 0 { get("k") } else { Request::Ping };
        bytes.extend(framed(&encode(&RequestFrame { id, deadline_ms: 0, trace: None, body })));
    }
    let (mut reader, mut writer) = client.0.into_split();
    let write = tokio::spawn(async move {
        writer.write_all(&bytes).await.expect("writes");
        writer
    });
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 5_000 {
        let length = reader.read_u32().await.expect("a frame") as usize;
        let mut payload = vec![0; length];
        reader.read_exact(&mut payload).await.expect("whole");
        let ServerFrame::Response { id, result: Ok(_), .. } = decode(&payload).expect("decodable") else {
            panic!("failed")
        };
        assert!(seen.insert(id), "{id} was answered twice");
    }
    let calls = *door.database.calls.borrow();
    assert!(calls < 500, "2500 gets took {calls} calls");
    drop(write.await);
}

#[tokio::test]
async fn reading_stops_at_the_bound_of_requests_in_flight() {
    let door = open_with(GatewayOptions { in_flight_max: 2, ..GatewayOptions::default() }).await;
    door.database.gate.send_replace(false);
    let mut client = Client::enter(door.addr).await;
    for id in 0..6 {
        client.ask(id, get("k")).await;
    }
    door.database.called(1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(*door.database.calls.borrow() <= 2, "{}", *door.database.calls.borrow());
    door.database.gate.send_replace(true);
    for _ in 0..6 {
        assert!(matches!(client.receive().await, ServerFrame::Response { result: Ok(_), .. }));
    }
}

#[tokio::test]
async fn traces_stay_with_their_request() {
    let door = open().await;
    let mut client = Client::enter(door.addr).await;
    let trace = Some(TraceContext { trace_id: 5, span_id: 6, sampled: true });
    client.send(&RequestFrame { id: 1, deadline_ms: 0, trace, body: get("k") }).await;
    assert!(client.answer(1).await.is_ok());
    assert_eq!(*door.database.last_trace.lock().expect("no panic"), trace);
}

#[tokio::test]
async fn faults_end_their_connection_with_a_reason_and_no_other() {
    let door = open().await;
    let mut bystander = Client::enter(door.addr).await;

    let mut client = Client::connect(door.addr).await;
    client.write(b"GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(
        client.refusal().await.to_string(),
        "too_large: a frame of 1195725856 bytes, the limit is 4096"
    );

    let mut client = Client::connect(door.addr).await;
    client.write(&framed(b"garbage")).await;
    assert_eq!(client.refusal().await.code, ErrorCode::Invalid);

    let mut client = Client::connect(door.addr).await;
    client.send(&Hello { protocol: 99, client: String::new() }).await;
    assert_eq!(
        client.refusal().await.to_string(),
        "invalid: protocol 99 is not spoken here, this node speaks 1"
    );

    let mut client = Client::enter(door.addr).await;
    client.ask(1, Request::Ping).await;
    client.write(&framed(b"\xc1garbage")).await;
    assert_eq!(client.answer(1).await, Ok(Response::Pong));
    assert_eq!(client.refusal().await.code, ErrorCode::Invalid);

    let mut client = Client::enter(door.addr).await;
    client.write(&u32::MAX.to_be_bytes()).await;
    assert_eq!(client.refusal().await.code, ErrorCode::TooLarge);

    let mut client = Client::enter(door.addr).await;
    client.write(&framed(&filled(100))[..50]).await;
    client.0.shutdown().await.expect("half-closes");
    assert_eq!(client.refusal().await.to_string(), "invalid: the stream ended within a frame");

    bystander.ask(1, Request::Ping).await;
    assert_eq!(bystander.answer(1).await, Ok(Response::Pong));
}

/// One end of a connection in memory, so that time can be paused, and its pump's task.
fn pumped(
    options: GatewayOptions,
) -> (tokio::io::DuplexStream, tokio::task::JoinHandle<Closed>, FakeDatabase) {
    let database = FakeDatabase::new();
    let native = Arc::new(Native::new(Arc::new(database.clone()), options));
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (order, close) = tokio::sync::oneshot::channel();
    let slot = crate::gateway::connection::Slots::new(1, metrics::Gauge::noop()).take().expect("free");
    let pump = pump::Pump::new(Connection { stream: Box::new(theirs), close, slot }, native);
    let task = tokio::spawn(async move {
        let _order = order;
        pump.run().await
    });
    (ours, task, database)
}

async fn hello(stream: &mut tokio::io::DuplexStream) {
    stream
        .write_all(&framed(&encode(&Hello { protocol: PROTOCOL, client: String::new() })))
        .await
        .expect("writes");
    let length = stream.read_u32().await.expect("a frame") as usize;
    stream.read_exact(&mut vec![0; length]).await.expect("a welcome");
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_refused_after_ten_seconds() {
    let started = tokio::time::Instant::now();
    let (stream, task, _) = pumped(GatewayOptions::default());
    let closed = task.await.expect("no panic");
    assert!(matches!(&closed, Closed::Fault(error) if error.message == "no hello within 10 s"), "{closed:?}");
    // Then it lingers, since the client neither reads nor closes.
    assert_eq!(started.elapsed().as_secs(), 12);
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn an_idle_client_may_stay_and_a_slow_one_may_not() {
    let (mut stream, task, _) = pumped(GatewayOptions::default());
    hello(&mut stream).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!task.is_finished());
    let started = tokio::time::Instant::now();
    for byte in framed(&filled(1000)) {
        if stream.write_all(&[byte]).await.is_err() || task.is_finished() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let closed = task.await.expect("no panic");
    assert!(
        matches!(&closed, Closed::Fault(error) if error.message == "a frame took over 30 s"),
        "{closed:?}"
    );
    assert!((30..=33).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_cut() {
    let (mut stream, task, database) = pumped(GatewayOptions::default());
    hello(&mut stream).await;
    let ping = framed(&encode(&RequestFrame { id: 1, deadline_ms: 0, trace: None, body: get("k") }));
    let mut sent = 0;
    while let Ok(Ok(())) = tokio::time::timeout(Duration::from_secs(1), stream.write_all(&ping)).await {
        sent += 1;
        assert!(sent < 100_000, "nothing pushes back");
    }
    let closed = task.await.expect("no panic");
    assert!(
        matches!(&closed, Closed::Io(error) if error.kind() == std::io::ErrorKind::TimedOut),
        "{closed:?}"
    );
    drop((stream, database));
}

#[tokio::test]
async fn a_panic_ends_its_connection_only() {
    let door = open_with(GatewayOptions { connections_max: 2, ..GatewayOptions::default() }).await;
    let mut bystander = Client::enter(door.addr).await;
    let mut client = Client::enter(door.addr).await;
    let key = Bytes::from_static(b"k");
    client.ask(1, Request::Exists { key, keyspace: Some("panic".to_owned()) }).await;
    assert_eq!(client.try_receive().await, None);
    bystander.ask(1, Request::Ping).await;
    assert_eq!(bystander.answer(1).await, Ok(Response::Pong));
    // Its place is free again.
    Client::enter(door.addr).await;
}

#[tokio::test]
async fn replies_that_were_held_back_come_when_the_client_reads() {
    let door = open().await;
    let mut client = Client::enter(door.addr).await;
    client.ask(0, put(Bytes::from_static(b"k"), filled(1 << 20), Condition::Any)).await;
    assert!(client.answer(0).await.is_ok());
    // Traced apart, so that each is a batch of its own.
    for id in 1..=40 {
        let trace = Some(TraceContext { trace_id: 1, span_id: id, sampled: false });
        client.send(&RequestFrame { id, deadline_ms: 0, trace, body: get("k") }).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    for _ in 1..=40 {
        let ServerFrame::Response { result: Ok(Response::Value(Some(found))), .. } = client.receive().await
        else {
            panic!("failed")
        };
        assert_eq!(found.value.len(), 1 << 20);
    }
}

#[tokio::test]
async fn large_frames_wait_for_their_budget_and_small_ones_do_not() {
    let door = open_with(GatewayOptions { large_bytes_max: 0, ..GatewayOptions::default() }).await;
    // Claims the whole budget and does not send the rest.
    let mut holder = Client::enter(door.addr).await;
    holder.write(&((CLIENT_FRAME_BYTES_MAX - HEADER_BYTES) as u32).to_be_bytes()).await;
    let mut client = Client::enter(door.addr).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let large = put(Bytes::from_static(b"k"), filled(100_000), Condition::Any);
    client.ask(1, large).await;
    let waits = tokio::time::timeout(Duration::from_millis(100), client.receive()).await;
    assert!(waits.is_err(), "{waits:?}");
    let mut other = Client::enter(door.addr).await;
    other.ask(1, get("k")).await;
    assert_eq!(other.answer(1).await, Ok(Response::Value(None)));
    drop(holder);
    assert!(client.answer(1).await.is_ok());
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let door = open_with(GatewayOptions { connections_max: 2, ..GatewayOptions::default() }).await;
    let first = Client::enter(door.addr).await;
    let _second = Client::enter(door.addr).await;
    let mut third = Client::connect(door.addr).await;
    third.send(&Hello { protocol: PROTOCOL, client: String::new() }).await;
    assert_eq!(third.refusal().await, Error::overloaded("connection limit of 2 reached"));
    drop(first);
    let entered = async {
        loop {
            let mut client = Client::connect(door.addr).await;
            client.send(&Hello { protocol: PROTOCOL, client: String::new() }).await;
            if let ServerFrame::Welcome(_) = client.receive().await {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), entered).await.expect("a place is free again");
}

#[tokio::test]
async fn stopping_answers_what_is_in_flight_and_tells_the_rest() {
    let door = open().await;
    let mut idle = Client::enter(door.addr).await;
    let mut busy = Client::enter(door.addr).await;
    door.database.gate.send_replace(false);
    busy.ask(1, get("k")).await;
    door.database.called(1).await;
    door.shutdown.cancel();
    assert_eq!(idle.refusal().await, Error::unavailable("the node is stopping"));
    assert!(!door.ended.is_finished());
    door.database.gate.send_replace(true);
    assert_eq!(busy.answer(1).await, Ok(Response::Value(None)));
    assert_eq!(busy.refusal().await, Error::unavailable("the node is stopping"));
    drop((idle, busy));
    tokio::time::timeout(Duration::from_secs(5), door.ended).await.expect("in time").expect("no panic");
    assert!(TcpStream::connect(door.addr).await.is_err(), "nobody listens");
}
