//! What must hold after a death: others go on, nothing is held, all or nothing was done.

use crate::harness::Cluster;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use trandb_client::{Client, TxnId, TxnOutcome};
use trandb_cluster::limits::TXN_LEASE_MS;

/// The longest that anybody else may be blocked: the lease, and until there is a new leader.
pub(crate) const BLOCKED_MAX: Duration = Duration::from_millis(TXN_LEASE_MS + 2000);

/// Nothing may be held after that.
const HELD_MAX: Duration = Duration::from_secs(5);

/// How long a gauge may be behind.
const GAUGE_LAG: Duration = Duration::from_millis(1200);

/// Transactions that hold something on any of these nodes.
fn held(cluster: &Cluster, nodes: &[usize]) -> u64 {
    nodes.iter().map(|&node| cluster.nodes[node].metric("trandb_txn_held", &[]) as u64).sum()
}

async fn timed<T, E>(work: impl Future<Output = Result<T, E>>) -> (Duration, Result<T, E>) {
    let began = Instant::now();
    let result = work.await;
    (began.elapsed(), result)
}

/// Looks at what a transaction left behind when somebody died, `whole` being keys that only it has written since they
/// were "old". Its outcome, and how long others took.
#[allow(clippy::too_many_arguments, reason = "all of them are what the two kinds of deaths have in common")]
pub(crate) fn look(
    cluster: &Cluster,
    runtime: &Runtime,
    at: &str,
    living: &[usize],
    client: &Client,
    keys: &[String; 4],
    whole: &[&String],
    txn: TxnId,
) -> (TxnOutcome, String) {
    let died = Instant::now();
    // Others, who want the same keys at once: readers, and writers of the second key of each partition.
    let took = runtime.block_on(async {
        let reads = tokio::join!(timed(client.get(&keys[0])), timed(client.get(&keys[2])));
        let writes = async {
            let writes = tokio::join!(timed(client.put(&keys[1], "w")), timed(client.put(&keys[3], "w")));
            writes.0.1.and(writes.1.1).map(|_| writes.0.0.max(writes.1.0))
        };
        let written = writes.await.unwrap_or_else(|error| panic!("{at}: {error}"));
        let [first, second] = [reads.0, reads.1].map(|(took, read)| {
            read.unwrap_or_else(|error| panic!("{at}: {error}"));
            took
        });
        [first, second, written]
    });
    let blocked = died.elapsed();
    assert!(blocked < BLOCKED_MAX, "{at}: others were blocked for {took:?}");

    let ask = || runtime.block_on(client.outcome(txn)).unwrap_or_else(|error| panic!("{at}: {error}"));
    let mut outcome = ask();
    while held(cluster, living) > 0 {
        let after = died.elapsed();
        assert!(after < HELD_MAX + GAUGE_LAG, "{at}: something is held after {after:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let free = died.elapsed();
    let found = whole.iter().map(|key| {
        let found = runtime.block_on(client.get(key)).expect("is read").expect("is there");
        (found.value.to_vec(), found.version)
    });
    let found: Vec<_> = found.collect();
    if outcome == TxnOutcome::Open && found.iter().any(|(value, _)| value != b"old") {
        // It has committed between the question and the look.
        outcome = ask();
        assert_ne!(outcome, TxnOutcome::Open, "{at}: {found:?}");
    }
    match &outcome {
        TxnOutcome::Committed(when) => {
            assert!(found.iter().all(|found| *found == (b"new".to_vec(), *when)), "{at}: {found:?}");
        }
        // One that has not ended has nothing that others would see or wait for.
        TxnOutcome::Aborted(_) | TxnOutcome::Open => {
            assert!(found.iter().all(|(value, _)| value == b"old"), "{at}: {found:?}");
        }
        other => panic!("{at}: {other:?}"),
    }
    let times = format!("others went on after {blocked:?}, nothing was held after {free:?}");
    (outcome, times)
}
