//! Batches over HTTP whose outcome can be asked for: they have a name before they are sent.

use crate::harness::http::HttpAnswer;
use crate::harness::{Cluster, Node, eventually};
use serde_json::{Value, json};

fn name(node: &Node) -> String {
    let given = node.http("POST", "/batch/id", &[], b"");
    assert_eq!(given.status, 201, "{}", given.text());
    given.json()["id"].as_str().expect("text").to_owned()
}

fn body(id: &str, value: &str) -> Vec<u8> {
    let put = |key: usize| json!({ "op": "put", "key": format!("n{key}"), "value": value });
    let mut ops: Vec<Value> = (0..5).map(put).collect();
    // Its first run is what makes a second one fail.
    ops.push(json!({ "op": "put", "key": format!("once/{id}"), "value": value, "if_absent": true }));
    ops.push(json!({ "op": "get", "key": "n0" }));
    json!({ "id": id, "ops": ops }).to_string().into_bytes()
}

fn send(node: &Node, id: &str, value: &str) -> HttpAnswer {
    node.http("POST", "/batch", &[], &body(id, value))
}

fn outcome(node: &Node, id: &str) -> Value {
    node.http("GET", &format!("/txn/{id}"), &[], b"").json()
}

#[test]
fn a_named_batch_is_done_once_however_often_it_is_sent() {
    let mut cluster = Cluster::start(3, &["--partitions", "4"]);
    for (at, one) in cluster.nodes.iter().enumerate() {
        let (two, three) = (&cluster.nodes[(at + 1) % 3], &cluster.nodes[(at + 2) % 3]);
        let id = name(one);
        let done = send(two, &id, "first");
        assert_eq!((done.status, &done.json()["id"]), (200, &json!(id)), "{}", done.text());
        let timestamp = done.json()["timestamp"].clone();
        assert_eq!(done.json()["results"][6]["value"], "first");
        for node in [one, two, three] {
            let again = send(node, &id, "second");
            let told = (again.status, again.json());
            let known = json!({ "id": id, "outcome": "committed", "timestamp": timestamp, "results": null });
            assert_eq!(told, (200, known));
            assert_eq!(outcome(node, &id)["timestamp"], timestamp);
            let found = node.http("GET", "/keys/n3", &[], b"");
            assert_eq!((found.text().as_str(), &json!(found.version())), ("first", &timestamp));
        }
    }

    // Whoever asks before it has come makes sure that it is never done.
    let late = name(&cluster.nodes[0]);
    assert_eq!(outcome(&cluster.nodes[1], &late)["outcome"], "aborted");
    for node in &cluster.nodes {
        let refused = send(node, &late, "late");
        assert_eq!(
            (refused.status, &refused.json()["code"]),
            (409, &json!("conflict")),
            "{}",
            refused.text()
        );
        assert_eq!(node.http("GET", "/keys/n3", &[], b"").text(), "first");
    }

    // What names something else, or nothing yet.
    let open =
        cluster.nodes[0].http("POST", "/txn", &[], b"").json()["id"].as_str().expect("text").to_owned();
    assert_eq!(send(&cluster.nodes[1], &open, "v").status, 400);
    let future = format!("{}-1", u64::MAX >> 1);
    assert_eq!(send(&cluster.nodes[0], &future, "v").status, 400);

    // The node of the name dies: the others know what was done, and that what was not never will be.
    let (id, lost) = (name(&cluster.nodes[2]), name(&cluster.nodes[2]));
    let timestamp = send(&cluster.nodes[0], &id, "third").json()["timestamp"].clone();
    assert!(timestamp.is_string());
    cluster.nodes[2].kill9();
    for node in &cluster.nodes[..2] {
        let answer = |answer: HttpAnswer, wanted: u16| match answer.status {
            status if status == wanted => Ok(answer.json()),
            // Until new leaders are found.
            _ => Err(answer.text()),
        };
        let again = eventually("an answer", || answer(send(node, &id, "fourth"), 200));
        assert_eq!((&again["timestamp"], &again["results"]), (&timestamp, &Value::Null));
        assert_eq!(outcome(node, &id)["timestamp"], timestamp);
        let refused = eventually("an answer", || answer(send(node, &lost, "fourth"), 409));
        assert_eq!(refused["code"], "conflict");
        assert_eq!(node.http("GET", "/keys/n3", &[], b"").text(), "third");
    }
    cluster.nodes[2].restart();
    cluster.nodes[2].wait_ready();
    // It has forgotten its names; the partitions have not.
    let again = send(&cluster.nodes[2], &id, "fifth");
    assert_eq!((again.status, &again.json()["timestamp"]), (200, &timestamp), "{}", again.text());
    assert_eq!(send(&cluster.nodes[2], &lost, "fifth").status, 409);
    assert_eq!(cluster.nodes[2].http("GET", "/keys/n3", &[], b"").text(), "third");
}
