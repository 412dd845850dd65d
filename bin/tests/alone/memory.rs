//! A node with little memory: it refuses values, not reads and deletes, stays within its limit, and takes values again
//! once there is room.

use crate::harness::{HttpAnswer, Node, PATIENCE, Ports, eventually};
use std::time::Instant;
use tempfile::TempDir;

const LIMIT: u64 = 256 << 20;

const VALUE_BYTES: usize = 64 << 10;

/// One with so much memory that forgets fast, so that what is deleted makes room within seconds.
fn start(limit: u64) -> (Node, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = [
        ("TRANDB_STORAGE__HISTORY_MS", "1000"),
        ("TRANDB_STORAGE__CHECKPOINT_INTERVAL_MS", "1000"),
        ("TRANDB_STORAGE__WAL_SEGMENT_BYTES", "16777216"),
        ("TRANDB_STORAGE__CHECKPOINT_LOG_BYTES", "16777216"),
    ];
    let environment = settings.map(|(name, value)| (name, value.to_owned())).to_vec();
    let arguments = ["--partitions", "4", "--memory-limit", &limit.to_string()].map(str::to_owned);
    let ports = Ports::free(1).remove(0);
    let mut node = Node::start_by(Vec::new(), folder.path(), ports, &arguments, environment);
    node.wait_ready();
    (node, folder)
}

fn put(node: &Node, key: usize, value: &[u8]) -> HttpAnswer {
    node.http("PUT", &format!("/keys/k{key}"), &[], value)
}

/// The most memory that the process ever had.
fn peak_bytes(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.process_id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel's format");
    let kib: u64 = line.trim_end_matches("kB").trim().parse().expect("the kernel's format");
    kib * 1024
}

/// Fills the node until it refuses even the smallest value; `keys` counts those that were tried.
fn refusal(node: &Node, keys: &mut usize, value: &[u8]) -> HttpAnswer {
    eventually("a node that is full", || {
        // Near the limit some are refused before all are. Only what is new fills it: what is overwritten goes.
        put(node, *keys, value);
        *keys += 1;
        let answer = put(node, *keys, b"");
        if answer.status == 507 { Ok(answer) } else { Err(answer.status) }
    })
}

#[test]
fn values_are_refused_near_the_limit_until_others_are_deleted() {
    let (node, _folder) = start(LIMIT);
    let value = vec![b'v'; VALUE_BYTES];
    let full = (0..10_000).find(|&key| {
        let answer = put(&node, key, &value);
        assert!([200, 507].contains(&answer.status), "{}", answer.text());
        answer.status == 507
    });
    let mut keys = full.expect("no node keeps ten thousand of these in so little");
    assert!(keys > 200, "full after {keys}");
    // A node is full until a checkpoint gives something back: what is asked of a full one is asked right after a
    // refusal, and once more when it was not full any longer.
    let refused = refusal(&node, &mut keys, &value);
    let problem = refused.json();
    assert_eq!((&problem["code"], &problem["retryable"]), (&"overloaded".into(), &true.into()));
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("of 256 MiB")), "{problem}");
    assert_eq!(refused.header("retry-after"), "1");

    // Nothing else is refused.
    assert_eq!(node.http("GET", "/keys/k0", &[], b"").body, value);
    assert_eq!(node.http("GET", "/keys?limit=3", &[], b"").status, 200);
    assert_eq!(node.http("DELETE", "/keys/k0", &[], b"").status, 204);
    let batch = |ops: &str| {
        let headers = [("content-type", "application/json")];
        node.http("POST", "/batch", &headers, format!(r#"{{"ops":[{ops}]}}"#).as_bytes())
    };
    let deleted = batch(r#"{"op":"delete","key":"k1"},{"op":"delete","key":"k2"}"#);
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    let mut tried = 3;
    let is_done = eventually("a batch that is refused", || {
        refusal(&node, &mut keys, &value);
        tried += 1;
        let (gone, other) = (format!("k{tried}"), format!("other{tried}"));
        let ops = format!(r#"{{"op":"delete","key":"{gone}"}},{{"op":"put","key":"{other}","value":"v"}}"#);
        let answer = batch(&ops);
        let status = |key: &str| node.http("GET", &format!("/keys/{key}"), &[], b"").status;
        let is_done = [status(&gone), status(&other)];
        match answer.status {
            507 => Ok(is_done),
            200 if is_done == [404, 200] => Err(answer.text()),
            _ => panic!("{}: {is_done:?}", answer.text()),
        }
    });
    assert_eq!(is_done, [200, 404], "all of it or nothing");
    eventually("what a full node says of itself", || {
        refusal(&node, &mut keys, &value);
        let ready = node.http("GET", "/readyz", &[], b"");
        assert_eq!(ready.status, 200, "reads go on: {}", ready.text());
        let said = ready.json()["details"][0].as_str().is_some_and(|text| text.contains("takes no values"));
        if said && node.metric("trandb_memory_full", &[]) == 1.0 { Ok(()) } else { Err(ready.text()) }
    });
    assert!(node.metric("trandb_memory_refused_writes_total", &[]) >= 2.0);
    let allocated = node.metric("trandb_memory_allocated_bytes", &[]);
    // What was resident a moment ago counts as well; a checkpoint since then has given some back.
    assert!(allocated > LIMIT as f64 / 4.0 && allocated < LIMIT as f64, "{allocated}");

    // Once the history of what was deleted is over, there is room: nobody writes meanwhile.
    for key in 4..=keys {
        assert_eq!(node.http("DELETE", &format!("/keys/k{key}"), &[], b"").status, 204);
    }
    let until = Instant::now() + PATIENCE;
    while node.metric("trandb_memory_full", &[]) != 0.0 {
        assert!(Instant::now() < until, "{}", node.http("GET", "/metrics", &[], b"").text());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    for key in 0..100 {
        // Close below the bound they are taken more slowly than they come.
        eventually("a value that is taken", || match put(&node, key, &value) {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.text()),
        });
    }
    assert_eq!(node.http("GET", "/keys/k3", &[], b"").body, value);
    let peak = peak_bytes(&node);
    // It is filled again and again, and looks at its memory ten times a second: on a busy machine later than that.
    assert!(peak < LIMIT + LIMIT / 16, "{} MiB", peak >> 20);
}

#[test]
fn overwriting_the_same_keys_never_fills_memory() {
    const KEYS: usize = 64;
    // Seconds of history, and what was given back and is still resident, stay away from the bound.
    let limit = LIMIT + LIMIT / 2;
    let (node, _folder) = start(limit);
    let value = vec![b'v'; VALUE_BYTES / 2];
    // More than there is memory.
    let writes = (limit + limit / 4) as usize / value.len();
    for write in 0..writes {
        let answer = put(&node, write % KEYS, &value);
        assert_eq!(answer.status, 200, "after {write} of {writes}: {}", answer.text());
    }
    let peak = peak_bytes(&node);
    assert!(peak < limit, "{} MiB", peak >> 20);
}
