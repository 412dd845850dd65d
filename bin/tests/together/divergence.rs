//! A byte changes in the memory of one of three nodes while clients go on: it is found, named, and repaired, wherever the
//! leader is, and whether the replica's own digest gives it away or the others' digests do. No client notices.
//!
//! Nobody reads the key that is damaged until it is repaired: a leader serves what it has until it is found wrong.

use crate::harness::{Cluster, Node, StopOnDrop, eventually};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use trandb_client::blocking::Client;
use trandb_cluster::wire::PartitionView;
use trandb_cluster::{EncodedKey, KeyspaceId, NodeId, PartitionId};

/// From the damage to the end of the alarm, at most.
const WITHIN: Duration = Duration::from_secs(10);

/// Keys of which some are damaged; each partition has some.
const KEYS: usize = 40;

/// Writes, reads back, and reads what others wrote, until stopped; what was not as it should be.
fn go_on(name: usize, client: &Client, stop: &AtomicBool, rounds: &AtomicUsize) -> Vec<String> {
    let mut wrong = Vec::new();
    for round in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (key, value) = (format!("own/{name}/{}", round % 50), round.to_string());
        if let Err(error) = client.put(&key, value.clone()) {
            wrong.push(format!("put {key}: {error}"));
        }
        match client.get(&key) {
            Ok(Some(found)) if found.value == value => {}
            other => wrong.push(format!("get {key}: {other:?} instead of {value}")),
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
    wrong
}

fn partition_of(view: &[PartitionView], key: &str) -> PartitionView {
    let token = EncodedKey::from_parts(KeyspaceId::DEFAULT, key.as_bytes()).token();
    let start = |partition: &PartitionView| u64::from_str_radix(&partition.start, 16).expect("a token");
    let data = || view.iter().filter(|partition| !partition.id.is_system());
    let before = data().filter(|partition| start(partition) <= token.0).max_by_key(|one| start(one));
    before.or_else(|| data().max_by_key(|one| start(one))).expect("there are partitions").clone()
}

/// A key of the damaged family and its partition, which that node leads or does not, and whose replica there was not
/// `used` before: one that was just rebuilt is not rebuilt again at once.
fn key_where(
    view: &[PartitionView],
    node: NodeId,
    leads: bool,
    used: &mut BTreeSet<(NodeId, PartitionId)>,
) -> (String, PartitionView) {
    let keys = (0..KEYS).map(|number| format!("damaged-{number}"));
    let mut placed = keys.map(|key| (partition_of(view, &key), key));
    let fits = |partition: &PartitionView| {
        partition.leader.is_some_and(|leader| (leader == node) == leads)
            && !used.contains(&(node, partition.id))
    };
    let (partition, key) = placed.find(|(partition, _)| fits(partition)).expect("leaders are spread");
    used.insert((node, partition.id));
    (key, partition)
}

/// How often that node has rebuilt its replica of the partition.
fn rebuilds(node: &Node, partition: &PartitionView) -> u64 {
    let label = format!("partition=\"{}\"", partition.id.0);
    node.metric("trandb_replica_rebuilds_total", &[&label]) as u64
}

fn alarms(node: &Node) -> Vec<String> {
    let answer = node.http_once("GET", "/readyz", &[], b"");
    let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("readiness");
    let alarms = body["details"].as_array().expect("details").iter();
    alarms.map(|alarm| alarm.as_str().expect("text").to_owned()).collect()
}

/// Changes a value at that node and sees the alarm and its end; the key, and how long that took.
fn damage(
    cluster: &Cluster,
    at: usize,
    leads: bool,
    with_digest: bool,
    used: &mut BTreeSet<(NodeId, PartitionId)>,
) -> (String, Duration) {
    let node = &cluster.nodes[at];
    let view = node.view();
    let (key, partition) = key_where(&view.partitions, view.answered_by, leads, used);
    let before = rebuilds(node, &partition);
    let flipped = node.http("POST", &format!("/admin/debug/flip?key={key}&digest={with_digest}"), &[], b"");
    assert_eq!(flipped.status, 204, "{}", flipped.text());
    let since = Instant::now();
    let named = format!("{}: the replica on {} is wrong", partition.id, view.answered_by);
    // It is there for as long as the repair takes, so this looks without a pause.
    while !alarms(node).iter().any(|alarm| alarm.starts_with(&named)) {
        assert!(since.elapsed() < WITHIN, "{named:?} is not alarmed within {WITHIN:?}: {}", node.log());
    }
    eventually("the replica to be rebuilt and all alarms to end", || {
        let left: Vec<_> = cluster.nodes.iter().flat_map(alarms).collect();
        if rebuilds(node, &partition) > before && left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    (key, since.elapsed())
}

#[test]
fn a_byte_that_changes_in_memory_is_found_and_repaired_while_clients_go_on() {
    let mut cluster = Cluster::start(3, &["--partitions", "8"]);
    cluster.wait_spread();
    let client = cluster.client();
    for number in 0..KEYS {
        client.put(format!("damaged-{number}"), "as it was written").expect("is written");
    }
    let clients: Vec<_> = (0..3).map(|_| cluster.client()).collect();
    let (stop, rounds, wrong) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for (name, client) in clients.iter().enumerate() {
            let (stop, rounds, wrong) = (&stop, &rounds, &wrong);
            scope.spawn(move || {
                wrong.lock().expect("no panic").extend(go_on(name, client, stop, rounds));
            });
        }
        let mut used = BTreeSet::new();
        let damages =
            [(0, false, false), (1, true, false), (2, true, false), (1, false, true), (0, true, true)];
        for (at, leads, with_digest) in damages {
            // What was repaired last may lead again, and is found right.
            cluster.wait_spread();
            let before = rounds.load(Ordering::Relaxed);
            let (key, took) = damage(&cluster, at, leads, with_digest, &mut used);
            println!("n{}, leads: {leads}, digest: {with_digest}: repaired after {took:?}", at + 1);
            assert!(took < WITHIN, "{took:?}\n{}", cluster.nodes[at].log());
            let found = client.get(&key).expect("is read").expect("is there");
            assert_eq!(found.value, "as it was written");
            // A follower answers for the past from its own memory.
            for node in &cluster.nodes {
                let past = node.client().get_at(&key, found.version).expect("is read").expect("is there");
                assert_eq!(past.value, "as it was written", "{key} at {}", node.ports.http);
            }
            assert!(rounds.load(Ordering::Relaxed) > before, "clients went on");
        }
    });
    assert_eq!(*wrong.lock().expect("no panic"), Vec::<String>::new(), "what clients saw");
    cluster.wait_identical(3);
    // What was rebuilt is what a restart finds.
    for at in 0..3 {
        cluster.nodes[at].kill9();
        cluster.nodes[at].restart();
    }
    cluster.wait_identical(3);
    for number in 0..KEYS {
        let found = client.get(format!("damaged-{number}")).expect("is read").expect("is there");
        assert_eq!(found.value, "as it was written");
    }
}

#[test]
fn a_single_replica_is_alarmed_serves_on_and_is_right_after_a_restart() {
    let mut cluster = Cluster::start(1, &["--partitions", "2"]);
    let node = &mut cluster.nodes[0];
    let client = node.client();
    client.put("k", "value").expect("is written");
    assert_eq!(node.http("POST", "/admin/debug/flip?key=k", &[], b"").status, 204);
    eventually("an alarm", || match alarms(node) {
        alarms if alarms.iter().any(|alarm| alarm.contains("its memory is not what was written")) => Ok(()),
        alarms => Err(format!("{alarms:?}")),
    });
    assert_ne!(client.get("k").expect("is read").expect("is there").value, "value", "nobody knows better");
    client.put("other", "value").expect("is written");
    assert_eq!(node.http_once("GET", "/readyz", &[], b"").status, 200, "there is nobody else to serve");
    let report = client.verify().expect("is answered");
    assert!(!report.identical, "{report:?}");
    for (query, status) in [("", 400), ("?key=absent", 404), ("?partition=1", 400)] {
        assert_eq!(node.http_once("POST", &format!("/admin/debug/flip{query}"), &[], b"").status, status);
    }
    // What is wrong was not made durable.
    node.sigterm();
    assert_eq!(node.wait_exit(), Some(0), "{}", node.log());
    node.restart();
    assert_eq!(client.get("k").expect("is read").expect("is there").value, "value");
    assert_eq!(client.get("other").expect("is read").expect("is there").value, "value");
    assert!(client.verify().expect("is answered").identical);
    assert_eq!(alarms(node), Vec::<String>::new());
}
