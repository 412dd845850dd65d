//! Batches: where they are sent, and that a lost answer leaves nothing unknown.

use super::*;
use std::collections::BTreeSet;
use std::sync::Mutex;
use trandb_client::{Committed, TxnId};

fn batch() -> Batch {
    Batch::new().put("k", "v").get("k").delete("gone").scan(ScanRequest::default())
}

/// The names that a node's batches came with.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<TxnId>>>);

impl Seen {
    fn note(&self, request: &TxnRequest) {
        if let TxnRequest::Batch(batch) = request {
            let id = batch.id.expect("the client names its batches");
            self.0.lock().expect("no test thread panics with it").push(id);
        }
    }

    fn names(&self) -> Vec<TxnId> {
        self.0.lock().expect("no test thread panics with it").clone()
    }
}

#[tokio::test(start_paused = true)]
async fn batches_go_to_the_first_keys_leader_and_are_named_after_it() {
    let (net, coordinator, seen) = (Net::default(), Coordinator::new(2), Seen::default());
    for (addr, id) in [("a", 1), ("b", 2)] {
        let (coordinator, seen) = (coordinator.clone(), seen.clone());
        net.set(
            addr,
            id,
            script(move |request| match request {
                Request::Topology => Reaction::Answer(Ok(map(2))),
                Request::Txn(asked) => {
                    seen.note(asked);
                    Reaction::Answer(coordinator.answer(request).expect("is one"))
                }
                _ => Reaction::Answer(Ok(echo(request))),
            }),
        );
    }
    let client = builder(&net).connect("a").await.expect("lets it in");
    let done = client.batch(batch()).await.expect("done");
    assert_eq!(done.results.len(), 4);
    assert!(matches!(&done.results[1], BatchResult::Value(Some(found)) if found.value == "v"));
    assert_eq!((&done.results[0], &done.results[2]), (&BatchResult::Done, &BatchResult::Done));
    assert_eq!(client.outcome(done.txn).await, Ok(TxnOutcome::Committed(done.at)));
    assert_eq!(net.asked(is_batch), [2]);
    assert_eq!(seen.names(), [done.txn]);
    assert_eq!(done.txn.node, NodeId(2));
    for (wrong, message) in [
        (Batch::new().get("k").get(""), "operation 1: the key is empty"),
        (
            Batch::new().put("k", vec![0; (4 << 20) + 1]),
            "operation 0: the value has 4194305 bytes, the limit is 4194304",
        ),
    ] {
        assert_eq!(client.batch(wrong).await.expect_err(message).message, message);
    }
    assert_eq!(net.asked(is_batch).len(), 1, "not sent");

    // The leader no longer lets anybody in: the other node does it, under its own name.
    net.stop("b");
    client.get("k").await.expect("is read from the other one");
    let done = client.batch(batch()).await.expect("done");
    assert_eq!((done.txn.node, seen.names().last()), (NodeId(1), Some(&done.txn)));
}

#[tokio::test(start_paused = true)]
async fn names_are_fetched_many_at_a_time_and_do_not_grow_old() {
    let (net, coordinator, seen) = (Net::default(), Coordinator::new(1), Seen::default());
    let noted = seen.clone();
    net.set(
        "a",
        1,
        node(&coordinator, move |request, _| {
            noted.note(request);
            None
        }),
    );
    let client = builder(&net).connect("a").await.expect("lets it in");
    let batches = (0..300).map(|_| client.batch(Batch::new().put("k", "v")));
    for done in futures_util::future::join_all(batches).await {
        done.expect("done");
    }
    let names: BTreeSet<TxnId> = seen.names().into_iter().collect();
    assert_eq!((names.len(), net.asked(is_names).len()), (300, 2), "each has its own");
    tokio::time::sleep(Duration::from_secs(16)).await;
    client.batch(batch()).await.expect("done");
    assert_eq!(net.asked(is_names).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_reply_is_lost_is_found_to_be_done() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    let lost = coordinator.clone();
    net.set(
        "a",
        1,
        node(&coordinator, move |request, before| match (request, before) {
            (TxnRequest::Batch(_), 0) => done_and_lost(&lost, request),
            _ => None,
        }),
    );
    let client = builder(&net).connect("a").await.expect("lets it in");
    let Committed { txn, at, results } = client.batch(batch()).await.expect("it was done");
    let lost = BatchResult::Lost;
    assert_eq!(results, [BatchResult::Done, lost.clone(), BatchResult::Done, lost]);
    assert_eq!(client.outcome(txn).await, Ok(TxnOutcome::Committed(at)));
    assert_eq!((net.asked(is_batch).len(), coordinator.value("k")), (1, Some("v".into())));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_never_arrived_is_done_under_another_name() {
    let (net, coordinator, seen) = (Net::default(), Coordinator::new(1), Seen::default());
    let noted = seen.clone();
    net.set(
        "a",
        1,
        node(&coordinator, move |request, before| {
            noted.note(request);
            (matches!(request, TxnRequest::Batch(_)) && before < 3).then_some(Reaction::Close)
        }),
    );
    let client = builder(&net).connect("a").await.expect("lets it in");
    let done = client.batch(batch()).await.expect("the fourth time");
    assert!(matches!(done.results[1], BatchResult::Value(Some(_))), "it was answered");
    let names = seen.names();
    assert_eq!((names.len(), names.iter().collect::<BTreeSet<_>>().len()), (4, 4));
    for name in &names[..3] {
        assert!(matches!(client.outcome(*name).await, Ok(TxnOutcome::Aborted(_))), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_only_reads_is_sent_again_without_asking() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    net.set(
        "a",
        1,
        node(&coordinator, |request, before| {
            (matches!(request, TxnRequest::Batch(_)) && before < 2).then_some(Reaction::Close)
        }),
    );
    let client = builder(&net).connect("a").await.expect("lets it in");
    let done = client.batch(Batch::new().get("k")).await.expect("the third time");
    assert_eq!(done.results, [BatchResult::Value(None)]);
    assert_eq!(net.asked(is_outcome), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_falls_silent_leaves_time_to_ask_another() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    let frozen = coordinator.clone();
    let silent = AtomicBool::new(false);
    net.set(
        "a",
        1,
        node(&coordinator, move |request, _| {
            if matches!(request, TxnRequest::Batch(_)) {
                silent.store(true, Ordering::Relaxed);
                let _ = frozen.answer(&Request::Txn(request.clone()));
            }
            silent.load(Ordering::Relaxed).then_some(Reaction::Silence)
        }),
    );
    let client = builder(&net).connect("a,b").await.expect("lets it in");
    net.set("b", 2, straight(&coordinator));
    let start = Instant::now();
    // The first node may be the second's turn: both know of it in the end.
    let done = client.batch(Batch::new().put("k", "v")).await.expect("known");
    assert_eq!(client.outcome(done.txn).await, Ok(TxnOutcome::Committed(done.at)));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_unknown_only_when_nobody_tells_in_time() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    net.set(
        "a",
        1,
        node(&coordinator, |request, _| {
            matches!(request, TxnRequest::Batch(_) | TxnRequest::Outcome { .. }).then_some(Reaction::Close)
        }),
    );
    let client = builder(&net).connect("a").await.expect("lets it in");
    let start = Instant::now();
    let error = client.batch(batch()).await.expect_err("in vain");
    assert_eq!(error.code, ErrorCode::Unknown);
    assert!(error.message.contains("the batch 1-1 "), "it can be asked for later: {error}");
    assert!((4900..5200).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_loses_is_sent_again_in_time() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    let conflicts = |count| {
        move |request: &TxnRequest, before| {
            (matches!(request, TxnRequest::Batch(_)) && before < count)
                .then(|| Reaction::Answer(Err(Error::conflict("lost"))))
        }
    };
    net.set("a", 1, node(&coordinator, conflicts(3)));
    let client = builder(&net).connect("a").await.expect("lets it in");
    client.batch(Batch::new().put("k", "v")).await.expect("the fourth time");
    assert_eq!(coordinator.value("k").expect("visible"), "v");
    net.set("a", 1, node(&coordinator, conflicts(usize::MAX)));
    let start = Instant::now();
    assert_eq!(client.batch(Batch::new().put("k", "w")).await, Err(Error::conflict("lost")));
    assert!((4000..5100).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
}
