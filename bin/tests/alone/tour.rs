//! Everyday use: the README's tour, restarts, metrics.

use crate::harness::{Cluster, eventually, trandb};
use trandb_cluster::limits::VALUE_BYTES_MAX;

#[test]
fn the_readme_holds() {
    let cluster = Cluster::start(1, &[]);
    let node = &cluster.nodes[0];
    let ready = node.out();
    assert!(
        ready.contains(" ready: ") && ready.contains(&format!("http http://{}", node.ports.http)),
        "{ready}"
    );

    let put = node.http("PUT", "/keys/hello", &[], b"world");
    assert_eq!(put.status, 200, "{}", put.text());
    let got = node.http("GET", "/keys/hello", &[], b"");
    assert_eq!((got.status, got.text().as_str()), (200, "world"));
    assert_eq!(got.header("etag"), put.header("etag"));
    assert_eq!(put.json()["version"], got.version());
    let page = node.http("GET", "/keys?prefix=he&limit=10", &[], b"").json();
    assert_eq!(page["entries"][0]["key"], "hello");
    assert_eq!(page["entries"][0]["value"], "world");
    assert_eq!(page["entries"].as_array().map(Vec::len), Some(1));
    assert_eq!(node.http("DELETE", "/keys/hello", &[], b"").status, 204);
    let gone = node.http("GET", "/keys/hello", &[], b"");
    assert_eq!((gone.status, gone.header("content-type")), (404, "application/problem+json"));

    let absent = [("if-none-match", "*")];
    let lock = node.http("PUT", "/keys/lock", &absent, b"mine");
    assert_eq!(lock.status, 200);
    assert_eq!(node.http("PUT", "/keys/lock", &absent, b"yours").status, 412);
    let version = lock.header("etag").to_owned();
    assert_eq!(node.http("PUT", "/keys/lock", &[("if-match", &version)], b"still mine").status, 200);
    let stale = node.http("PUT", "/keys/lock", &[("if-match", &version)], b"too late");
    assert_eq!(stale.status, 412);
    let current = node.http("GET", "/keys/lock", &[], b"");
    assert_eq!(current.text(), "still mine");
    assert_eq!(stale.header("etag"), current.header("etag"), "the refusal names the version in the way");

    let addr = &node.ports.native;
    assert_eq!(trandb(addr, &["put", "hello", "again"]).0, 0);
    assert_eq!(trandb(addr, &["get", "hello"]).1, b"again");
    let (code, out, _) = trandb(addr, &["scan", "--prefix", "he", "-o", "csv"]);
    assert!(code == 0 && String::from_utf8_lossy(&out).contains("hello,again,"), "{out:?}");
    assert_eq!(trandb(addr, &["cluster", "verify"]).0, 0);
    assert_eq!(trandb(addr, &["health"]).0, 0);
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("node.toml");
    std::fs::write(&config, "[storage]\ncheckpoint_interval_ms = 1000\n").expect("is written");
    let mut cluster =
        Cluster::start(1, &["--partitions", "4", "--config", config.to_str().expect("is text")]);
    let node = &mut cluster.nodes[0];
    let client = node.client();
    let large: Vec<u8> = (0..VALUE_BYTES_MAX).map(|at| ((at * 31) >> 3) as u8).collect();
    client.put("large/old", large.clone()).expect("is written");
    for at in 0..60 {
        client.put(format!("old/{at}"), format!("value {at}")).expect("is written");
    }
    client.delete("old/7").expect("is written");
    eventually("a checkpoint of every partition that has data", || {
        let metrics = node.http("GET", "/metrics", &[], b"").text();
        let done = metrics
            .lines()
            .find_map(|line| line.strip_prefix("trandb_checkpoint_seconds_count "))
            .and_then(|count| count.parse::<u32>().ok());
        if done >= Some(4) { Ok(()) } else { Err(format!("{done:?} checkpoints")) }
    });
    // Overwritten after the checkpoint, written only after it, and written until the very end.
    client.put("old/3", "newer").expect("is written");
    client.put("large/new", large.clone()).expect("is written");
    for life in 0..2 {
        let client = node.client();
        let writer = std::thread::spawn(move || {
            let mut acknowledged = Vec::new();
            for at in 0.. {
                let key = format!("new/{life}/{at}");
                if client.put(&key, key.clone()).is_err() {
                    break;
                }
                acknowledged.push(key);
            }
            acknowledged
        });
        let first = format!("/keys/new%2F{life}%2F20");
        eventually("writes under way", || match node.http("GET", &first, &[], b"").status {
            200 => Ok(()),
            status => Err(status.to_string()),
        });
        node.kill9();
        let restarted = std::time::Instant::now();
        node.restart();
        let acknowledged = writer.join().expect("no panic");
        assert!(acknowledged.len() > 20 && restarted.elapsed().as_secs() < 60);
        let client = node.client();
        let value = |key: &str| client.get(key).expect("is read").map(|found| found.value.to_vec());
        for key in &acknowledged {
            assert_eq!(value(key).as_deref(), Some(key.as_bytes()), "{key}");
        }
        for at in (0..60).filter(|at| ![3, 7].contains(at)) {
            assert_eq!(value(&format!("old/{at}")), Some(format!("value {at}").into_bytes()));
        }
        assert_eq!(value("old/3").as_deref(), Some(&b"newer"[..]));
        assert_eq!(value("old/7"), None, "what was deleted stays so");
        assert!(value("large/old").as_ref() == Some(&large) && value("large/new").as_ref() == Some(&large));
    }
}

#[test]
fn ephemeral_nodes_keep_nothing() {
    let mut cluster = Cluster::start(1, &["--ephemeral", "--partitions", "4"]);
    let node = &mut cluster.nodes[0];
    assert_eq!(node.http("PUT", "/keys/k", &[], b"v").status, 200);
    assert_eq!(node.http("GET", "/keys/k", &[], b"").body, b"v");
    assert!(!node.data_dir().exists(), "an ephemeral node has no directory");
    node.kill9();
    node.restart();
    assert_eq!(node.http("GET", "/keys/k", &[], b"").status, 404);
}

#[test]
fn metrics_tell_what_happened() {
    let cluster = Cluster::start(1, &["--partitions", "4"]);
    let node = &cluster.nodes[0];
    let client = node.client();
    for at in 0..10 {
        client.put(format!("k{at}"), "v").expect("is written");
        assert_eq!(node.http("GET", &format!("/keys/k{at}"), &[], b"").status, 200);
    }
    assert_eq!(node.http("GET", "/keys/absent", &[], b"").status, 404);
    // Gauges follow within a tick.
    eventually("all families", || {
        let answer = node.http("GET", "/metrics", &[], b"");
        assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
        let text = answer.text();
        let missing: Vec<_> = FAMILIES
            .iter()
            .filter(|family| {
                let described = text.contains(&format!("# TYPE {family} "));
                let sampled = text.lines().any(|line| {
                    line.strip_prefix(*family).is_some_and(|rest| rest.starts_with(['{', ' ', '_']))
                });
                !(described && sampled)
            })
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} missing in {text}")) }
    });
    eventually("the keys that were written", || {
        let text = node.http("GET", "/metrics", &[], b"").text();
        let keys: f64 = text
            .lines()
            .filter(|line| line.starts_with("trandb_partition_keys{"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        if keys == 10.0 { Ok(()) } else { Err(format!("{keys} keys")) }
    });
}

/// What a node of one shows after some traffic. Families of peers and of faults appear with their events.
const FAMILIES: [&str; 25] = [
    "trandb_build_info",
    "trandb_requests_total",
    "trandb_request_seconds",
    "trandb_connections",
    "trandb_raft_term",
    "trandb_raft_is_leader",
    "trandb_raft_applied_index",
    "trandb_raft_lag_entries",
    "trandb_raft_batch_writes",
    "trandb_raft_commit_seconds",
    "trandb_wal_sync_seconds",
    "trandb_wal_batch_records",
    "trandb_wal_batch_bytes",
    "trandb_wal_bytes_total",
    "trandb_wal_segments",
    "trandb_wal_bytes",
    "trandb_queue_bytes",
    "trandb_partition_keys",
    "trandb_partition_versions",
    "trandb_partition_bytes",
    "trandb_process_resident_bytes",
    "trandb_process_cpu_seconds",
    "trandb_process_open_fds",
    "trandb_process_max_fds",
    "trandb_process_threads",
];
