//! Transactions over three nodes: any node serves any of them, and what is committed is there for everyone.

use crate::harness::{Cluster, Node};
use std::time::Duration;
use trandb_client::blocking::Client;
use trandb_client::{ErrorCode, Isolation, ScanRequest, TxnOptions, TxnOutcome};

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("account/{number}")).collect()
}

fn balance(client: &Client, key: &str) -> u64 {
    let found = client.get(key).expect("is read").expect("is there");
    std::str::from_utf8(&found.value).expect("is text").parse().expect("is a number")
}

fn post(node: &Node, path: &str, body: &[u8]) -> (u16, serde_json::Value) {
    let answer = node.http("POST", path, &[("content-type", "application/json")], body);
    (answer.status, serde_json::from_str(&answer.text()).unwrap_or_default())
}

#[test]
fn a_transaction_over_all_partitions_is_all_or_nothing_through_any_node() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    let clients: Vec<_> = cluster.nodes.iter().map(|node| node.client()).collect();
    let keys = keys(12);

    let txn = clients[0].begin().expect("begins");
    for key in &keys {
        txn.put(key, "100").expect("is buffered");
    }
    assert_eq!(txn.get(&keys[3]).expect("is read").expect("its own write").value, "100");
    assert_eq!(clients[1].get(&keys[3]).expect("is read"), None, "nobody sees it before the commit");
    let committed = txn.commit().expect("commits");
    for (at, key) in keys.iter().enumerate() {
        let found = clients[at % 3].get(key).expect("is read").expect("was committed");
        assert_eq!((&found.value[..], found.version), (&b"100"[..], committed));
    }

    let txn = clients[1].begin().expect("begins");
    for key in &keys {
        txn.put(key, "0").expect("is buffered");
    }
    txn.abort().expect("aborts");
    assert!(keys.iter().all(|key| balance(&clients[2], key) == 100));

    // A scan sees the transaction's own writes, and others see one snapshot.
    let txn = clients[2].begin().expect("begins");
    txn.delete(&keys[0]).expect("is buffered");
    txn.put("account/new", "7").expect("is buffered");
    let scan = ScanRequest { prefix: "account/".into(), ..ScanRequest::default() };
    let page = txn.scan(scan.clone()).expect("is read");
    let found: Vec<_> = page.entries.iter().map(|entry| entry.key.clone()).collect();
    assert!(found.iter().any(|key| key == "account/new") && !found.iter().any(|key| key == "account/0"));
    assert_eq!(found.len(), 12);
    txn.commit().expect("commits");
    assert_eq!(clients[0].scan(scan).expect("is read").entries.len(), 12);
}

#[test]
fn conflicts_are_refused_as_the_level_says() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    let (one, two) = (cluster.nodes[0].client(), cluster.nodes[1].client());
    for (isolation, write_skew_passes, lost_update_passes) in [
        (Isolation::Serializable, false, false),
        (Isolation::Snapshot, true, false),
        (Isolation::ReadCommitted, true, true),
    ] {
        for key in ["skew/a", "skew/b", "skew/c"] {
            one.put(key, "1").expect("is written");
        }
        let options = || TxnOptions { isolation, ..TxnOptions::default() };
        let left = one.begin_with(options()).expect("begins");
        let right = two.begin_with(options()).expect("begins");
        for txn in [&left, &right] {
            txn.get("skew/a").expect("is read");
            txn.get("skew/b").expect("is read");
        }
        left.put("skew/a", "0").expect("is buffered");
        right.put("skew/b", "0").expect("is buffered");
        left.commit().expect("the first one commits");
        let second = right.commit();
        assert_eq!(second.is_ok(), write_skew_passes, "{isolation:?}: {second:?}");
        assert!(second.is_ok() || second.expect_err("refused").code == ErrorCode::Conflict);

        let left = one.begin_with(options()).expect("begins");
        let right = two.begin_with(options()).expect("begins");
        left.get("skew/c").expect("is read");
        right.get("skew/c").expect("is read");
        left.put("skew/c", "2").expect("is buffered");
        right.put("skew/c", "3").expect("is buffered");
        left.commit().expect("the first one commits");
        assert_eq!(right.commit().is_ok(), lost_update_passes, "{isolation:?}");
    }
}

#[test]
fn any_node_serves_any_transaction_and_says_what_became_of_it() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    let node = |at: usize| &cluster.nodes[at % 3];
    for at in 0..3 {
        let (status, begun) = post(node(at), "/txn", b"{}");
        assert_eq!(status, 201, "{begun}");
        let id = begun["id"].as_str().expect("has an id").to_owned();
        for number in 0..6 {
            let path = format!("/txn/{id}/keys/any%2F{at}%2F{number}");
            let put = node(at + number).http("PUT", &path, &[], b"value");
            assert_eq!(put.status, 200, "{}", put.text());
        }
        let open = node(at + 2).http("GET", &format!("/txn/{id}"), &[], b"");
        assert!(open.text().contains("open"), "{}", open.text());
        let (status, committed) = post(node(at + 1), &format!("/txn/{id}/commit"), b"");
        assert_eq!((status, committed["outcome"].as_str()), (200, Some("committed")), "{committed}");
        for asked in 0..3 {
            let outcome = node(asked).http("GET", &format!("/txn/{id}"), &[], b"").text();
            assert!(outcome.contains("committed"), "{outcome}");
            let (status, again) = post(node(asked), &format!("/txn/{id}/commit"), b"");
            assert_eq!((status, &again), (200, &committed), "the same again");
        }
        let path = format!("/keys/any%2F{at}%2F5");
        assert_eq!(node(at + 2).http("GET", &path, &[], b"").body, b"value");
    }
}

#[test]
fn nobody_waits_for_a_coordinator_that_was_killed() {
    let mut cluster = Cluster::start(3, &["--partitions", "4"]);
    let mut client = cluster.nodes[0].client();
    client.set_timeout(Duration::from_secs(20));
    let (status, begun) = post(&cluster.nodes[2], "/txn", b"{}");
    assert_eq!(status, 201, "{begun}");
    let id = begun["id"].as_str().expect("has an id").to_owned();
    let path = format!("/txn/{id}/keys/left%2Fbehind");
    assert_eq!(cluster.nodes[2].http("PUT", &path, &[], b"never").status, 200);
    cluster.nodes[2].kill9();
    // The partitions are asked; what they answer is final.
    let outcome = client.outcome(id.parse().expect("is an id")).expect("is known");
    assert!(matches!(outcome, TxnOutcome::Aborted(_)), "{outcome:?}");
    client.put("left/behind", "mine").expect("nothing is in the way");
    assert_eq!(client.get("left/behind").expect("is read").expect("is there").value, "mine");
}

#[test]
fn transfers_keep_the_total_and_counters_end_exact() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    let keys = keys(8);
    let client = cluster.nodes[0].client();
    for key in &keys {
        client.put(key, "100").expect("is written");
    }
    client.put("counter", "0").expect("is written");
    std::thread::scope(|scope| {
        for worker in 0..6_usize {
            let (cluster, keys) = (&cluster, &keys);
            scope.spawn(move || {
                let mut client = cluster.nodes[worker % 3].client();
                client.set_timeout(Duration::from_secs(30));
                for round in 0..20 {
                    let (from, to) = (&keys[(worker + round) % 8], &keys[(worker * 3 + round * 5 + 1) % 8]);
                    client
                        .transact(|txn| {
                            let read = |key: &str| {
                                let found = txn.get(key)?.expect("is there");
                                Ok::<u64, trandb_client::Error>(
                                    std::str::from_utf8(&found.value).expect("text").parse().expect("number"),
                                )
                            };
                            let count = read("counter")?;
                            txn.put("counter", (count + 1).to_string())?;
                            let (rich, poor) = (read(from)?, read(to)?);
                            if from != to && rich > 0 {
                                txn.put(from, (rich - 1).to_string())?;
                                txn.put(to, (poor + 1).to_string())?;
                            }
                            Ok(())
                        })
                        .expect("comes through in time");
                }
            });
        }
        let reader = cluster.nodes[1].client();
        for _ in 0..20 {
            let options = TxnOptions { read_only: true, ..TxnOptions::default() };
            let snapshot = reader.begin_with(options).expect("begins");
            let scan = ScanRequest { prefix: "account/".into(), ..ScanRequest::default() };
            let page = snapshot.scan(scan).expect("is read");
            let total: u64 = page
                .entries
                .iter()
                .map(|entry| std::str::from_utf8(&entry.value).expect("text").parse::<u64>().expect("number"))
                .sum();
            assert_eq!(total, 800, "in a snapshot");
            snapshot.commit().expect("never aborts");
        }
    });
    assert_eq!(balance(&client, "counter"), 120);
    assert_eq!(keys.iter().map(|key| balance(&client, key)).sum::<u64>(), 800);
}
