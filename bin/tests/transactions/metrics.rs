//! What the metrics say of transactions.

use crate::harness::Cluster;
use std::time::Duration;
use trandb_client::{Batch, Client, ErrorCode};

/// The sum over all nodes of a metric's values with these labels.
fn sum(cluster: &Cluster, name: &str, labels: &[&str]) -> f64 {
    cluster.nodes.iter().map(|node| node.metric(name, labels)).sum()
}

#[test]
fn what_transactions_do_is_counted() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    // A leader that moves takes no locks along.
    cluster.wait_spread();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let addrs = cluster.addrs();
    let before = |name: &str, labels: &[&str]| sum(&cluster, name, labels);
    assert_eq!(before("trandb_txn_conflicts_total", &[]), 0.0, "nothing was done");
    runtime.block_on(async {
        let client =
            Client::builder().timeout(crate::harness::PATIENCE).connect(&addrs).await.expect("connects");
        // Over all partitions, and in one.
        let all = (0..20).fold(Batch::new(), |batch, at| batch.put(format!("all/{at}"), "v"));
        client.batch(all).await.expect("is done");
        client.batch(Batch::new().put("one", "v")).await.expect("is done");

        // It loses its first run, as somebody else changes what it has read.
        let (runs, other) = (std::sync::atomic::AtomicU32::new(0), client.clone());
        let run = async |txn: trandb_client::Txn| {
            txn.get("one").await?;
            if runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
                other.put("one", "other").await?;
            }
            txn.put("one", "mine").await
        };
        client.transact(run).await.expect("the second time");
        assert!(runs.into_inner() >= 2);

        // One waits for the other's lock, and gets it.
        let (holder, waiter) = (client.begin().await.expect("opened"), client.begin().await.expect("opened"));
        holder.lock("busy").await.expect("is free");
        let (got, ()) = tokio::join!(waiter.lock("busy"), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            holder.abort().await.expect("is aborted");
        });
        got.expect("its turn");
        waiter.abort().await.expect("is aborted");

        // They wait for each other.
        let (one, two) = (client.begin().await.expect("opened"), client.begin().await.expect("opened"));
        one.lock("left").await.expect("is free");
        two.lock("right").await.expect("is free");
        let ended = async |txn: trandb_client::Txn, key| {
            let locked = txn.lock(key).await;
            txn.abort().await.expect("has ended");
            locked
        };
        let (first, second) = tokio::join!(ended(one, "right"), ended(two, "left"));
        let errors: Vec<_> = [first, second].into_iter().filter_map(Result::err).collect();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(errors[0].code, ErrorCode::Conflict, "{errors:?}");
    });
    for (name, labels, least) in [
        ("trandb_txn_commits_total", &["kind=\"several\""][..], 1.0),
        ("trandb_txn_commits_total", &["kind=\"one\""], 2.0),
        ("trandb_txn_aborts_total", &["cause=\"changed\""], 1.0),
        ("trandb_txn_aborts_total", &["cause=\"client\""], 3.0),
        ("trandb_txn_aborts_total", &["cause=\"deadlock\""], 1.0),
        ("trandb_txn_conflicts_total", &["keyspace=\"default\"", "cause=\"changed\""], 1.0),
        ("trandb_txn_retries_total", &["kind=\"transaction\""], 1.0),
        ("trandb_txn_lock_wait_seconds_count", &[], 5.0),
        ("trandb_txn_lock_wait_seconds_sum", &[], 0.25),
        ("trandb_txn_deadlocks_total", &[], 1.0),
        ("trandb_txn_prepare_seconds_count", &[], 1.0),
        ("trandb_txn_decide_seconds_count", &[], 1.0),
        ("trandb_txn_commit_seconds_count", &["kind=\"several\""], 1.0),
        ("trandb_requests_total", &["kind=\"txn_names\"", "outcome=\"ok\""], 1.0),
    ] {
        let found = sum(&cluster, name, labels);
        assert!(found >= least, "{name} {labels:?} is {found}");
    }
    for node in &cluster.nodes {
        for name in ["trandb_txn_intents", "trandb_txn_held", "trandb_txn_locked_keys"] {
            let samples = node.samples(name);
            for partition in 1..=4 {
                let labels = format!("{{partition=\"{partition}\"}}");
                assert!(samples.iter().any(|(said, _)| *said == labels), "{name}{labels} is not there");
            }
        }
    }
}
