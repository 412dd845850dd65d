//! Transactions: what is sent where, and what handles do.

mod batches;
mod lost;
mod transact;

use super::coordinator::Coordinator;
use super::*;
use trandb_client::{Batch, BatchResult, Txn, TxnOptions, TxnOutcome};
use trandb_cluster::txn::{TxnOp, TxnRequest};

/// A node with its coordinator, whose reaction to the transactions' requests `bend` may bend: it gets the request and
/// how often one of its kind was asked before.
fn node(
    coordinator: &Coordinator,
    bend: impl Fn(&TxnRequest, usize) -> Option<Reaction> + Send + Sync + 'static,
) -> fake::Script {
    let coordinator = coordinator.clone();
    let counts: [AtomicUsize; 7] = Default::default();
    script(move |request| {
        let Request::Txn(asked) = request else { return Reaction::Answer(Ok(echo(request))) };
        let kind = match asked {
            TxnRequest::Begin { .. } => 0,
            TxnRequest::Op { .. } => 1,
            TxnRequest::Commit { .. } => 2,
            TxnRequest::Abort { .. } => 3,
            TxnRequest::Outcome { .. } => 4,
            TxnRequest::Batch(_) => 5,
            TxnRequest::Names { .. } => 6,
        };
        let before = counts[kind].fetch_add(1, Ordering::Relaxed);
        match bend(asked, before) {
            Some(reaction) => reaction,
            None => Reaction::Answer(coordinator.answer(request).expect("is about transactions")),
        }
    })
}

fn straight(coordinator: &Coordinator) -> fake::Script {
    node(coordinator, |_, _| None)
}

/// Does what is asked, and closes the connection instead of saying so.
fn done_and_lost(coordinator: &Coordinator, request: &TxnRequest) -> Option<Reaction> {
    let _ = coordinator.answer(&Request::Txn(request.clone()));
    Some(Reaction::Close)
}

fn is_commit(request: &Request) -> bool {
    matches!(request, Request::Txn(TxnRequest::Commit { .. }))
}

fn is_abort(request: &Request) -> bool {
    matches!(request, Request::Txn(TxnRequest::Abort { .. }))
}

fn is_outcome(request: &Request) -> bool {
    matches!(request, Request::Txn(TxnRequest::Outcome { .. }))
}

fn is_op(request: &Request) -> bool {
    matches!(request, Request::Txn(TxnRequest::Op { .. }))
}

fn is_batch(request: &Request) -> bool {
    matches!(request, Request::Txn(TxnRequest::Batch(_)))
}

fn is_names(request: &Request) -> bool {
    matches!(request, Request::Txn(TxnRequest::Names { .. }))
}

/// Lets what goes on in the background happen.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[tokio::test(start_paused = true)]
async fn a_transaction_reads_what_it_wrote_and_commits() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    net.set("a", 1, straight(&coordinator));
    let client = builder(&net).connect("a").await.expect("lets it in");
    let txn = client.begin().await.expect("opened");
    assert_eq!(txn.get("k").await, Ok(None));
    txn.put("k", "v").await.expect("buffered");
    assert_eq!(txn.get("k").await.expect("read").expect("its own").value, "v");
    assert_eq!(txn.exists("k").await, Ok(Some(Timestamp::ZERO)));
    assert_eq!(coordinator.value("k"), None);
    assert_eq!(client.outcome(txn.id()).await, Ok(TxnOutcome::Open));
    let (id, at) = (txn.id(), txn.commit().await.expect("committed"));
    assert_eq!(client.outcome(id).await, Ok(TxnOutcome::Committed(at)));
    assert_eq!(coordinator.value("k").expect("visible"), "v");
    settle().await;
    assert_eq!(net.asked(is_abort), [0; 0], "what has ended is not aborted");
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_aborts() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    net.set("a", 1, straight(&coordinator));
    let client = builder(&net).connect("a").await.expect("lets it in");
    let txn = client.begin().await.expect("opened");
    let other = txn.with_keyspace("other");
    drop(txn);
    settle().await;
    assert_eq!(coordinator.open(), 1, "there is another handle");
    drop(other);
    settle().await;
    assert_eq!(coordinator.open(), 0);

    let txn = client.begin().await.expect("opened");
    let (id, other) = (txn.id(), txn.clone());
    txn.abort().await.expect("aborted");
    assert_eq!(client.outcome(id).await, Ok(TxnOutcome::Aborted("asked for".to_owned())));
    assert_eq!(other.put("k", "v").await.expect_err("has ended").code, ErrorCode::Conflict);
    drop(other);
    settle().await;
    assert_eq!(net.asked(is_abort).len(), 2);

    let txn = client.begin().await.expect("opened");
    let other = txn.clone();
    other.commit().await.expect("committed");
    assert_eq!(txn.abort().await.expect_err("too late").code, ErrorCode::Invalid);
}

#[tokio::test(start_paused = true)]
async fn a_transactions_requests_go_to_its_coordinators_node_while_that_is_there() {
    let net = Net::default();
    let coordinators = [Coordinator::new(1), Coordinator::new(2)];
    for (addr, id) in [("a", 1u64), ("b", 2)] {
        let coordinators = coordinators.clone();
        net.set(
            addr,
            id,
            script(move |request| match request {
                Request::Topology => Reaction::Answer(Ok(map(1))),
                Request::Txn(TxnRequest::Begin { .. }) => {
                    Reaction::Answer(coordinators[id as usize - 1].answer(request).expect("is one"))
                }
                Request::Txn(
                    TxnRequest::Op { txn, .. } | TxnRequest::Commit { txn } | TxnRequest::Abort { txn },
                ) => {
                    let coordinator = &coordinators[txn.node.0 as usize - 1];
                    Reaction::Answer(coordinator.answer(request).expect("is one"))
                }
                _ => Reaction::Answer(Ok(echo(request))),
            }),
        );
    }
    let client = builder(&net).connect("a,b").await.expect("lets it in");
    for _ in 0..6 {
        let txn = client.begin().await.expect("opened");
        let before = net.asked(is_op).len();
        txn.put("k", "v").await.expect("buffered");
        txn.get("k").await.expect("read");
        assert_eq!(net.asked(is_op)[before..], [txn.id().node.0; 2]);
        txn.commit().await.expect("committed");
    }
    let begun = net.asked(|request| matches!(request, Request::Txn(TxnRequest::Begin { .. })));
    assert!(begun.contains(&1) && begun.contains(&2), "nodes take turns: {begun:?}");

    // Its node no longer lets anybody in; the others lead requests there.
    let txn = loop {
        let txn = client.begin().await.expect("opened");
        if txn.id().node == NodeId(2) {
            break txn;
        }
    };
    net.stop("b");
    assert_eq!(client.put("k", "v").await.map(drop), Ok(()), "the leader is the other one");
    let _ = txn.get("k").await.expect("by way of the other node");
    txn.put("k", "w").await.expect("by way of the other node");
    txn.commit().await.expect("by way of the other node");
    assert_eq!(*net.asked(is_commit).last().expect("asked"), 1);
}

#[tokio::test(start_paused = true)]
async fn keyspaces_and_options_are_sent() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    net.set("a", 1, straight(&coordinator));
    let client = builder(&net).connect("a").await.expect("lets it in").with_keyspace("mine");
    let options = TxnOptions {
        isolation: trandb_client::Isolation::Snapshot,
        idle_timeout: Some(Duration::from_micros(1)),
        ..TxnOptions::default()
    };
    let txn = client.begin_with(options).await.expect("opened");
    txn.get("k").await.expect("read");
    txn.with_keyspace("other").delete("k").await.expect("buffered");
    txn.scan(ScanRequest::default()).await.expect("read");
    let sent = |wanted: &'static str| {
        move |request: &Request| match request {
            Request::Txn(TxnRequest::Op { op: TxnOp::Get(key), .. }) => {
                key.keyspace.as_deref() == Some(wanted)
            }
            Request::Txn(TxnRequest::Op { op: TxnOp::Write(write), .. }) => {
                write.key.keyspace.as_deref() == Some(wanted)
            }
            Request::Txn(TxnRequest::Op { op: TxnOp::Scan(scan), .. }) => {
                scan.keyspace.as_deref() == Some(wanted)
            }
            _ => false,
        }
    };
    assert_eq!((net.asked(sent("mine")).len(), net.asked(sent("other")).len()), (2, 1));
    let begins = net.asked(|request| {
        matches!(
            request,
            Request::Txn(TxnRequest::Begin {
                isolation: trandb_client::Isolation::Snapshot,
                idle_timeout_ms: 1,
                read_only: false,
                at: None,
                run: 0,
            })
        )
    });
    assert_eq!(begins.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn pages_within_a_transaction_follow_their_cursor() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    net.set("a", 1, straight(&coordinator));
    let client = builder(&net).connect("a").await.expect("lets it in");
    client.batch(Batch::new().put("a", "1").put("b", "2").put("c", "3")).await.expect("done");
    let txn = client.begin().await.expect("opened");
    let (entries, more) = txn.pages(ScanRequest::default()).collect(10).await.expect("pages");
    let keys: Vec<_> = entries.iter().map(|entry| entry.key.clone()).collect();
    assert_eq!((keys, more), (vec!["a".into(), "b".into(), "c".into()], false));
}

#[test]
fn the_blocking_client_has_transactions_too() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    let lost = coordinator.clone();
    net.set(
        "a",
        1,
        node(&coordinator, move |request, before| match (request, before) {
            (TxnRequest::Commit { .. }, 0) => done_and_lost(&lost, request),
            (TxnRequest::Commit { .. }, 1) => Some(Reaction::Answer(Err(Error::conflict("lost")))),
            _ => None,
        }),
    );
    let client = trandb_client::blocking::Client::connect_with(builder(&net), "a").expect("lets it in");
    let txn = client.begin().expect("opened");
    txn.put("k", "v").expect("buffered");
    assert_eq!(txn.get("k").expect("read").expect("its own").value, "v");
    txn.commit().expect("found to be done");
    let mut runs = 0;
    let value = client.transact(|txn| {
        runs += 1;
        txn.put("k", "w")?;
        txn.get("k")
    });
    assert_eq!((value.expect("done").expect("its own").value, runs), ("w".into(), 2));
    assert_eq!(coordinator.value("k").expect("visible"), "w");
    drop(client.begin().expect("opened"));
    assert_eq!(coordinator.open(), 2, "one that was refused, one that was dropped");
    for _ in 0..3 {
        client.ping().expect("answered");
    }
    assert_eq!(coordinator.open(), 1, "aborted while the client was used; what lost has ended by itself");
    let done = client.batch(Batch::new().get("k")).expect("done");
    assert_eq!(client.outcome(done.txn), Ok(TxnOutcome::Committed(done.at)));
}
