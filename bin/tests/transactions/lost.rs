//! Answers to commits are lost on purpose; what they did is found out.

use crate::harness::{Cluster, PATIENCE};
use crate::lossy::Lossy;
use trandb_client::{Client, Txn, Versioned};

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

#[test]
fn a_counter_is_exact_though_every_tenth_answer_to_a_commit_is_lost() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let lossy = Lossy::new(10);
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
    let lost = lossy.lost();
    assert!(lost >= (COUNTERS * INCREMENTS / 10 - 1) as u64, "{lost} answers were lost");
    cluster.wait_identical(3);
}
