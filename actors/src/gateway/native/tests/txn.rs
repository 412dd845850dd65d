//! Transactions through the native door.

use super::*;
use trandb_cluster::txn::{
    Isolation, TxnBatch, TxnId, TxnKey, TxnOp, TxnOutcome, TxnRequest, TxnResponse, TxnWrite,
};

fn key(key: &'static str) -> TxnKey {
    TxnKey { key: Bytes::from_static(key.as_bytes()), keyspace: None }
}

fn write(name: &'static str, value: Bytes) -> TxnOp {
    TxnOp::Write(TxnWrite { key: key(name), value: Some(value), condition: Condition::Any })
}

async fn ask(client: &mut Client, request: TxnRequest) -> Result<TxnResponse, Error> {
    client.ask(1, Request::Txn(request)).await;
    client.answer(1).await.map(|response| match response {
        Response::Txn(response) => response,
        other => panic!("{other:?}"),
    })
}

async fn begin(client: &mut Client, isolation: Isolation) -> TxnId {
    let request = TxnRequest::Begin { isolation, read_only: false, at: None, idle_timeout_ms: 0, run: 0 };
    match ask(client, request).await {
        Ok(TxnResponse::Begun { txn, .. }) => txn,
        other => panic!("{other:?}"),
    }
}

async fn value(client: &mut Client, txn: TxnId, name: &'static str) -> Option<Bytes> {
    match ask(client, TxnRequest::Op { txn, op: TxnOp::Get(key(name)) }).await {
        Ok(TxnResponse::Value(found)) => found.map(|found| found.value),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_transaction_is_seen_when_it_commits_and_not_before() {
    let door = open().await;
    let (mut one, mut two) = (Client::enter(door.addr).await, Client::enter(door.addr).await);
    let txn = begin(&mut one, Isolation::Serializable).await;
    let largest = filled(VALUE_BYTES_MAX);
    let op = write("k", largest.clone());
    assert_eq!(ask(&mut one, TxnRequest::Op { txn, op }).await, Ok(TxnResponse::Done));
    // Any connection serves it.
    assert_eq!(value(&mut two, txn, "k").await, Some(largest.clone()));
    two.ask(2, get("k")).await;
    assert_eq!(two.answer(2).await, Ok(Response::Value(None)));
    let outcome = ask(&mut two, TxnRequest::Outcome { txn }).await;
    assert_eq!(outcome, Ok(TxnResponse::Outcome(TxnOutcome::Open)));

    let committed = ask(&mut two, TxnRequest::Commit { txn }).await;
    assert!(matches!(committed, Ok(TxnResponse::Outcome(TxnOutcome::Committed(_)))), "{committed:?}");
    assert_eq!(ask(&mut one, TxnRequest::Commit { txn }).await, committed);
    assert_eq!(ask(&mut one, TxnRequest::Abort { txn }).await, committed);
    two.ask(3, get("k")).await;
    let Ok(Response::Value(Some(found))) = two.answer(3).await else { panic!("not there") };
    assert_eq!(found.value, largest);
}

#[tokio::test]
async fn a_conflict_and_an_abort_leave_nothing() {
    let door = open().await;
    let mut client = Client::enter(door.addr).await;
    let (late, early) =
        (begin(&mut client, Isolation::Snapshot).await, begin(&mut client, Isolation::Snapshot).await);
    for (txn, text) in [(late, "late"), (early, "early")] {
        let op = write("k", Bytes::from_static(text.as_bytes()));
        ask(&mut client, TxnRequest::Op { txn, op }).await.expect("buffered");
    }
    ask(&mut client, TxnRequest::Commit { txn: early }).await.expect("the first");
    let error = ask(&mut client, TxnRequest::Commit { txn: late }).await.expect_err("the second");
    assert_eq!(error.code, ErrorCode::Conflict);
    let gone = begin(&mut client, Isolation::Snapshot).await;
    let op = write("other", Bytes::from_static(b"v"));
    ask(&mut client, TxnRequest::Op { txn: gone, op }).await.expect("buffered");
    let aborted = ask(&mut client, TxnRequest::Abort { txn: gone }).await;
    assert!(matches!(aborted, Ok(TxnResponse::Outcome(TxnOutcome::Aborted(_)))), "{aborted:?}");
    client.ask(2, get("other")).await;
    assert_eq!(client.answer(2).await, Ok(Response::Value(None)));
    client.ask(3, get("k")).await;
    assert!(matches!(client.answer(3).await, Ok(Response::Value(Some(found))) if found.value == "early"));
}

#[tokio::test]
async fn a_batch_is_done_as_a_whole_or_not() {
    let door = open().await;
    let mut client = Client::enter(door.addr).await;
    let batch = |condition| {
        let last = TxnWrite { key: key("b"), value: None, condition };
        let ops = vec![write("a", Bytes::from_static(b"1")), TxnOp::Get(key("a")), TxnOp::Write(last)];
        TxnRequest::Batch(TxnBatch { id: None, run: 0, isolation: Isolation::Serializable, ops })
    };
    let error = ask(&mut client, batch(Condition::Present)).await.expect_err("there is no b");
    assert_eq!(error.code, ErrorCode::ConditionFailed);
    client.ask(2, get("a")).await;
    assert_eq!(client.answer(2).await, Ok(Response::Value(None)));
    let Ok(TxnResponse::Batch { results, .. }) = ask(&mut client, batch(Condition::Any)).await else {
        panic!("not done")
    };
    assert!(matches!(&results[1], TxnResponse::Value(Some(found)) if found.value == "1"), "{results:?}");
    assert_eq!((&results[0], &results[2]), (&TxnResponse::Done, &TxnResponse::Done));
}

#[tokio::test]
async fn a_batchs_results_fit_a_frame_or_nothing_is_done() {
    let door = open().await;
    let mut client = Client::enter(door.addr).await;
    client.ask(2, put(Bytes::from_static(b"large"), filled(VALUE_BYTES_MAX), Condition::Any)).await;
    client.answer(2).await.expect("written");
    let batch = |reads| {
        let mut ops = vec![TxnOp::Get(key("large")); reads];
        ops.push(write("done", Bytes::from_static(b"v")));
        TxnRequest::Batch(TxnBatch { id: None, run: 0, isolation: Isolation::Serializable, ops })
    };
    let error = ask(&mut client, batch(2)).await.expect_err("two of the largest");
    assert_eq!(error.code, ErrorCode::TooLarge);
    client.ask(3, get("done")).await;
    assert_eq!(client.answer(3).await, Ok(Response::Value(None)));
    let Ok(TxnResponse::Batch { results, .. }) = ask(&mut client, batch(1)).await else { panic!("not done") };
    assert!(matches!(&results[0], TxnResponse::Value(Some(found)) if found.value.len() == VALUE_BYTES_MAX));
}

#[tokio::test]
async fn what_is_wrong_is_named_before_the_database_is_asked() {
    let door = open().await;
    let mut client = Client::enter(door.addr).await;
    let txn = TxnId::default();
    let elsewhere = TxnKey { keyspace: Some("nowhere".to_owned()), ..key("k") };
    let past = ScanRequest { at: Some(Timestamp(1)), ..ScanRequest::default() };
    let version_zero =
        TxnWrite { key: key("k"), value: None, condition: Condition::Version(Timestamp::ZERO) };
    let batch =
        |ops| TxnRequest::Batch(TxnBatch { id: None, run: 0, isolation: Isolation::Serializable, ops });
    let cases = [
        (TxnRequest::Op { txn, op: TxnOp::Get(key("")) }, "invalid: the key is empty"),
        (TxnRequest::Op { txn, op: TxnOp::Lock(elsewhere) }, "not_found: no keyspace \"nowhere\""),
        (
            TxnRequest::Op { txn, op: write("k", filled(VALUE_BYTES_MAX + 1)) },
            "too_large: the value has 4194305 bytes, the limit is 4194304",
        ),
        (TxnRequest::Op { txn, op: TxnOp::Write(version_zero) }, "invalid: no value has version 0"),
        (
            TxnRequest::Op { txn, op: TxnOp::Scan(past) },
            "invalid: a scan within a transaction reads as of the transaction, not at another time",
        ),
        (
            TxnRequest::Begin {
                isolation: Isolation::Snapshot,
                read_only: false,
                at: Some(Timestamp(1)),
                idle_timeout_ms: 0,
                run: 0,
            },
            "invalid: only a read-only transaction can read the past",
        ),
        (batch(Vec::new()), "invalid: the batch has no operations"),
        (batch(vec![TxnOp::Get(key("k")), TxnOp::Get(key(""))]), "invalid: operation 1: the key is empty"),
    ];
    for (request, message) in cases {
        let error = ask(&mut client, request).await.expect_err(message);
        assert_eq!(error.to_string(), message);
    }
    assert_eq!(*door.database.calls.borrow(), 0);
}

#[tokio::test]
async fn waiting_for_a_lock_holds_up_nobody_else() {
    let door = open().await;
    let mut client = Client::enter(door.addr).await;
    let (holder, waiter) = (
        begin(&mut client, Isolation::Serializable).await,
        begin(&mut client, Isolation::Serializable).await,
    );
    let lock = |txn| Request::Txn(TxnRequest::Op { txn, op: TxnOp::Lock(key("k")) });
    client.ask(1, lock(holder)).await;
    assert_eq!(client.answer(1).await, Ok(Response::Txn(TxnResponse::Done)));
    client.ask(2, lock(waiter)).await;
    client.ask(3, get("k")).await;
    assert_eq!(client.answer(3).await, Ok(Response::Value(None)), "answered first");
    client.ask(4, Request::Txn(TxnRequest::Abort { txn: holder })).await;
    let mut answered = Vec::new();
    for _ in 0..2 {
        let ServerFrame::Response { id, result: Ok(_), .. } = client.receive().await else {
            panic!("refused")
        };
        answered.push(id);
    }
    answered.sort_unstable();
    assert_eq!(answered, [2, 4]);

    let short = RequestFrame { id: 5, deadline_ms: 50, trace: None, body: lock(holder) };
    client.send(&short).await;
    assert_eq!(client.answer(5).await.expect_err("it has ended").code, ErrorCode::Conflict);
    let third = begin(&mut client, Isolation::Serializable).await;
    client.send(&RequestFrame { id: 6, body: lock(third), ..short }).await;
    assert_eq!(client.answer(6).await.expect_err("held").code, ErrorCode::Unavailable);
}

#[tokio::test]
async fn a_connection_that_ends_leaves_what_it_has_not_ended() {
    let door = open().await;
    let mut client = Client::enter(door.addr).await;
    let mut txns = Vec::new();
    for _ in 0..4 {
        txns.push(begin(&mut client, Isolation::Serializable).await);
    }
    for &txn in &txns[1..] {
        let op = write("k", Bytes::from_static(b"v"));
        ask(&mut client, TxnRequest::Op { txn, op }).await.expect("buffered");
    }
    ask(&mut client, TxnRequest::Commit { txn: txns[2] }).await.expect("committed");
    assert!(door.database.left.lock().expect("nobody panics").is_empty(), "the connection is there");
    drop(client);
    let left = || door.database.left.lock().expect("nobody panics").clone();
    while left().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(left(), [txns[1], txns[3]], "one had nothing that others could wait for");
}
