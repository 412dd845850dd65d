//! Any node serves any transaction, by HTTP, by the client library, by the command.

use crate::harness::{Cluster, Node, trandb};
use serde_json::json;
use trandb_client::{Batch, BatchResult, ErrorCode, TxnId, TxnOutcome};

fn begin(node: &Node, body: &str) -> String {
    let begun = node.http("POST", "/txn", &[], body.as_bytes());
    assert_eq!(begun.status, 201, "{}", begun.text());
    let id = begun.json()["id"].as_str().expect("text").to_owned();
    assert_eq!(begun.header("location"), format!("/txn/{id}"));
    id
}

#[test]
fn any_node_serves_any_transaction() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    for (at, one) in cluster.nodes.iter().enumerate() {
        let (two, three) = (&cluster.nodes[(at + 1) % 3], &cluster.nodes[(at + 2) % 3]);
        let id = begin(one, "");
        // Several keys, so that most transactions span partitions, led by different nodes.
        for key in 0..6 {
            let node = if key % 2 == 0 { two } else { three };
            let put = node.http("PUT", &format!("/txn/{id}/keys/t{at}%2F{key}"), &[], b"new");
            assert_eq!((put.status, put.json()), (200, json!({ "version": null })), "{}", put.text());
        }
        let path = format!("/keys/t{at}%2F0");
        for node in [one, two, three] {
            let own = node.http("GET", &format!("/txn/{id}{path}"), &[], b"");
            assert_eq!((own.status, own.text().as_str()), (200, "new"));
            assert_eq!(node.http("GET", &path, &[], b"").status, 404, "not committed, so not to be seen");
            let outcome = node.http("GET", &format!("/txn/{id}"), &[], b"").json();
            assert_eq!(outcome["outcome"], "open");
        }
        let page = three.http("GET", &format!("/txn/{id}/keys?prefix=t{at}%2F"), &[], b"").json();
        assert_eq!(page["entries"].as_array().map(Vec::len), Some(6), "{page}");

        let committed = two.http("POST", &format!("/txn/{id}/commit"), &[], b"");
        assert_eq!((committed.status, &committed.json()["outcome"]), (200, &json!("committed")));
        let timestamp = committed.json()["timestamp"].clone();
        for node in [one, two, three] {
            let again = node.http("POST", &format!("/txn/{id}/commit"), &[], b"");
            assert_eq!((again.status, &again.json()["timestamp"]), (200, &timestamp), "the same again");
            let outcome = node.http("GET", &format!("/txn/{id}"), &[], b"").json();
            assert_eq!((&outcome["outcome"], &outcome["timestamp"]), (&json!("committed"), &timestamp));
            for key in 0..6 {
                let found = node.http("GET", &format!("/keys/t{at}%2F{key}"), &[], b"");
                assert_eq!((found.status, found.text().as_str()), (200, "new"));
                assert_eq!(timestamp, found.version(), "all of it has one version");
            }
            let (code, out, error) = trandb(&node.ports.native, &["txn", "outcome", &id, "-o", "json"]);
            assert_eq!(code, 0, "{error}");
            let shown: serde_json::Value = serde_json::from_slice(&out).expect("is JSON");
            assert_eq!((&shown["outcome"], &shown["timestamp"]), (&json!("committed"), &timestamp));
        }
        assert_eq!(three.http("POST", &format!("/txn/{id}/abort"), &[], b"").status, 409);
    }
}

#[test]
fn an_abort_through_another_node_leaves_nothing() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    let [one, two, three] = &cluster.nodes[..] else { panic!("three nodes") };
    let id = begin(one, r#"{"isolation":"snapshot"}"#);
    for key in 0..4 {
        assert_eq!(two.http("PUT", &format!("/txn/{id}/keys/a{key}"), &[], b"v").status, 200);
    }
    assert_eq!(three.http("POST", &format!("/txn/{id}/abort"), &[], b"").status, 204);
    assert_eq!(two.http("POST", &format!("/txn/{id}/abort"), &[], b"").status, 204, "once more is the same");
    for node in [one, two, three] {
        let late = node.http("PUT", &format!("/txn/{id}/keys/a0"), &[], b"v");
        assert_eq!((late.status, &late.json()["code"]), (409, &json!("conflict")), "{}", late.text());
        let commit = node.http("POST", &format!("/txn/{id}/commit"), &[], b"");
        assert_eq!((commit.status, &commit.json()["code"]), (409, &json!("conflict")));
        assert_eq!(node.http("GET", &format!("/txn/{id}"), &[], b"").json()["outcome"], "aborted");
        assert_eq!(node.http("GET", "/keys/a0", &[], b"").status, 404);
    }
}

#[test]
fn a_transaction_that_nobody_knows_is_aborted_by_asking() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    // One that began, of a node that has forgotten it: its writes were buffered there alone.
    let known = cluster.nodes[0].client();
    let begin = known.begin().expect("opened").id();
    let unknown = TxnId { begin: trandb_client::Timestamp(begin.begin.0 - 1), node: begin.node };
    let outcome = cluster.nodes[1].client().outcome(unknown).expect("answered");
    assert!(matches!(outcome, TxnOutcome::Aborted(_)), "{outcome:?}");
    let commit = cluster.nodes[2].http("POST", &format!("/txn/{unknown}/commit"), &[], b"");
    assert_eq!((commit.status, &commit.json()["code"]), (409, &json!("conflict")), "{}", commit.text());
}

#[test]
fn batches_are_done_together_through_every_node() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    for (at, node) in cluster.nodes.iter().enumerate() {
        let other = &cluster.nodes[(at + 1) % 3];
        let put =
            |key: usize, value: &str| json!({ "op": "put", "key": format!("b{at}/{key}"), "value": value });
        let mut ops: Vec<_> = (0..5).map(|key| put(key, "one")).collect();
        ops.push(json!({ "op": "get", "key": format!("b{at}/3") }));
        ops.push(json!({ "op": "scan", "prefix": format!("b{at}/"), "keys_only": true }));
        let body = json!({ "ops": ops }).to_string();
        let done = node.http("POST", "/batch", &[], body.as_bytes());
        assert_eq!(done.status, 200, "{}", done.text());
        let done = done.json();
        assert_eq!(done["results"][5]["value"], "one");
        assert_eq!(done["results"][6]["entries"].as_array().map(Vec::len), Some(5));
        for key in 0..5 {
            let found = other.http("GET", &format!("/keys/b{at}%2F{key}"), &[], b"");
            assert_eq!((found.text().as_str(), &json!(found.version())), ("one", &done["timestamp"]));
        }

        // One condition that does not hold undoes all of it.
        let mut ops: Vec<_> = (0..5).map(|key| put(key, "two")).collect();
        ops[4]["if_absent"] = json!(true);
        let refused = node.http("POST", "/batch", &[], json!({ "ops": ops }).to_string().as_bytes());
        assert_eq!((refused.status, &refused.json()["code"]), (412, &json!("condition_failed")));
        for key in 0..5 {
            assert_eq!(other.http("GET", &format!("/keys/b{at}%2F{key}"), &[], b"").text(), "one");
        }

        let client = other.client();
        let batch =
            Batch::new().delete(format!("b{at}/0")).put(format!("b{at}/1"), "three").get(format!("b{at}/0"));
        let done = client.batch(batch).expect("done");
        assert_eq!(done.results, [BatchResult::Done, BatchResult::Done, BatchResult::Value(None)]);
        let read = client.get(format!("b{at}/1")).expect("is read").expect("is there");
        assert_eq!((&read.value[..], read.version), (&b"three"[..], done.at));
        assert_eq!(client.outcome(done.txn), Ok(TxnOutcome::Committed(done.at)));
    }
}

#[test]
fn of_two_that_write_the_same_key_one_is_refused_by_every_door() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    let clients: Vec<_> = cluster.nodes.iter().map(|node| node.client()).collect();
    let early = clients[0].begin().expect("opened");
    let late = begin(&cluster.nodes[1], "");
    early.put("k", "early").expect("buffered");
    let path = format!("/txn/{late}/keys/k");
    assert_eq!(cluster.nodes[2].http("PUT", &path, &[], b"late").status, 200);
    early.commit().expect("the first");
    let refused = cluster.nodes[0].http("POST", &format!("/txn/{late}/commit"), &[], b"");
    let problem = refused.json();
    assert_eq!(
        (refused.status, &problem["code"], &problem["retryable"]),
        (409, &json!("conflict"), &json!(false))
    );
    assert_eq!(clients[2].get("k").expect("is read").expect("is there").value, "early");

    // A plain write counts like any other.
    let txn = clients[1].begin().expect("opened");
    txn.get("k").expect("is read");
    clients[2].put("k", "plain").expect("is written");
    txn.put("other", "v").expect("buffered");
    assert_eq!(txn.commit().expect_err("what it read has changed").code, ErrorCode::Conflict);
    assert_eq!(clients[0].get("other").expect("is read"), None);
}
