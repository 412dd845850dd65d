//! Transactions at the prompt, and as a load.

use crate::harness::{Cluster, Node, program, trandb};
use std::io::Write;
use std::process::Stdio;

/// Runs lines through the prompt: the exit code, and what it said on both streams.
fn lines(node: &Node, lines: &str) -> (i32, String, String) {
    let mut child = program(env!("CARGO_BIN_EXE_trandb"))
        .args(["repl", "--addr", &node.ports.native, "--timeout", "30s"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    child.stdin.take().expect("is piped").write_all(lines.as_bytes()).expect("is read");
    let output = child.wait_with_output().expect("ends");
    let text = |bytes| String::from_utf8(bytes).expect("prints text");
    (output.status.code().expect("ends by itself"), text(output.stdout), text(output.stderr))
}

#[test]
fn lines_between_begin_and_commit_are_one_transaction() {
    let cluster = Cluster::start(1, &["--partitions", "4"]);
    let node = &cluster.nodes[0];
    let script = "BEGIN snapshot\nput a 1\nput b 2\nget a\nscan --keys-only\ncommit\nget b\n";
    let (code, out, error) = lines(node, script);
    assert_eq!((code, error.as_str()), (0, ""), "{out}");
    let out: Vec<&str> = out.lines().collect();
    assert!(out[0].parse::<trandb_client::TxnId>().is_ok(), "{out:?}");
    assert_eq!(out[1], "1");
    assert!(out[3].starts_with('a') && out[3].ends_with('-'), "no version yet: {out:?}");
    assert!(out[5].parse::<u64>().is_ok() && out[6] == "2", "{out:?}");
    assert_eq!(trandb(&node.ports.native, &["exists", "a"]).1, format!("{}\n", out[5]).into_bytes());

    let (code, out, error) = lines(node, "begin\nput a 3\nrollback\nget a\ncommit\n");
    assert!(code == 2 && out.ends_with("\n1\n"), "{out}");
    assert!(error.contains("no transaction is open"), "{error}");
    let (_, _, error) = lines(node, "begin\nput a 4\n");
    assert!(error.contains("is aborted"), "{error}");
    let (code, out, error) = lines(node, "begin read only\nget a\nput a 5\nbegin\nabort\n");
    assert!(code == 0 && out.ends_with("\n1\n"), "{out}");
    assert!(error.contains("invalid") && error.contains("commit or abort it first"), "{error}");
    assert_eq!(trandb(&node.ports.native, &["get", "a"]).1, b"1");
}

#[test]
fn what_has_failed_takes_nothing_more() {
    let cluster = Cluster::start(1, &["--partitions", "4"]);
    let node = &cluster.nodes[0];
    let (_, out, _) = lines(node, "begin\n");
    assert!(out.trim().parse::<trandb_client::TxnId>().is_ok(), "{out}");
    // Someone else changes what it has read, before it commits.
    let client = node.client();
    let txn = client.begin().expect("opened");
    txn.get("k").expect("is read");
    let (code, _, error) = lines(node, "begin\nput k 1\ncommit\n");
    assert_eq!((code, error.as_str()), (0, ""));
    txn.put("k", "2").expect("is buffered");
    assert_eq!(txn.commit().expect_err("it was changed").code, trandb_client::ErrorCode::Conflict);
    assert_eq!(client.get("k").expect("is read").expect("is there").value, "1");
}

#[test]
fn a_load_of_transactions_is_measured() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    let mix = "put:1,single:1,cross:1,rmw:1";
    let short = ["-c", "4", "-p", "4", "-s", "2", "--warm-up-seconds", "0", "--keys", "100", "-o", "json"];
    let bench = ["bench", "--mix", mix, "--distribution", "zipf"];
    let (code, out, error) = trandb(&cluster.addrs(), &[&bench[..], &short].concat());
    assert_eq!(code, 0, "{error}");
    let report: serde_json::Value = serde_json::from_slice(&out).expect("is JSON");
    let rows = report["results"].as_array().expect("rows");
    for kind in ["put", "single", "cross", "rmw"] {
        let row = rows.iter().find(|row| row["kind"] == kind).unwrap_or_else(|| panic!("{kind}: {report}"));
        assert!(row["ops"].as_u64() > Some(0), "{kind}: {report}");
        assert_eq!(row["errors"], 0, "{kind}: {report}");
    }
    assert_eq!(report["errors"], serde_json::json!({}));
}
