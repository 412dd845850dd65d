//! Transactions whose replies get lost.

use super::coordinator::Coordinator;
use super::*;
use trandb_client::{Batch, BatchResult, TxnOptions, TxnOutcome};
use trandb_cluster::txn::{TxnOp, TxnRequest};

/// A node with its coordinator, whose reaction to the transactions' requests `bend` may bend: it gets the request and
/// how often one of its kind was asked before.
fn node(
    coordinator: &Coordinator,
    bend: impl Fn(&TxnRequest, usize) -> Option<Reaction> + Send + Sync + 'static,
) -> fake::Script {
    let coordinator = coordinator.clone();
    let counts: [AtomicUsize; 6] = Default::default();
    script(move |request| {
        let Request::Txn(asked) = request else { return Reaction::Answer(Ok(echo(request))) };
        let kind = match asked {
            TxnRequest::Begin { .. } => 0,
            TxnRequest::Op { .. } => 1,
            TxnRequest::Commit { .. } => 2,
            TxnRequest::Abort { .. } => 3,
            TxnRequest::Outcome { .. } => 4,
            TxnRequest::Batch(_) => 5,
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
async fn a_commit_whose_reply_is_lost_is_found_to_be_done() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    let lost = coordinator.clone();
    net.set(
        "a",
        1,
        node(&coordinator, move |request, before| match (request, before) {
            (TxnRequest::Commit { .. }, 0) => done_and_lost(&lost, request),
            _ => None,
        }),
    );
    let client = builder(&net).connect("a").await.expect("lets it in");
    let txn = client.begin().await.expect("opened");
    txn.put("k", "v").await.expect("buffered");
    let id = txn.id();
    let at = txn.commit().await.expect("it was done");
    assert_eq!(client.outcome(id).await, Ok(TxnOutcome::Committed(at)));
    assert_eq!((net.asked(is_commit).len(), coordinator.open()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_never_arrived_is_sent_again() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    net.set(
        "a",
        1,
        node(&coordinator, |request, before| {
            (matches!(request, TxnRequest::Commit { .. }) && before < 3).then_some(Reaction::Close)
        }),
    );
    let client = builder(&net).connect("a").await.expect("lets it in");
    let txn = client.begin().await.expect("opened");
    txn.put("k", "v").await.expect("buffered");
    txn.commit().await.expect("in the end");
    assert_eq!(coordinator.value("k").expect("visible"), "v");
    assert_eq!((net.asked(is_commit).len(), net.asked(is_outcome).len()), (4, 3));
}

#[tokio::test(start_paused = true)]
async fn a_lost_commit_that_was_aborted_is_a_conflict() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    let lost = coordinator.clone();
    net.set(
        "a",
        1,
        node(&coordinator, move |request, _| match request {
            TxnRequest::Commit { .. } => {
                lost.abort_all();
                Some(Reaction::Close)
            }
            _ => None,
        }),
    );
    let client = builder(&net).connect("a").await.expect("lets it in");
    let txn = client.begin().await.expect("opened");
    let message = format!("transaction {} was aborted: its coordinator was lost", txn.id());
    assert_eq!(txn.commit().await, Err(Error::conflict(message)));
}

#[tokio::test(start_paused = true)]
async fn the_outcome_is_asked_of_another_node_when_the_coordinators_is_silent() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    let lost = coordinator.clone();
    let silent = AtomicBool::new(false);
    net.set(
        "a",
        1,
        node(&coordinator, move |request, _| {
            if matches!(request, TxnRequest::Commit { .. }) {
                silent.store(true, Ordering::Relaxed);
                let _ = lost.answer(&Request::Txn(request.clone()));
            }
            silent.load(Ordering::Relaxed).then_some(Reaction::Silence)
        }),
    );
    let client = builder(&net).connect("a,b").await.expect("lets it in");
    let txn = client.begin().await.expect("opened");
    txn.put("k", "v").await.expect("buffered");
    net.set("b", 2, straight(&coordinator));
    let start = Instant::now();
    txn.commit().await.expect("the other node knows");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(*net.asked(is_outcome).last().expect("asked"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_commit_is_unknown_only_when_nobody_tells_in_time() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    net.set(
        "a",
        1,
        node(&coordinator, |request, _| match request {
            TxnRequest::Commit { .. } | TxnRequest::Outcome { .. } => Some(Reaction::Close),
            _ => None,
        }),
    );
    let client = builder(&net).connect("a").await.expect("lets it in");
    let txn = client.begin().await.expect("opened");
    let start = Instant::now();
    assert_eq!(txn.commit().await.expect_err("in vain").code, ErrorCode::Unknown);
    assert!((4900..5200).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    settle().await;
    assert_eq!(net.asked(is_abort), [0; 0], "it may be committed, so nobody asks to abort it");
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_nobody_could_take_is_unavailable_and_not_unknown() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    net.set(
        "a",
        1,
        node(&coordinator, |request, _| match request {
            TxnRequest::Commit { .. } | TxnRequest::Outcome { .. } => {
                Some(Reaction::Answer(Err(Error::unavailable("n7 is down"))))
            }
            _ => None,
        }),
    );
    let client = builder(&net).connect("a").await.expect("lets it in");
    let txn = client.begin().await.expect("opened");
    assert_eq!(txn.commit().await, Err(Error::unavailable("n7 is down")));
    settle().await;
    assert_eq!(coordinator.open(), 0, "aborted in the background");
}

#[tokio::test(start_paused = true)]
async fn a_lost_write_leaves_only_aborting() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    let lost = coordinator.clone();
    net.set(
        "a",
        1,
        node(&coordinator, move |request, _| match request {
            TxnRequest::Op { op: TxnOp::Write(write), .. } if write.key.key == "lost" => {
                done_and_lost(&lost, request)
            }
            _ => None,
        }),
    );
    let client = builder(&net).connect("a").await.expect("lets it in");
    let txn = client.begin().await.expect("opened");
    txn.put("kept", "v").await.expect("buffered");
    let error = txn.put("lost", "v").await.expect_err("no answer");
    assert_eq!(error.code, ErrorCode::Conflict);
    let asked = net.asked(is_op).len();
    assert_eq!(txn.get("kept").await, Err(error.clone()));
    assert_eq!(txn.put("kept", "w").await, Err(error.clone()));
    assert_eq!(net.asked(is_op).len(), asked, "nothing more is asked");
    assert_eq!(txn.commit().await, Err(error));
    settle().await;
    assert_eq!((net.asked(is_commit).len(), net.asked(is_abort).len()), (0, 1));
    assert_eq!((coordinator.open(), coordinator.value("kept")), (0, None));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_given_up_leaves_only_aborting() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    net.set(
        "a",
        1,
        node(&coordinator, |request, _| {
            matches!(request, TxnRequest::Op { op: TxnOp::Write(_), .. }).then_some(Reaction::Silence)
        }),
    );
    let client = builder(&net).connect("a").await.expect("lets it in");
    let txn = client.begin().await.expect("opened");
    tokio::time::timeout(Duration::from_millis(100), txn.put("k", "v")).await.expect_err("silence");
    assert_eq!(txn.commit().await.expect_err("nobody knows of what").code, ErrorCode::Conflict);
    assert_eq!(net.asked(is_commit), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn reads_and_locks_that_are_lost_are_asked_again() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    net.set(
        "a",
        1,
        node(&coordinator, |request, before| match request {
            TxnRequest::Begin { .. } | TxnRequest::Op { .. } => (before % 2 == 0).then_some(Reaction::Close),
            _ => None,
        }),
    );
    let client = builder(&net).connect("a").await.expect("lets it in");
    let txn = client.begin().await.expect("the second time");
    assert_eq!(txn.get("k").await, Ok(None));
    assert_eq!(txn.get_for_update("k").await, Ok(None));
    txn.lock("k").await.expect("the second time");
    txn.scan(ScanRequest::default()).await.expect("the second time");
    assert_eq!(net.asked(is_op).len(), 8);
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

fn number(value: Option<trandb_client::Versioned>) -> u64 {
    value.map_or(0, |found| std::str::from_utf8(&found.value).expect("text").parse().expect("a number"))
}

#[tokio::test(start_paused = true)]
async fn a_counter_is_exact_though_commit_replies_are_lost() {
    for (share, arrives) in [(10, true), (10, false), (3, true), (3, false)] {
        let (net, coordinator) = (Net::default(), Coordinator::new(1));
        let lost = coordinator.clone();
        net.set(
            "a",
            1,
            node(&coordinator, move |request, before| match request {
                TxnRequest::Commit { .. } if before % share == share - 1 => match arrives {
                    true => done_and_lost(&lost, request),
                    false => Some(Reaction::Close),
                },
                _ => None,
            }),
        );
        let client = builder(&net).timeout(Duration::from_secs(60)).connect("a").await.expect("lets it in");
        let increments = (0..8).map(|_| {
            let client = client.clone();
            async move {
                for _ in 0..25 {
                    let counted = client.transact(|txn| async move {
                        let next = number(txn.get("counter").await?) + 1;
                        txn.put("counter", next.to_string()).await?;
                        Ok(next)
                    });
                    counted.await.expect("within a minute");
                }
            }
        });
        futures_util::future::join_all(increments).await;
        assert_eq!(coordinator.value("counter").expect("counted"), "200", "one in {share}, {arrives}");
        settle().await;
        assert_eq!(coordinator.open(), 0);
        assert!(net.asked(is_outcome).len() >= 200 / share, "replies were lost");
    }
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_loses_is_run_again_until_there_is_no_time() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    net.set(
        "a",
        1,
        node(&coordinator, |request, before| match request {
            TxnRequest::Commit { .. } if before < 5 => Some(Reaction::Answer(Err(Error::conflict("lost")))),
            _ => None,
        }),
    );
    let client = builder(&net).connect("a").await.expect("lets it in");
    let runs = AtomicUsize::new(0);
    let run = || {
        client.transact(|txn| {
            let run = runs.fetch_add(1, Ordering::Relaxed);
            async move {
                txn.put("k", "v").await?;
                Ok(run)
            }
        })
    };
    assert_eq!(run().await, Ok(5), "what the run that came through has returned");

    net.set(
        "a",
        1,
        node(&coordinator, |request, _| {
            matches!(request, TxnRequest::Commit { .. })
                .then(|| Reaction::Answer(Err(Error::conflict("lost"))))
        }),
    );
    let start = Instant::now();
    assert_eq!(run().await, Err(Error::conflict("lost")));
    assert!((4000..5100).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    let tries = net.asked(is_commit).len();
    assert!((15..60).contains(&tries), "{tries} tries with growing pauses");
}

#[tokio::test(start_paused = true)]
async fn the_budget_of_conflicts_bounds_the_rate_of_runs() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    net.set(
        "a",
        1,
        node(&coordinator, |request, _| {
            matches!(request, TxnRequest::Commit { .. })
                .then(|| Reaction::Answer(Err(Error::conflict("lost"))))
        }),
    );
    let budget = trandb_client::RetryBudget { burst: 3, per_second: 2.0, per_success: 0.0 };
    let client = builder(&net).conflict_budget(budget).connect("a").await.expect("lets it in");
    let error = client.transact(|_| async { Ok(()) }).await.expect_err("always lost");
    assert_eq!(error.code, ErrorCode::Conflict);
    let tries = net.asked(is_commit).len();
    assert!((10..=14).contains(&tries), "{tries} tries: three at once, two per second for five seconds");
}

#[tokio::test(start_paused = true)]
async fn a_run_decides_by_what_it_returns() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    net.set("a", 1, straight(&coordinator));
    let client = builder(&net).connect("a").await.expect("lets it in");
    let poor = Error::invalid("not enough money");
    let result: Result<(), _> = client
        .transact(|txn| {
            let poor = poor.clone();
            async move {
                txn.put("k", "v").await?;
                Err(poor)
            }
        })
        .await;
    assert_eq!(result, Err(poor));
    settle().await;
    assert_eq!((net.asked(is_commit).len(), net.asked(is_abort).len(), coordinator.open()), (0, 1, 0));

    let result = client
        .transact(|txn| async move {
            txn.put("k", "v").await?;
            txn.abort().await?;
            Ok(7)
        })
        .await;
    assert_eq!((result, coordinator.value("k")), (Ok(7), None));
    let options = TxnOptions { read_only: true, ..TxnOptions::default() };
    let read = client.transact_with(options, async |txn| txn.get("k").await);
    assert_eq!(read.await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_transaction_whose_coordinator_is_gone_is_run_again_in_time() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    net.set(
        "a",
        1,
        node(&coordinator, |request, before| match request {
            TxnRequest::Op { .. } if before < 1000 => {
                Some(Reaction::Answer(Err(Error::unavailable("n7 is down"))))
            }
            _ => None,
        }),
    );
    let client = builder(&net).connect("a").await.expect("lets it in");
    let start = Instant::now();
    let change = client.clone();
    let (done, ()) = tokio::join!(client.transact(|txn| async move { txn.put("k", "v").await }), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        net.set("a", 1, straight(&coordinator));
        drop(change);
    });
    done.expect("the next run");
    assert!(start.elapsed() < Duration::from_millis(2500), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn batches_are_sent_once_to_the_first_keys_leader() {
    let (net, coordinator) = (Net::default(), Coordinator::new(2));
    for (addr, id) in [("a", 1), ("b", 2)] {
        let coordinator = coordinator.clone();
        let count = AtomicUsize::new(0);
        net.set(
            addr,
            id,
            script(move |request| match request {
                Request::Topology => Reaction::Answer(Ok(map(2))),
                Request::Txn(TxnRequest::Batch(_)) if count.fetch_add(1, Ordering::Relaxed) > 0 => {
                    Reaction::Close
                }
                Request::Txn(_) => Reaction::Answer(coordinator.answer(request).expect("is one")),
                _ => Reaction::Answer(Ok(echo(request))),
            }),
        );
    }
    let client = builder(&net).connect("a").await.expect("lets it in");
    let batch = || Batch::new().put("k", "v").get("k").delete("gone").scan(ScanRequest::default());
    let done = client.batch(batch()).await.expect("done");
    assert_eq!(done.results.len(), 4);
    assert!(matches!(&done.results[1], BatchResult::Value(Some(found)) if found.value == "v"));
    assert_eq!((&done.results[0], &done.results[2]), (&BatchResult::Done, &BatchResult::Done));
    assert_eq!(client.outcome(done.txn).await, Ok(TxnOutcome::Committed(done.at)));
    let is_batch = |request: &Request| matches!(request, Request::Txn(TxnRequest::Batch(_)));
    assert_eq!(net.asked(is_batch), [2]);

    let error = client.batch(batch()).await.expect_err("cut off");
    assert_eq!((error.code, net.asked(is_batch).len()), (ErrorCode::Unknown, 2));
    for (wrong, message) in [
        (Batch::new().get("k").get(""), "operation 1: the key is empty"),
        (
            Batch::new().put("k", vec![0; (4 << 20) + 1]),
            "operation 0: the value has 4194305 bytes, the limit is 4194304",
        ),
    ] {
        assert_eq!(client.batch(wrong).await.expect_err(message).message, message);
    }
    assert_eq!(net.asked(is_batch).len(), 2, "not sent");
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
                at: None
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
