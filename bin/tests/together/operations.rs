//! Every operation through every node: by HTTP, by the client library, by the command.

use crate::harness::{Cluster, eventually, trandb};
use trandb_client::{Condition, ErrorCode};

#[test]
fn any_node_does_any_operation_and_sees_what_others_did() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    let clients: Vec<_> = cluster.nodes.iter().map(|node| node.client()).collect();
    for (writer, node) in cluster.nodes.iter().enumerate() {
        // Several keys, so that every node is asked about partitions that it leads and that it does not.
        for at in 0..3 {
            let key = format!("key/{writer}/{at}");
            let path = format!("/keys/{}", key.replace('/', "%2F"));
            let put = node.http("PUT", &path, &[], b"by http");
            assert_eq!(put.status, 200, "{}", put.text());
            for (reader, client) in cluster.nodes.iter().zip(&clients) {
                let found = client.get(&key).expect("is read").expect("was written before");
                assert_eq!(
                    (&found.value[..], found.version.to_string()),
                    (&b"by http"[..], put.version().into())
                );
                assert_eq!(client.exists(&key).expect("is read"), Some(found.version));
                assert_eq!(reader.http("HEAD", &path, &[], b"").header("etag"), put.header("etag"));
            }

            let first = clients[writer].get(&key).expect("is read").expect("is there").version;
            let next = &clients[(writer + 1) % 3];
            let second = next.compare_and_set(&key, first, "by version").expect("nobody was faster").version;
            assert!(second > first);
            for client in &clients {
                let error = client.compare_and_set(&key, first, "too late").expect_err("the version is old");
                assert_eq!(error.code, ErrorCode::ConditionFailed);
                let error = client.put_if_absent(&key, "too late").expect_err("it is there");
                assert_eq!(error.code, ErrorCode::ConditionFailed);
            }
            let etag = format!("\"{second}\"");
            let cases = [("if-match", format!("\"{first}\""), 412), ("if-none-match", "*".into(), 412)];
            for (header, value, status) in &cases {
                let answer = node.http("PUT", &path, &[(header, value)], b"too late");
                assert_eq!(answer.status, *status, "{header}: {value}");
                assert_eq!(answer.header("etag"), etag);
            }
            assert_eq!(node.http("GET", &path, &[("if-none-match", &etag)], b"").status, 304);
            assert_eq!(node.http("PUT", &path, &[("if-match", &etag)], b"by etag").status, 200);
            assert_eq!(
                clients[(writer + 2) % 3].get(&key).expect("is read").expect("is there").value,
                "by etag"
            );

            let past = next.get_at(&key, first).expect("is read").expect("was there then");
            assert_eq!(past.value, "by http");
            let error = next.delete_if(&key, Condition::Version(first)).expect_err("the version is old");
            assert_eq!(error.code, ErrorCode::ConditionFailed);
            next.delete(&key).expect("is deleted");
            for (reader, client) in cluster.nodes.iter().zip(&clients) {
                assert_eq!(client.get(&key).expect("is read"), None);
                assert_eq!(reader.http("GET", &path, &[], b"").status, 404);
            }
            assert_eq!(node.http("PUT", &path, &[("if-none-match", "*")], b"again").status, 200);
        }
    }
}

#[test]
fn the_command_does_the_same_through_every_node() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    for (at, node) in cluster.nodes.iter().enumerate() {
        let (here, there) = (&node.ports.native, &cluster.nodes[(at + 1) % 3].ports.native);
        let key = format!("cmd/{at}");
        let (code, out, error) = trandb(here, &["put", &key, "one", "--if-absent"]);
        assert_eq!(code, 0, "{error}");
        let first = String::from_utf8(out).expect("is text").trim().to_owned();
        assert_eq!(trandb(there, &["get", &key]), (0, b"one".to_vec(), String::new()));
        assert_eq!(trandb(there, &["exists", &key]).1, format!("{first}\n").into_bytes());
        assert_eq!(trandb(there, &["put", &key, "two", "--if-version", &first]).0, 0);
        let (code, out, error) = trandb(here, &["put", &key, "three", "--if-version", &first]);
        assert!(code == 1 && out.is_empty() && error.contains("condition_failed"), "{code}: {error}");
        let (_, out, _) = trandb(here, &["scan", "--prefix", "cmd/", "-o", "csv"]);
        assert!(String::from_utf8_lossy(&out).contains(&format!("{key},two,")), "{out:?}");
        assert_eq!(trandb(there, &["del", &key]).0, 0);
        assert_eq!(trandb(here, &["get", &key]).0, 1);
        for command in [["cluster", "status"], ["cluster", "verify"]] {
            assert_eq!(trandb(here, &command).0, 0, "{command:?}");
        }
        // It is of a moment, and leaders find their places.
        eventually("health", || {
            let (code, _, error) = trandb(here, &["health"]);
            if code == 0 { Ok(()) } else { Err(error) }
        });
    }
}

#[test]
fn a_checkpoint_is_written_by_every_replica_when_it_is_asked_for() {
    // None comes by itself in the time of this test.
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    let client = cluster.client();
    for number in 0..100 {
        client.put(format!("k{number}"), "value").expect("is written");
    }
    let node = &cluster.nodes[1];
    let (code, out, error) = trandb(&node.ports.native, &["checkpoint", "-o", "json"]);
    assert_eq!(code, 0, "{error}");
    let report: serde_json::Value = serde_json::from_slice(&out).expect("a report");
    assert_eq!(report["complete"], true);
    assert_eq!(report["replicas"].as_array().map(Vec::len), Some(4 * 3), "{report}");
    // What has nothing new to say has said it.
    let answer = node.http("POST", "/admin/checkpoint", &[], b"");
    assert_eq!(answer.status, 200);
    let again = answer.json();
    assert_eq!(again["complete"], true);
    let reached = |replica: &serde_json::Value| replica["index"].as_u64().expect("an index") > 0;
    assert!(again["replicas"].as_array().expect("replicas").iter().all(reached), "{again}");
}
