//! Answers are lost on purpose; what became of what they answered is found out.

use crate::harness::{Cluster, PATIENCE};
use crate::lossy::Lossy;
use trandb_client::{Batch, BatchResult, Client, Condition, Txn, Versioned};
use trandb_cluster::txn::TxnRequest;

/// Tasks that count at the same time.
const COUNTERS: usize = 4;

/// Increments by each.
const INCREMENTS: usize = 50;

fn number(found: Option<Versioned>) -> u64 {
    found.map_or(0, |found| String::from_utf8_lossy(&found.value).parse().expect("a number"))
}

/// Counts up on two keys, which lie on one partition or two.
async fn increment(txn: Txn) -> Result<(), trandb_client::Error> {
    for key in ["counter/a", "counter/b"] {
        let next = number(txn.get(key).await?) + 1;
        txn.put(key, next.to_string()).await?;
    }
    Ok(())
}

/// Counts on both keys, every tenth answer to what `picks` picks being lost; answers how many were.
fn count(picks: fn(&TxnRequest) -> bool) -> u64 {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let lossy = Lossy::new(10, picks);
    let addrs = cluster.addrs();
    runtime.block_on(async {
        let client = Client::builder().timeout(PATIENCE).dialer(lossy.clone()).connect(&addrs).await;
        let client = client.expect("connects");
        let counters = (0..COUNTERS).map(|_| {
            let client = client.clone();
            async move {
                for _ in 0..INCREMENTS {
                    client.transact(increment).await.expect("comes through in time");
                }
            }
        });
        futures_util::future::join_all(counters).await;
        for key in ["counter/a", "counter/b"] {
            assert_eq!(
                number(client.get(key).await.expect("is read")),
                (COUNTERS * INCREMENTS) as u64,
                "{key}"
            );
        }
    });
    cluster.wait_identical(3);
    lossy.lost()
}

#[test]
fn a_counter_is_exact_though_every_tenth_answer_to_a_commit_is_lost() {
    let lost = count(|request| matches!(request, TxnRequest::Commit { .. }));
    assert!(lost >= (COUNTERS * INCREMENTS / 10 - 1) as u64, "{lost} answers were lost");
}

#[test]
fn a_counter_is_exact_though_every_tenth_answer_about_a_transaction_is_lost() {
    let lost = count(|_| true);
    // Each increment is five requests at the least.
    assert!(lost >= (COUNTERS * INCREMENTS / 2 - 1) as u64, "{lost} answers were lost");
}

/// One batch of a chain: it takes the link before it away and leaves its own, which nobody may have left before. Done
/// twice it would fail, not done it would make the next one fail.
fn link(chain: usize, number: usize) -> Batch {
    let key = |number: usize| format!("chain/{chain}/{number}");
    let batch = Batch::new()
        .put_if(key(number), number.to_string(), Condition::Absent)
        .put(format!("ledger/{chain}/{number}"), "done")
        .get(format!("ledger/{chain}/{number}"));
    match number.checked_sub(1) {
        Some(before) => batch.delete_if(key(before), Condition::Present),
        None => batch,
    }
}

#[test]
fn batches_are_done_once_though_every_tenth_answer_is_lost() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let lossy = Lossy::new(10, |request| matches!(request, TxnRequest::Batch(_)));
    let addrs = cluster.addrs();
    runtime.block_on(async {
        let client = Client::builder().timeout(PATIENCE).dialer(lossy.clone()).connect(&addrs).await;
        let client = client.expect("connects");
        let chains = (0..COUNTERS).map(|chain| {
            let client = client.clone();
            async move {
                let mut without_answer = 0;
                for number in 0..INCREMENTS {
                    let done = client.batch(link(chain, number)).await.expect("its outcome is known");
                    without_answer += usize::from(done.results[2] == BatchResult::Lost);
                    let found = client.get(format!("ledger/{chain}/{number}")).await.expect("is read");
                    assert_eq!(found.expect("was written").version, done.at, "{chain}/{number}");
                }
                without_answer
            }
        });
        let without_answer: usize = futures_util::future::join_all(chains).await.into_iter().sum();
        for chain in 0..COUNTERS {
            let page = client.scan(trandb_client::ScanRequest {
                prefix: format!("chain/{chain}/").into(),
                ..Default::default()
            });
            let left: Vec<_> = page.await.expect("is read").entries.into_iter().map(|e| e.value).collect();
            assert_eq!(left, [(INCREMENTS - 1).to_string()], "one link is left");
        }
        let lost = lossy.lost();
        assert!(lost >= (COUNTERS * INCREMENTS / 10 - 1) as u64, "{lost} answers were lost");
        assert!(without_answer > 0, "none of {lost} had been done");
    });
    cluster.wait_identical(3);
}
