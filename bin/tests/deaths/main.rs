//! A node ends at a named step of a transaction's protocol, as its coordinator, as the leader of a partition that takes
//! part, of the anchor, of the oracle. Whatever the step: nobody is blocked for much longer than the lease, after five
//! seconds nothing of the transaction is held any more, all of it was done or nothing, and its outcome says which.

// Whole processes on a real machine: the doors of the simulation are not theirs.
#![allow(clippy::disallowed_methods)]

#[path = "../harness/mod.rs"]
mod harness;

use harness::{Cluster, PATIENCE, eventually, request};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use trandb_client::{Client, NodeId, PartitionId, TxnId, TxnOutcome};
use trandb_cluster::limits::TXN_LEASE_MS;
use trandb_cluster::{EncodedKey, Key, KeyspaceId};

/// How soon a dead node's partitions are led again is part of what is looked at.
const TIMING: [(&str, &str); 0] = [];

/// Partitions: enough that every node leads some.
const PARTITIONS: &str = "8";

/// The longest that anybody else may be blocked: the lease, and until there is a new leader.
const BLOCKED_MAX: Duration = Duration::from_millis(TXN_LEASE_MS + 2000);

/// Nothing may be held after that.
const HELD_MAX: Duration = Duration::from_secs(5);

/// How long a gauge may be behind.
const GAUGE_LAG: Duration = Duration::from_millis(1200);

/// Who ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// The node where the transaction began.
    Coordinator,
    /// The leader of the partition where it is decided: the first of those that it writes in.
    Anchor,
    /// The leader of the other one.
    Participant,
    /// The node that gives out timestamps.
    Oracle,
}

/// What a test of a few seconds looks at: one of each.
const SOME: &[(Who, &str)] = &[
    (Who::Coordinator, "prepared"),
    (Who::Participant, "prepare-applied"),
    (Who::Anchor, "decide-applied"),
    (Who::Oracle, "grant"),
];

/// All of them.
const ALL: &[(Who, &str)] = &[
    (Who::Coordinator, "one-prepared"),
    (Who::Coordinator, "prepared"),
    (Who::Coordinator, "decided"),
    (Who::Coordinator, "telling"),
    (Who::Participant, "prepare-taken"),
    (Who::Participant, "prepare-applied"),
    (Who::Participant, "resolve-taken"),
    (Who::Participant, "resolve-applied"),
    (Who::Anchor, "decide-taken"),
    (Who::Anchor, "decide-applied"),
    (Who::Anchor, "finish-taken"),
    (Who::Anchor, "finish-applied"),
    (Who::Anchor, "commit-taken"),
    (Who::Anchor, "commit-applied"),
    (Who::Oracle, "grant"),
];

/// Which nodes play which part, by their places.
struct Cast {
    coordinator: usize,
    anchor: usize,
    participant: usize,
    oracle: usize,
    /// Two keys of the anchor, then two of the other partition; the same two again where the commit is in one.
    keys: [String; 4],
}

/// Finds a part for each node, once each leads something.
fn cast(cluster: &Cluster, client: &Client, runtime: &Runtime, case: usize, who: Who, one: bool) -> Cast {
    let ids: Vec<NodeId> = cluster.nodes.iter().map(|node| node.view().answered_by).collect();
    eventually("a leader on each node", || {
        let topology = runtime.block_on(client.topology()).map_err(|error| error.to_string())?;
        let partition_of = |key: &str| {
            let key = Key::new(key.to_owned().into()).expect("valid");
            let token = EncodedKey::new(KeyspaceId::DEFAULT, &key).token();
            let after = topology.partitions.partition_point(|(start, _, _)| *start <= token);
            topology.partitions[after.checked_sub(1).unwrap_or(topology.partitions.len() - 1)].1
        };
        let led = |place: usize| {
            let id = ids[place];
            let of = topology.partitions.iter().filter(move |(_, _, leader)| *leader == Some(id));
            of.map(|(_, id, _)| *id)
        };
        let system = cluster.nodes[0].view().partitions.first().and_then(|system| system.leader);
        let oracle = ids.iter().position(|id| Some(*id) == system).ok_or("nobody leads the system group")?;
        // Who is to die does nothing else, as far as three nodes go. The anchor's partition comes first of the two.
        let roles = match who {
            Who::Coordinator => [[1, 0, 2], [1, 2, 0]],
            Who::Anchor | Who::Participant => [[0, 1, 2], [0, 2, 1]],
            Who::Oracle => [[1, 2, 0], [1, 0, 2]],
        };
        let roles = roles.map(|roles| roles.map(|after| (oracle + after) % ids.len()));
        let found = roles.into_iter().find_map(|[coordinator, anchor, participant]| {
            let (first, other) = (led(anchor).min()?, led(participant).max()?);
            (first < other).then_some((coordinator, anchor, participant, first, other))
        });
        let (coordinator, anchor, participant, first, other) = found.ok_or("a node leads nothing")?;
        let names = |part: &str, partition: PartitionId| {
            let all = (0..2000).map(|number| format!("deaths/{case}/{part}/{number}"));
            let mut found = all.filter(|key| partition_of(key) == partition);
            Some([found.next()?, found.next()?])
        };
        let [a, b] = names("anchor", first).ok_or("no keys")?;
        let [c, d] = match one {
            true => [a.clone(), b.clone()],
            false => names("other", other).ok_or("no keys")?,
        };
        let keys = [a, b, c, d];
        Ok::<_, String>(Cast { coordinator, anchor, participant, oracle, keys })
    })
}

/// Transactions that hold something on any of these nodes.
fn held(cluster: &Cluster, nodes: &[usize]) -> u64 {
    let of = |node: &usize| -> u64 {
        let metrics = cluster.nodes[*node].http("GET", "/metrics", &[], b"").text();
        let held = metrics.lines().filter(|line| line.starts_with("trandb_txn_held{"));
        held.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    };
    nodes.iter().map(of).sum()
}

async fn timed<T, E>(work: impl Future<Output = Result<T, E>>) -> (Duration, Result<T, E>) {
    let began = Instant::now();
    let result = work.await;
    (began.elapsed(), result)
}

fn dies(cluster: &mut Cluster, runtime: &Runtime, case: usize, who: Who, step: &str) {
    let at = format!("{who:?} at {step}");
    let everyone = runtime.block_on(Client::builder().timeout(PATIENCE).connect(cluster.addrs()));
    let Cast { coordinator, anchor, participant, oracle, keys } =
        cast(cluster, &everyone.expect("connects"), runtime, case, who, step.starts_with("commit"));
    let victim = match who {
        Who::Coordinator => coordinator,
        Who::Anchor => anchor,
        Who::Participant => participant,
        Who::Oracle => oracle,
    };
    let living: Vec<usize> = (0..cluster.nodes.len()).filter(|node| *node != victim).collect();
    let addrs: Vec<String> = living.iter().map(|&node| cluster.nodes[node].ports.native.clone()).collect();
    let client =
        runtime.block_on(Client::builder().timeout(PATIENCE).connect(addrs.join(","))).expect("connects");
    for key in &keys {
        runtime.block_on(client.put(key, "old")).expect("is written");
    }
    let node = &cluster.nodes[coordinator];
    let begun = node.http("POST", "/txn", &[], b"");
    let id = begun.json()["id"].as_str().expect("text").to_owned();
    for key in &keys {
        let path = format!("/txn/{id}/keys/{}", key.replace('/', "%2F"));
        assert_eq!(node.http("PUT", &path, &[], b"new").status, 200, "{at}");
    }
    let armed = cluster.nodes[victim].http("POST", &format!("/admin/debug/end?at={step}"), &[], b"");
    assert_eq!(armed.status, 204, "{}", armed.text());

    let door = cluster.nodes[living[0]].ports.http.clone();
    let path = format!("/txn/{id}/commit");
    let committing = runtime.spawn_blocking(move || request(&door, "POST", &path, &[], b""));
    cluster.nodes[victim].wait_exit();
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

    let txn: TxnId = id.parse().expect("an id");
    let outcome = runtime.block_on(client.outcome(txn)).unwrap_or_else(|error| panic!("{at}: {error}"));
    while held(cluster, &living) > 0 {
        let after = died.elapsed();
        assert!(after < HELD_MAX + GAUGE_LAG, "{at}: something is held after {after:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let free = died.elapsed();
    let whole = [&keys[0], &keys[2]];
    let found = whole.map(|key| {
        let found = runtime.block_on(client.get(key)).expect("is read").expect("is there");
        (found.value.to_vec(), found.version)
    });
    match &outcome {
        TxnOutcome::Committed(when) => {
            assert_eq!(found, [(b"new".to_vec(), *when), (b"new".to_vec(), *when)], "{at}");
        }
        TxnOutcome::Aborted(_) => {
            assert!(found.iter().all(|(value, _)| value == b"old"), "{at}: {found:?}");
        }
        other => panic!("{at}: {other:?}"),
    }
    // What the client was told, if anything, is what happened.
    if let Ok(told) = runtime.block_on(committing).expect("asks") {
        match told.status {
            200 => assert!(matches!(outcome, TxnOutcome::Committed(_)), "{at}: {}", told.text()),
            409 => assert!(matches!(outcome, TxnOutcome::Aborted(_)), "{at}: {}", told.text()),
            503 | 504 => {}
            other => panic!("{at}: answered {other}: {}", told.text()),
        }
    }
    let end = if matches!(outcome, TxnOutcome::Committed(_)) { "committed" } else { "aborted" };
    println!("{at}: {end}; others went on after {blocked:?}, nothing was held after {free:?}");
    cluster.nodes[victim].restart();
    let again = runtime.block_on(client.outcome(txn)).expect("is known");
    assert_eq!(again, outcome, "{at}: an outcome does not change");
}

fn run(cases: &[(Who, &str)]) {
    let mut cluster = Cluster::start(3, &["--partitions", PARTITIONS]);
    let runtime = Runtime::new().expect("a runtime");
    for (case, (who, step)) in cases.iter().enumerate() {
        dies(&mut cluster, &runtime, case, *who, step);
    }
    cluster.wait_identical(3);
}

#[test]
fn a_death_leaves_a_transaction_whole_and_nobody_blocked() {
    run(SOME);
}

#[test]
#[ignore = "takes minutes: every step of the protocol"]
fn a_death_at_every_step_leaves_a_transaction_whole_and_nobody_blocked() {
    run(ALL);
}
