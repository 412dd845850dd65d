//! Replies that get lost, and callers that do not wait for them.

use super::*;

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
async fn a_read_that_nobody_answered_leaves_nothing_in_doubt() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    let start = Instant::now();
    net.set(
        "a",
        1,
        node(&coordinator, move |request, _| {
            let early = start.elapsed() < Duration::from_secs(3);
            (early && matches!(request, TxnRequest::Op { op: TxnOp::Get(_), .. }))
                .then(|| Reaction::Answer(Err(Error::unknown("no answer within the deadline"))))
        }),
    );
    let client = builder(&net).connect("a").await.expect("lets it in");
    let txn = client.with_timeout(Duration::from_millis(200)).begin().await.expect("opened");
    assert_eq!(txn.get("k").await.expect_err("not yet").code, ErrorCode::Unavailable);
    txn.abort().await.expect("aborted");
    let run = |txn: Txn| async move {
        txn.get("k").await?;
        txn.put("k", "v").await
    };
    client.transact(run).await.expect("a later run");
    assert_eq!(coordinator.value("k").expect("visible"), "v");
}
