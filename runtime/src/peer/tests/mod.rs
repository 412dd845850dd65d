//! Hubs of several nodes in one process, over real TCP on loopback.

mod calls;
mod links;
mod memnet;
mod strangers;

use super::{Answer, Ask, AskHandler, PeerHub, PeerOptions, PeerState, Reverted};
use crate::net::{Listener, Net, RealNet};
use crate::random::Random;
use crate::rpc::{Reply, RpcError};
use crate::wal::Durable;
use crate::wire_message;
use memnet::MemNet;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use trandb_cluster::ids::{ClusterId, InstanceId, NodeId};

/// Long enough for anything that must happen, on a machine however busy.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Serialize, Deserialize)]
enum Request {
    Echo(#[serde(with = "serde_bytes")] Vec<u8>),
    Length(#[serde(with = "serde_bytes")] Vec<u8>),
    Make(usize),
    Drop,
    Hold,
    Order(u64),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Response {
    Bytes(#[serde(with = "serde_bytes")] Vec<u8>),
    Number(u64),
}

#[derive(Debug)]
enum Message {
    Do(Request, Reply<Response>),
}

wire_message! { Message { call Do(Request); } }

/// Does what requests say. Counts those held, and checks that ordered ones come in order.
struct Worker;

#[derive(Default)]
struct WorkerState {
    held: Vec<Reply<Response>>,
    last: u64,
}

impl Actor for Worker {
    type Msg = Message;
    type State = WorkerState;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Message>, (): ()) -> Result<WorkerState, ActorProcessingErr> {
        Ok(WorkerState::default())
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        Message::Do(request, reply): Message,
        state: &mut WorkerState,
    ) -> Result<(), ActorProcessingErr> {
        match request {
            Request::Echo(bytes) => reply.send(Response::Bytes(bytes)),
            Request::Length(bytes) => reply.send(Response::Number(bytes.len() as u64)),
            Request::Make(bytes) => reply.send(Response::Bytes(vec![7; bytes])),
            Request::Drop => drop(reply),
            Request::Hold => state.held.push(reply),
            Request::Order(number) => {
                let in_order = number == state.last + 1;
                state.last = number;
                reply.send(Response::Number(u64::from(in_order)));
            }
        }
        Ok(())
    }
}

/// One node of a test.
struct TestNode {
    id: NodeId,
    hub: PeerHub,
    addr: String,
    worker: ActorRef<Message>,
}

/// What a test may want different.
struct Setup {
    net: Arc<dyn Net>,
    missed: u32,
    lease_ms: u64,
    durable: Durable,
    secret: &'static str,
    cluster: Option<ClusterId>,
    calls: usize,
    bytes: usize,
    addr: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            net: Arc::new(RealNet),
            // On a real network time is real too, and a busy machine is no dead peer.
            missed: 100,
            lease_ms: 600,
            durable: Durable::default(),
            secret: "secret",
            cluster: Some(ClusterId(1)),
            calls: 1024,
            bytes: 64 << 20,
            addr: "127.0.0.1:0".into(),
        }
    }
}

/// A node on a network in memory, where only what the test does takes time.
fn on(net: &MemNet, addr: &str) -> Setup {
    Setup { net: Arc::new(net.clone()), addr: addr.into(), missed: 3, ..Setup::default() }
}

/// Node ids are taken from here, so that tests in one process never meet.
fn fresh_ids<const N: usize>() -> [NodeId; N] {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let first = NEXT.fetch_add(N as u64, Ordering::Relaxed);
    std::array::from_fn(|i| NodeId(first + i as u64))
}

fn discovered(hub_of: NodeId) -> AskHandler {
    Arc::new(move |ask| {
        Box::pin(async move {
            match ask {
                Ask::Discover => Answer::Discovered {
                    instance: InstanceId(hub_of.0),
                    node: Some(hub_of),
                    cluster: None,
                    rejoins: None,
                    seeds: vec!["a:1".into()],
                    members: BTreeMap::new(),
                    system_leader: None,
                },
                Ask::Join { .. } => Answer::NotFormed,
            }
        })
    })
}

/// Listens, also where something else has only just stopped to.
async fn listener(net: &dyn Net, addr: &str) -> Box<dyn Listener> {
    for _ in 0..100 {
        if let Ok(listener) = net.bind(addr).await {
            return listener;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("cannot listen on {addr}");
}

fn options(id: Option<NodeId>, listener: Box<dyn Listener>, setup: &Setup) -> PeerOptions {
    PeerOptions {
        net: setup.net.clone(),
        listener,
        random: Random::from_entropy(),
        node: id,
        cluster: setup.cluster,
        instance: InstanceId(id.map_or(0, |id| id.0)),
        secret: setup.secret.into(),
        park: (Ipv4Addr::LOCALHOST, 0).into(),
        durable: setup.durable.clone(),
        lease_ms: setup.lease_ms,
        heartbeat_ms: 50,
        heartbeats_missed: setup.missed,
        calls_in_flight: setup.calls,
        bytes_in_flight: setup.bytes,
        ask: discovered(id.unwrap_or_default()),
    }
}

async fn start(id: NodeId, setup: Setup) -> TestNode {
    let listener = listener(&*setup.net, &setup.addr).await;
    let addr = match setup.addr.ends_with(":0") {
        true => listener.local_addr().expect("is bound").to_string(),
        false => setup.addr.clone(),
    };
    let hub = PeerHub::start(options(Some(id), listener, &setup)).await.expect("starts");
    let (worker, _) = Actor::spawn(None, Worker, ()).await.expect("starts");
    hub.register("worker", worker.get_cell());
    TestNode { id, hub, addr, worker }
}

/// Tells all nodes of all.
fn introduce(nodes: &[&TestNode]) {
    let peers: BTreeMap<_, _> = nodes.iter().map(|node| (node.id, node.addr.clone())).collect();
    for node in nodes {
        node.hub.set_peers(peers.clone());
    }
}

/// Two nodes with a link between them.
async fn pair() -> (TestNode, TestNode) {
    let [a, b] = fresh_ids();
    let (a, b) = (start(a, Setup::default()).await, start(b, Setup::default()).await);
    introduce(&[&a, &b]);
    a.sees(&b, PeerState::is_up).await;
    b.sees(&a, PeerState::is_up).await;
    (a, b)
}

impl TestNode {
    async fn sees(&self, other: &TestNode, wanted: impl Fn(PeerState) -> bool) {
        let mut states = self.hub.states();
        let seen = states.wait_for(|states| states.get(&other.id).is_some_and(|state| wanted(*state)));
        let timely = tokio::time::timeout(PATIENCE, seen).await.map(drop);
        assert!(timely.is_ok(), "{} sees {:?} in {:?}", self.id, other.id, self.hub.states().borrow());
    }

    async fn call(&self, other: &TestNode, request: Request) -> Result<Response, RpcError> {
        self.call_within(other, PATIENCE, request).await
    }

    async fn call_within(
        &self,
        other: &TestNode,
        deadline: Duration,
        request: Request,
    ) -> Result<Response, RpcError> {
        self.hub.call(other.id, "worker", deadline, 0, |reply| Message::Do(request, reply)).await
    }

    async fn stop(&self) {
        self.worker.stop(None);
        self.hub.shutdown().await;
    }
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i % 253) as u8).collect()
}
