//! What is fjall's own: its journal's end, its unfinished beginnings, and rot.

use super::tests::{Bench, DiskBench, P, copy, files, fjall as open, key, large, load, value, version};
use super::{Engine, EngineError};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use trandb_cluster::mvcc::StoredVersion;
use trandb_cluster::{PartitionId, Timestamp};

const Q: PartitionId = PartitionId(2);

/// A database with three checkpoints of P, and its journal cut to what was written.
fn three_checkpoints() -> (tempfile::TempDir, PathBuf) {
    let bench = DiskBench::new(open);
    for round in 1..=3 {
        bench.engine().put(P, &[version("k", round, Some(large(300)))]).expect("puts");
        bench.engine().commit(P, &[round as u8]).expect("commits");
    }
    let dir = bench.close();
    let journal = dir.path().join("0.jnl");
    let bytes = fs::read(&journal).expect("is there");
    let end = bytes.iter().rposition(|&byte| byte != 0).expect("was written") + 1;
    fs::write(&journal, &bytes[..end]).expect("writes");
    (dir, journal)
}

/// The last checkpoint that is whole; the versions up to it must be.
fn committed(engine: &dyn Engine) -> u8 {
    let meta = engine.meta(P).expect("reads").map_or(0, |meta| meta[0]);
    let found = load(engine, P);
    for round in 1..=meta {
        assert!(found.contains(&version("k", round.into(), Some(large(300)))), "{round} of {meta}");
    }
    meta
}

#[test]
fn a_journal_that_ends_anywhere_opens_with_all_that_was_whole() {
    let (dir, journal) = three_checkpoints();
    let bytes = fs::read(&journal).expect("is there");
    let mut seen = BTreeMap::new();
    for end in (0..=bytes.len()).rev().step_by(7) {
        // What was preallocated behind it is still there, or not.
        for zeros in [0, 4096] {
            let mut torn = bytes[..end].to_vec();
            torn.resize(end + zeros, 0);
            fs::write(&journal, &torn).expect("writes");
            let engine = open(dir.path()).unwrap_or_else(|error| panic!("cut at {end}: {error}"));
            *seen.entry(committed(&*engine)).or_insert(0) += 1;
        }
    }
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn what_is_written_after_a_torn_end_is_there() {
    let (dir, journal) = three_checkpoints();
    let mut bytes = fs::read(&journal).expect("is there");
    let hole = bytes.len() - 100;
    // A sector that never came, in the last commit.
    bytes[hole..hole + 60].fill(0);
    fs::write(&journal, &bytes).expect("writes");
    for round in 2..5 {
        let engine = open(dir.path()).expect("opens");
        assert_eq!(committed(&*engine), round);
        engine.put(P, &[version("k", u64::from(round) + 1, Some(large(300)))]).expect("puts");
        engine.commit(P, &[round + 1]).expect("commits");
    }
}

/// Bytes from one flip to the next where not all are tried; has nothing in common with any length in the files.
const STRIDE: usize = 23;

#[test]
fn flipped_bytes_are_without_effect_or_refused_or_lose_only_the_last_commit() {
    flip_each(STRIDE);
}

#[test]
#[ignore = "takes minutes"]
fn every_flipped_byte_is_without_effect_or_refused_or_loses_only_the_last_commit() {
    flip_each(1);
}

fn flip_each(stride: usize) {
    let (dir, journal) = three_checkpoints();
    let (mut without, mut refused, mut last_lost) = (0, 0, 0);
    for path in files(dir.path()) {
        let bytes = fs::read(&path).expect("is there");
        for at in (0..bytes.len()).step_by(stride) {
            let before = copy(dir.path());
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            let place = before.path().join(path.strip_prefix(dir.path()).expect("lies below"));
            fs::write(&place, &flipped).expect("writes");
            let Ok(engine) = open(before.path()) else {
                refused += 1;
                continue;
            };
            match engine.meta(P) {
                Ok(Some(meta)) if meta[..] == [3] => {
                    assert_eq!(committed(&*engine), 3, "{path:?} at {at}");
                    without += 1;
                }
                Ok(Some(meta)) => {
                    // The log still goes back to where this one ends.
                    assert_eq!((meta[0], committed(&*engine)), (2, 2), "{path:?} at {at}");
                    assert_eq!(path, journal, "at {at}");
                    last_lost += 1;
                }
                Ok(None) => panic!("{path:?} at {at}: nothing is left"),
                Err(error) => {
                    assert!(matches!(error, EngineError::Corrupt { .. }), "{error}");
                    refused += 1;
                }
            }
        }
    }
    println!("{without} flips without effect, {refused} refused, {last_lost} lost the last commit");
    assert!(refused > without && last_lost > 0, "{without}, {refused}, {last_lost}");
}

#[test]
fn a_database_that_lacks_what_it_always_has_is_refused() {
    for name in ["version", "lock", "keyspaces/0/current", "keyspaces/1/current", "0.jnl"] {
        let (dir, _) = three_checkpoints();
        fs::remove_file(dir.path().join(name)).expect("is there");
        let Err(error) = open(dir.path()) else { panic!("{name} is missing") };
        assert!(matches!(error, EngineError::Corrupt { partition: None, .. }), "{name}: {error}");
    }
}

#[test]
fn a_database_of_which_half_was_made_is_made_anew() {
    let parent = tempfile::tempdir().expect("a directory");
    let dir = parent.path().join("engine");
    let making = parent.path().join("engine.making");
    fs::create_dir_all(making.join("keyspaces/0")).expect("makes");
    fs::write(making.join("version"), b"FJ").expect("writes");
    let engine = open(&dir).expect("opens");
    engine.commit(P, b"meta").expect("commits");
    drop(engine);
    assert!(!making.exists());
    assert_eq!(open(&dir).expect("opens").meta(P).expect("reads").expect("is there"), "meta");
}

#[test]
fn a_drop_that_was_interrupted_is_finished_when_it_is_opened() {
    let mut bench = DiskBench::new(open);
    let versions: Vec<_> = (0..10_000).map(|n| version("k", n, value("x"))).collect();
    for partition in [P, Q] {
        bench.engine().put(partition, &versions).expect("puts");
        bench.engine().commit(partition, b"meta").expect("commits");
    }
    let dir = bench.dir.path().to_owned();
    // A copy of each moment: the journal, cut anywhere in what the drop has written.
    let journal = dir.join("0.jnl");
    let written = |bytes: &[u8]| bytes.iter().rposition(|&byte| byte != 0).expect("was written") + 1;
    let before = written(&fs::read(&journal).expect("is there"));
    bench.engine().drop_partition(P).expect("drops");
    let bytes = fs::read(&journal).expect("is there");
    let after = written(&bytes);
    for step in 0..=8 {
        let end = before + (after - before) * step / 8;
        let copy = copy(&dir);
        fs::write(copy.path().join("0.jnl"), &bytes[..end]).expect("writes");
        let engine = open(copy.path()).expect("opens");
        let left = load(&*engine, P).len();
        let meta = engine.meta(P).expect("reads");
        assert!((left, meta.is_some()) == (10_000, true) || (left, meta.is_some()) == (0, false), "{left}");
        assert_eq!(meta.is_some(), step == 0);
        assert_eq!(load(&*engine, Q).len(), 10_000);
    }
    bench.reopen();
    assert_eq!(load(bench.engine(), P), Vec::<StoredVersion>::new());
    assert_eq!(bench.engine().partitions().expect("lists"), [Q]);
}

#[test]
fn many_overwrites_go_through_files_and_merges() {
    let mut bench = DiskBench::new(open);
    // Some memory's worth several times over, so that journals end and files are merged.
    for round in 1..=60u64 {
        let versions: Vec<_> =
            (0..10).map(|n| version(&format!("key {n}"), round, Some(large(100_000)))).collect();
        bench.engine().put(P, &versions).expect("puts");
        bench.engine().commit(P, &round.to_be_bytes()).expect("commits");
        let old: Vec<_> =
            (0..10).map(|n| (key(format!("key {n}").as_bytes()), Timestamp(round - 1))).collect();
        bench.engine().remove(P, &old).expect("removes");
    }
    for _ in 0..3 {
        assert_eq!(bench.engine().meta(P).expect("reads").expect("is there")[..], 60u64.to_be_bytes());
        let left = load(bench.engine(), P);
        assert_eq!(left.len(), 10);
        assert!(left.iter().all(|stored| stored.version.timestamp == Timestamp(60)));
        bench.reopen();
    }
}

#[test]
fn what_is_overwritten_without_end_takes_bounded_room() {
    const ROUNDS: u64 = 400;
    // Random, so that nothing is saved by compressing it.
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = move |count: usize| {
        let mut bytes = Vec::with_capacity(count);
        while bytes.len() < count {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes.extend_from_slice(&random.to_be_bytes()[..4]);
        }
        Some(bytes.into())
    };
    let bench = DiskBench::new(open);
    let names: Vec<String> = (0..8).map(|at| format!("key {at}")).collect();
    for round in 1..=ROUNDS {
        let versions: Vec<_> = names.iter().map(|name| version(name, round, bytes(128 << 10))).collect();
        bench.engine().put(P, &versions).expect("puts");
        bench.engine().commit(P, &round.to_be_bytes()).expect("commits");
        let old: Vec<_> = names.iter().map(|name| (key(name.as_bytes()), Timestamp(round - 1))).collect();
        bench.engine().remove(P, &old).expect("removes");
    }
    assert_eq!(load(bench.engine(), P).len(), names.len());
    let mib = bytes_below(bench.close().path()) >> 20;
    // A megabyte is live: the rest are the journal, what is not merged yet, and what is merged meanwhile.
    assert!(mib < ROUNDS / 2, "{mib} MiB after {ROUNDS} MiB were written");
}

fn bytes_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).expect("is a directory").map(|entry| entry.expect("is read"));
    let bytes_of = |entry: fs::DirEntry| {
        let metadata = entry.metadata().expect("is there");
        if metadata.is_dir() { bytes_below(&entry.path()) } else { metadata.len() }
    };
    entries.map(bytes_of).sum()
}
