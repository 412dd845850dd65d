//! What a transaction may hold, and for how long.

use crate::harness::{Cluster, eventually};
use std::time::{Duration, Instant};
use trandb_client::{Client, ErrorCode, TxnOptions, TxnOutcome};
use trandb_cluster::limits::VALUE_BYTES_MAX;

/// Operations of one transaction.
const OPERATIONS_MAX: usize = 10_000;

#[test]
fn ten_thousand_writes_commit_and_one_more_is_refused() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let addrs = cluster.addrs();
    runtime.block_on(async {
        let client =
            Client::builder().timeout(crate::harness::PATIENCE).connect(&addrs).await.expect("connects");
        let txn = client.begin().await.expect("opened");
        for first in (0..OPERATIONS_MAX).step_by(500) {
            let writes = (first..first + 500).map(|at| txn.put(format!("many/{at:05}"), at.to_string()));
            for written in futures_util::future::join_all(writes).await {
                written.expect("is buffered");
            }
        }
        let error = txn.put("many/over", "v").await.expect_err("one too many");
        assert_eq!(error.code, ErrorCode::TooLarge, "{error}");
        assert!(error.message.contains("10000"), "{error}");
        let at = txn.commit().await.expect("as many as are allowed");
        for key in ["many/00000", "many/05000", "many/09999"] {
            let found = client.get(key).await.expect("is read").expect("is there");
            assert_eq!(found.version, at, "{key}");
        }
        assert_eq!(client.get("many/over").await, Ok(None));
    });
    // The other partitions hear a little later that it is committed.
    eventually("all that was written", || match cluster.wait_identical(3) as usize {
        OPERATIONS_MAX => Ok(()),
        fewer => Err(format!("{fewer} keys")),
    });
}

#[test]
fn the_largest_value_fits_and_is_read_back_through_every_node() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    let large: Vec<u8> = (0..VALUE_BYTES_MAX).map(|at| ((at * 31) >> 3) as u8).collect();
    let txn = cluster.nodes[0].client().begin().expect("opened");
    txn.put("large", large.clone()).expect("is buffered");
    txn.put("small", "v").expect("is buffered");
    assert_eq!(txn.get("large").expect("is read").expect("its own").value, large);
    txn.commit().expect("is committed");
    for node in &cluster.nodes {
        let client = node.client();
        let again = client.begin().expect("opened");
        assert_eq!(again.get("large").expect("is read").expect("is there").value, large);
        assert_eq!(client.get("small").expect("is read").expect("is there").value, "v");
    }
    let id = cluster.nodes[1].http("POST", "/txn", &[], b"").json()["id"].as_str().expect("text").to_owned();
    let path = format!("/txn/{id}/keys/large");
    assert_eq!(cluster.nodes[2].http("GET", &path, &[], b"").body, large);
    let mut larger = large;
    larger.push(0);
    assert_eq!(cluster.nodes[2].http("PUT", &path, &[], &larger).status, 413);
    cluster.wait_identical(3);
}

#[test]
fn an_idle_transaction_is_aborted_and_says_so() {
    let cluster = Cluster::start(1, &["--partitions", "4"]);
    let client = cluster.client();
    let idle_timeout = Duration::from_millis(500);
    let options = TxnOptions { idle_timeout: Some(idle_timeout), ..TxnOptions::default() };
    let (idle, busy) =
        (client.begin_with(options).expect("opened"), client.begin_with(options).expect("opened"));
    let began = Instant::now();
    idle.put("idle", "v").expect("is buffered");
    let mut at = 0;
    while began.elapsed() < 4 * idle_timeout {
        busy.put("busy", at.to_string()).expect("it is not idle");
        at += 1;
        std::thread::sleep(idle_timeout / 10);
    }
    busy.commit().expect("it was not idle");

    let error = idle.get("idle").expect_err("it was idle");
    assert_eq!(error.code, ErrorCode::Conflict, "{error}");
    assert!(error.message.contains("nothing was asked of it"), "{error}");
    let outcome = eventually("an outcome", || client.outcome(idle.id()));
    assert!(
        matches!(&outcome, TxnOutcome::Aborted(reason) if reason.contains("nothing was asked of it")),
        "{outcome:?}"
    );
    let by_http = cluster.nodes[0].http("POST", &format!("/txn/{}/commit", idle.id()), &[], b"");
    assert_eq!(by_http.status, 409, "{}", by_http.text());
    assert!(
        by_http.json()["detail"].as_str().is_some_and(|why| why.contains("nothing was asked of it")),
        "{}",
        by_http.text()
    );
    assert_eq!(client.get("idle"), Ok(None));
}
