//! A process that writes checkpoints to an engine and is killed at any moment: what it had committed is there, and
//! nothing is there in part. The process is this test binary again, told by its environment what to do.

use super::Engine;
use super::tests::{Open, fjall, sled};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use trandb_cluster::mvcc::{StoredVersion, Version};
use trandb_cluster::{EncodedKey, KeyspaceId, PartitionId, Timestamp};

const P: PartitionId = PartitionId(5);
const DIR: &str = "TRANDB_TEST_ENGINE_DIR";
const NAME: &str = "TRANDB_TEST_ENGINE";
/// What the writer says after each commit, before the round's number.
const COMMITTED: &str = "committed ";
/// A version is removed this many rounds after the one that it was put in.
const ROUNDS_KEPT: u64 = 6;

/// What round `round` puts: some records of one entry, some of very many, so that most of the time goes
/// into writing the latter.
fn versions_of(round: u64) -> Vec<StoredVersion> {
    [7, 500_000, 3000, 5000, 2_000_000, 0]
        .into_iter()
        .enumerate()
        .map(|(n, bytes)| StoredVersion {
            key: EncodedKey::from_parts(KeyspaceId::DEFAULT, format!("key {n}").as_bytes()),
            version: Version {
                timestamp: Timestamp(round),
                index: round,
                value: Some(Bytes::from(vec![round as u8; bytes])),
            },
        })
        .collect()
}

/// The engine of that name.
fn opener(name: &str) -> Open {
    match name {
        "sled" => sled,
        "fjall" => fjall,
        other => panic!("no engine {other:?}"),
    }
}

fn committed(engine: &dyn Engine) -> u64 {
    let meta = engine.meta(P).expect("reads");
    meta.map_or(0, |meta| u64::from_be_bytes(meta[..].try_into().expect("eight bytes")))
}

#[test]
#[ignore = "is the process that the test below kills"]
fn writer() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let name = std::env::var(NAME).expect("goes with the directory");
    let engine = opener(&name)(Path::new(&dir)).expect("opens");
    let mut out = std::io::stdout();
    for round in committed(&*engine) + 1.. {
        engine.put(P, &versions_of(round)).expect("puts");
        engine.commit(P, &round.to_be_bytes()).expect("commits");
        writeln!(out, "\n{COMMITTED}{round}").expect("is heard");
        let old = round.saturating_sub(ROUNDS_KEPT);
        let names: Vec<_> = versions_of(old).into_iter().map(|v| (v.key, v.version.timestamp)).collect();
        engine.remove(P, &names).expect("removes");
    }
}

fn start(name: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["engine::kill_tests::writer", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(NAME, name)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts")
}

/// Lets the writer get some way into its next round. How far decides what the test sees, not what it expects.
#[allow(clippy::disallowed_methods, reason = "another process goes by the real clock")]
fn pause(millis: u64) {
    std::thread::sleep(std::time::Duration::from_millis(millis));
}

#[test]
fn a_killed_writer_to_sled_leaves_what_it_had_committed_and_nothing_in_part() {
    is_killed("sled");
}

#[test]
fn a_killed_writer_to_fjall_leaves_what_it_had_committed_and_nothing_in_part() {
    is_killed("fjall");
}

fn is_killed(name: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    for (commits, pause_ms) in
        [(1, 0), (4, 3), (2, 6), (1, 9), (1, 13), (1, 17), (1, 21), (1, 26), (2, 33), (1, 45)]
    {
        let mut child = start(name, dir.path());
        let lines = BufReader::new(child.stdout.take().expect("is piped")).lines();
        let acknowledged = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix(COMMITTED)?.parse().ok())
            .nth(commits - 1);
        pause(pause_ms);
        child.kill().expect("is killed");
        child.wait().expect("ends");
        let acknowledged: u64 = acknowledged.expect("the writer went on until it was killed");

        let engine = opener(name)(dir.path()).expect("opens");
        let committed = committed(&*engine);
        assert!(committed >= acknowledged, "{acknowledged} was acknowledged, {committed} is there");
        let mut found = BTreeMap::new();
        engine
            .load(P, &mut |stored| {
                found.insert((stored.key, stored.version.timestamp), stored.version.value);
            })
            .expect("every record is whole");
        // The last rounds that no removal has reached.
        for round in committed.saturating_sub(ROUNDS_KEPT - 1).max(1)..=committed {
            for StoredVersion { key, version } in versions_of(round) {
                let value = found.get(&(key.clone(), version.timestamp));
                assert!(value == Some(&version.value), "{key:?} of round {round} is not what was committed");
            }
        }
    }
}
