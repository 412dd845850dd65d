//! Nodes whose memory is used up: alone, and as others' follower.

use super::*;
use crate::database::RequestContext;
use crate::node::{NodeOptions, RunningNode, StorageDoor, start};
use crate::testing::{self, write};
use std::net::TcpListener;
use std::sync::Mutex;
use tokio::time::Instant;
use trandb_cluster::command::{Condition, Write};
use trandb_cluster::txn::{Isolation, TxnKey, TxnOp, TxnOutcome, TxnRequest, TxnResponse, TxnWrite};
use trandb_cluster::wire::{KeyOp, KeyResult};
use trandb_cluster::{EncodedKey, ErrorCode, InstanceId, KeyspaceId, Timestamp};
use trandb_runtime::datadir::Identity;
use trandb_runtime::disk::SimDisk;

/// Says what it is told to.
#[derive(Default)]
struct Told(AtomicBool);

impl Told {
    fn full(&self, full: bool) {
        self.0.store(full, Ordering::Relaxed);
    }
}

impl Meter for Told {
    fn usage(&self) -> Option<Usage> {
        Some(Usage { allocated: None, resident: if self.0.load(Ordering::Relaxed) { 1 << 40 } else { 0 } })
    }
}

fn request() -> RequestContext {
    RequestContext { deadline: Instant::now() + Duration::from_secs(20), trace: None }
}

async fn execute(node: &RunningNode, op: KeyOp) -> Result<KeyResult, Error> {
    node.database().execute(vec![op], &request()).await.remove(0).result
}

fn get(key: &str, at: Option<Timestamp>) -> KeyOp {
    KeyOp::Get { key: EncodedKey::from_parts(KeyspaceId::DEFAULT, key.as_bytes()), at }
}

fn delete(key: &str) -> KeyOp {
    let key = EncodedKey::from_parts(KeyspaceId::DEFAULT, key.as_bytes());
    KeyOp::Write(Write { key, value: None, condition: Condition::Any })
}

async fn eventually<F: Future<Output = Result<(), String>>>(what: &str, look: impl Fn() -> F) {
    let until = Instant::now() + Duration::from_secs(60);
    while let Err(why) = look().await {
        assert!(Instant::now() < until, "{what}: {why}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until values are refused, for lack of memory, or taken.
async fn until_refused(node: &RunningNode, key: &str, refused: bool) {
    eventually("values are refused, or not", || async {
        match execute(node, write(key, 100)).await {
            Ok(_) if !refused => Ok(()),
            Err(error) if refused && error.out_of_memory => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_memory_refuses_values_and_nothing_else() {
    let disk = SimDisk::new();
    let meter = Arc::new(Told::default());
    let options =
        NodeOptions { meter: meter.clone(), memory_bytes: Some(1 << 30), ..testing::options(&disk, |_| ()) };
    let node = start(options).await.unwrap_or_else(|error| panic!("{error}"));
    testing::wait_ready(&node).await;
    execute(&node, write("before", 100)).await.unwrap();
    execute(&node, write("deleted", 100)).await.unwrap();
    let ask = |request_: TxnRequest| async { node.database().txn(request_, &request()).await };
    let put = |key: &str, value: Option<&'static [u8]>| {
        let key = TxnKey { keyspace: None, key: key.to_owned().into() };
        TxnOp::Write(TxnWrite { key, value: value.map(Into::into), condition: Condition::Any })
    };
    let begin = || TxnRequest::Begin {
        isolation: Isolation::default(),
        read_only: false,
        at: None,
        idle_timeout_ms: 0,
        run: 0,
    };
    let TxnResponse::Begun { txn, .. } = ask(begin()).await.unwrap() else { panic!("not begun") };
    for key in ["one", "two", "three"] {
        ask(TxnRequest::Op { txn, op: put(key, Some(b"v")) }).await.unwrap();
    }

    meter.full(true);
    until_refused(&node, "refused", true).await;
    // Of one call, what deletes is done.
    let mixed = vec![write("while full", 100), delete("deleted"), get("before", None), write("this too", 1)];
    let replies = node.database().execute(mixed, &request()).await;
    let results: Vec<_> = replies.into_iter().map(|reply| reply.result).collect();
    for refused in [&results[0], &results[3]] {
        let error = refused.as_ref().unwrap_err();
        assert_eq!((error.code, error.out_of_memory), (ErrorCode::Overloaded, true), "{error}");
    }
    assert!(matches!(results[1], Ok(KeyResult::Write(_))), "{:?}", results[1]);
    assert!(matches!(results[2], Ok(KeyResult::Value(Some(_)))), "{:?}", results[2]);
    let readiness = node.database().readiness();
    assert!(readiness.ready && readiness.details[0].contains("takes no values"), "{readiness:?}");

    // A transaction puts nothing more, may delete, and what it had put before is committed.
    let refused = ask(TxnRequest::Op { txn, op: put("four", Some(b"v")) }).await.unwrap_err();
    assert!(refused.out_of_memory, "{refused}");
    ask(TxnRequest::Op { txn, op: put("before", None) }).await.unwrap();
    let committed = ask(TxnRequest::Commit { txn }).await.unwrap();
    assert!(matches!(committed, TxnResponse::Outcome(TxnOutcome::Committed(_))), "{committed:?}");
    assert!(matches!(execute(&node, get("two", None)).await, Ok(KeyResult::Value(Some(_)))));
    assert!(matches!(execute(&node, get("before", None)).await, Ok(KeyResult::Value(None))));

    meter.full(false);
    until_refused(&node, "after", false).await;
    assert!(node.database().readiness().details.is_empty());
    node.shutdown().await;
}

/// One of three, each with its own memory.
async fn one_of_three(at: usize, peers: &[String], meter: Arc<Told>) -> RunningNode {
    let disk = SimDisk::new();
    let mut options = testing::options(&disk, |config| {
        config.peer.addr = peers[at].clone();
        config.node.seeds = peers.to_vec();
        // They share a busy machine.
        config.raft.election_min_ms = 1000;
        config.raft.election_max_ms = 1500;
        config.peer.heartbeats_missed = 10;
    });
    if let StorageDoor::Given { identity, .. } = &mut options.storage {
        let instance = InstanceId(7 + at as u64);
        *identity = Arc::new(Mutex::new(Identity::fresh(instance)));
    }
    let options = NodeOptions { meter, memory_bytes: Some(1 << 30), ..options };
    start(options).await.unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_put_where_another_node_keeps_it_without_memory() {
    let peers: Vec<String> = {
        let listen = |_| TcpListener::bind("127.0.0.1:0").unwrap();
        let listeners: Vec<_> = (0..3).map(listen).collect();
        listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect()
    };
    let meters: Vec<Arc<Told>> = (0..3).map(|_| Arc::default()).collect();
    let nodes = tokio::join!(
        one_of_three(0, &peers, meters[0].clone()),
        one_of_three(1, &peers, meters[1].clone()),
        one_of_three(2, &peers, meters[2].clone()),
    );
    let nodes = [nodes.0, nodes.1, nodes.2];
    for node in &nodes {
        testing::wait_ready(node).await;
    }
    // All three keep every partition, and each leads some of them.
    for (full, meter) in meters.iter().enumerate() {
        meter.full(true);
        for (asked, node) in nodes.iter().enumerate() {
            for key in 0..8 {
                until_refused(node, &format!("{key}"), true).await;
            }
            execute(node, delete("0")).await.unwrap();
            // Who leads may have refused before the node that was asked heard of it.
            eventually("a detail of the node that is full", || async {
                let details = node.database().readiness().details;
                let told = format!("n{} asked, n{} full: {details:?}", asked + 1, full + 1);
                if details.len() == 1 { Ok(()) } else { Err(told) }
            })
            .await;
        }
        meter.full(false);
        for node in &nodes {
            for key in 0..8 {
                until_refused(node, &format!("{key}"), false).await;
            }
        }
    }
    for node in nodes {
        node.shutdown().await;
    }
}

/// Without entries nothing would move the floor, and the past would be kept for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_partition_forgets_its_past() {
    let disk = SimDisk::new();
    let options = testing::options(&disk, |config| config.storage.history_ms = 1000);
    let node = start(options).await.unwrap_or_else(|error| panic!("{error}"));
    testing::wait_ready(&node).await;
    let Ok(KeyResult::Write(first)) = execute(&node, write("key", 1)).await else { panic!("not written") };
    let trandb_cluster::command::WriteOutcome::Done { version, .. } = first else { panic!("{first:?}") };
    let there = execute(&node, get("key", Some(version))).await.unwrap();
    assert!(matches!(there, KeyResult::Value(Some(_))), "{there:?}");
    execute(&node, write("key", 2)).await.unwrap();
    eventually("the past is below the floor", || async {
        match execute(&node, get("key", Some(version))).await {
            Err(error) if error.code == ErrorCode::Invalid => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(matches!(execute(&node, get("key", None)).await, Ok(KeyResult::Value(Some(_)))));
    node.shutdown().await;
}

#[test]
fn what_is_admitted_between_two_readings_is_bounded() {
    let (memory, mut budget) = (Memory::new(Some(1 << 30)), Budget::new(1 << 30));
    assert!(memory.admit(1, 1 << 40), "nothing is known yet");
    let used = |part: u64| Usage { allocated: Some((1 << 30) / 8 * 7 / 100 * part), resident: 0 };
    assert!(!memory.read(&mut budget, used(50)));
    let allowance = ((1_usize << 30) / 8 * 7 - (1 << 30) / 8 * 7 / 100 * 50) / 4;
    assert!(memory.admit(1, allowance - PUT_OVERHEAD_BYTES - 1000));
    assert!(!memory.admit(1, 1000), "its overhead is counted, too");
    assert!(memory.admit(1, 1000 - PUT_OVERHEAD_BYTES));
    assert!(!memory.admit(1, 0));
    assert!(!memory.read(&mut budget, used(50)));
    memory.charge(1, usize::MAX >> 1);
    assert!(!memory.admit(1, 0), "what had to be taken counts");

    assert!(memory.read(&mut budget, used(100)) && memory.is_full());
    assert!(!memory.admit(1, 0));
    assert!(!memory.read(&mut budget, used(98)) && memory.is_full());
    assert!(memory.read(&mut budget, used(90)) && !memory.is_full());
    assert!(memory.admit(1, 1000));
    assert!(memory.described().starts_with("806 MiB allocated and 0 MiB"), "{}", memory.described());
}

#[test]
fn without_a_limit_nothing_is_refused() {
    let memory = Memory::new(None);
    memory.charge(1, 1 << 40);
    assert!(memory.admit(1, usize::MAX >> 1) && !memory.is_full());
}
