//! The largest key and value, and what is beyond them, through every node and door.

use crate::harness::{Cluster, program};
use std::io::Write;
use std::process::Stdio;
use trandb_client::ErrorCode;
use trandb_cluster::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

#[test]
fn the_largest_key_and_value_go_through_every_door() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    for (at, node) in cluster.nodes.iter().enumerate() {
        let next = &cluster.nodes[(at + 1) % 3];
        // Different keys of 1024 bytes, so that some are led by the node and some are not.
        let key = format!("{at}").repeat(KEY_BYTES_MAX);
        let value: Vec<u8> = (0..VALUE_BYTES_MAX).map(|byte| (byte >> 5) as u8 ^ at as u8).collect();
        let path = format!("/keys/{key}");
        let put = node.http("PUT", &path, &[], &value);
        assert_eq!(put.status, 200, "{}", put.text());
        assert!(next.client().get(&key).expect("is read").expect("was written").value == value);
        next.client().put(&key, value.clone()).expect("is written");
        assert!(node.http("GET", &path, &[], b"").body == value);

        let key = format!("cmd{at}");
        let mut put = program(env!("CARGO_BIN_EXE_trandb"))
            .args(["put", &key, "-", "--timeout", "30s", "--addr", &node.ports.native])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the program runs");
        put.stdin.take().expect("is piped").write_all(&value).expect("is read");
        assert!(put.wait().expect("ends").success());
        let (code, out, error) = crate::harness::trandb(&next.ports.native, &["get", &key]);
        assert!(code == 0 && out == value, "{error}");
    }
}

#[test]
fn what_is_beyond_the_limits_is_refused_by_name() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    let long = "k".repeat(KEY_BYTES_MAX + 1);
    let huge = vec![7; VALUE_BYTES_MAX + 1];
    for node in &cluster.nodes {
        let cases: [(&str, String, &[u8], u16, &str); 6] = [
            ("GET", format!("/keys/{long}"), b"", 400, "invalid"),
            ("PUT", format!("/keys/{long}"), b"v", 400, "invalid"),
            ("PUT", "/keys/".into(), b"v", 400, "invalid"),
            ("PUT", "/keys/%ff%fe".into(), b"v", 400, "invalid"),
            ("PUT", "/keys/k".into(), &huge, 413, "too_large"),
            ("GET", "/keys?limit=0".into(), b"", 400, "invalid"),
        ];
        for (method, path, body, status, code) in cases {
            let answer = node.http(method, &path, &[], body);
            let case = format!("{method} {:.20}: {}", path, answer.text());
            assert_eq!(answer.status, status, "{case}");
            assert_eq!(answer.header("content-type"), "application/problem+json", "{case}");
            let problem = answer.json();
            assert_eq!(problem["code"], code, "{case}");
            assert_eq!(problem["status"], status, "{case}");
            assert_eq!(problem["retryable"], false, "{case}");
            assert_eq!(problem["request_id"], answer.header("x-request-id"), "{case}");
        }
        let client = node.client();
        let code =
            |result: Result<trandb_client::Written, trandb_client::Error>| result.expect_err("refused").code;
        assert_eq!(code(client.put(&long, "v")), ErrorCode::Invalid);
        assert_eq!(code(client.put("", "v")), ErrorCode::Invalid);
        assert_eq!(code(client.put([0xff, 0xfe], "v")), ErrorCode::Invalid);
        assert_eq!(code(client.put("k", huge.clone())), ErrorCode::TooLarge);
        client.put("k", "the connection is as good as before").expect("is written");
        let (exit, _, error) = crate::harness::trandb(&node.ports.native, &["put", "", "v"]);
        assert!(exit == 2 && error.contains("invalid"), "{exit}: {error}");
        let (exit, _, error) = crate::harness::trandb(&node.ports.native, &["put", &long, "v"]);
        assert!(exit == 2 && error.contains("1025 bytes"), "{exit}: {error}");
    }
}
