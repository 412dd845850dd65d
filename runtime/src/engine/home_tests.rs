//! Changing the engine of a data directory, interrupted at every step. The process that is interrupted is this test
//! binary again, told by its environment when to end.

use super::home::{HomeError, Step, open, open_watched};
use super::tests::{P, key, large, load, value, version};
use super::{Conversion, Engine, EngineError};
use crate::config::EngineKind::{self, Fjall, Memory, Sled};
use crate::datadir::DataDir;
use std::cell::RefCell;
use std::path::Path;
use std::process::{Command, Stdio};
use trandb_cluster::mvcc::StoredVersion;
use trandb_cluster::{PartitionId, Timestamp};

const DIR: &str = "TRANDB_TEST_CONVERTED_DIR";
const TO: &str = "TRANDB_TEST_CONVERTED_TO";
const ENDS_AT: &str = "TRANDB_TEST_CONVERTED_ENDS_AT";

const Q: PartitionId = PartitionId(9 | 3 << 16);

/// What each partition holds.
fn content(partition: PartitionId) -> Vec<StoredVersion> {
    let mut versions = vec![version("large", 5, Some(large(2_000_000))), version("removed", 7, None)];
    for n in 0..500 {
        versions.push(version(&format!("key {n:05} of {partition}"), 11 + n, value("x")));
    }
    versions.sort_by(|a, b| (&a.key, a.version.timestamp).cmp(&(&b.key, b.version.timestamp)));
    versions
}

fn ignore(_: &Conversion) {}

/// A data directory with an engine of that kind.
fn filled(kind: EngineKind) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    drop(DataDir::open(dir.path(), || 5).expect("opens"));
    let engine = open(dir.path(), Some(kind), &ignore).expect("opens");
    for partition in [P, Q] {
        engine.put(partition, &content(partition)).expect("puts");
        engine.commit(partition, partition.to_string().as_bytes()).expect("commits");
    }
    // Of one that was never committed nobody wants anything.
    engine.put(PartitionId(40), &content(P)).expect("puts");
    dir
}

fn is_whole(engine: &dyn Engine) {
    for partition in [P, Q] {
        let meta = engine.meta(partition).expect("reads").expect("is there");
        assert_eq!(meta, partition.to_string());
        assert!(load(engine, partition) == content(partition), "{partition} is not what it was");
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("is a directory");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("reads").file_name().into_string().expect("is text")).collect();
    names.retain(|name| !["LOCK", "VERSION", "IDENTITY", "wal"].contains(&name.as_str()));
    names.sort();
    names
}

fn place(kind: EngineKind) -> &'static str {
    if kind == Fjall { "engine-fjall" } else { "engine" }
}

#[test]
fn checkpoints_go_from_one_engine_to_the_other_and_back() {
    let dir = filled(Sled);
    for kind in [Fjall, Sled, Sled, Fjall] {
        let told = RefCell::new(Vec::new());
        let engine = open(dir.path(), Some(kind), &|conversion| told.borrow_mut().push(conversion.clone()));
        let engine = engine.expect("opens");
        is_whole(&*engine);
        if let Some(last) = told.borrow().last() {
            let versions = 2 * content(P).len() as u64;
            assert_eq!((last.to, last.copied, last.versions), (kind, last.partitions, versions));
        }
        drop(engine);
        assert_eq!(names(dir.path()), ["CHECKPOINTS".to_owned(), place(kind).to_owned()]);
    }
}

#[test]
fn a_directory_from_before_there_was_a_choice_is_sleds() {
    let dir = filled(Sled);
    std::fs::remove_file(dir.path().join("CHECKPOINTS")).expect("is there");
    is_whole(&*open(dir.path(), Some(Fjall), &ignore).expect("opens"));
    assert_eq!(names(dir.path()), ["CHECKPOINTS", "engine-fjall"]);
}

#[test]
fn a_directory_keeps_what_it_has_when_no_engine_is_asked_for() {
    for kind in [Sled, Fjall] {
        let dir = filled(kind);
        let before = names(dir.path());
        is_whole(&*open(dir.path(), None, &|_| panic!("nothing is copied")).expect("opens"));
        assert_eq!(names(dir.path()), before);
    }
    let old = filled(Sled);
    std::fs::remove_file(old.path().join("CHECKPOINTS")).expect("is there");
    is_whole(&*open(old.path(), None, &ignore).expect("opens"));
    assert_eq!(names(old.path()), ["CHECKPOINTS", "engine"]);

    let fresh = tempfile::tempdir().expect("a directory");
    drop(DataDir::open(fresh.path(), || 5).expect("opens"));
    open(fresh.path(), None, &ignore).expect("opens");
    assert_eq!(std::fs::read_to_string(fresh.path().join("CHECKPOINTS")).expect("is there"), "fjall\n");
}

#[test]
fn a_conversion_that_was_begun_is_undone_when_no_engine_is_asked_for() {
    let dir = filled(Sled);
    std::fs::write(dir.path().join("CHECKPOINTS"), "sled\nleft over: fjall\n").expect("writes");
    std::fs::create_dir(dir.path().join("engine.converting")).expect("is made");
    is_whole(&*open(dir.path(), None, &ignore).expect("opens"));
    assert_eq!(names(dir.path()), ["CHECKPOINTS", "engine"]);
    assert_eq!(std::fs::read_to_string(dir.path().join("CHECKPOINTS")).expect("is there"), "sled\n");
}

#[test]
fn memory_takes_no_directory_that_has_checkpoints() {
    let dir = filled(Fjall);
    let Err(error) = open(dir.path(), Some(Memory), &ignore) else { panic!("they would be missing") };
    assert!(matches!(error, HomeError::Volatile { found: Fjall, .. }), "{error}");
    assert_eq!(error.exit_code(), 78);
    is_whole(&*open(dir.path(), Some(Fjall), &ignore).expect("opens"));

    let fresh = tempfile::tempdir().expect("a directory");
    drop(DataDir::open(fresh.path(), || 5).expect("opens"));
    open(fresh.path(), Some(Memory), &ignore).expect("has nothing to lose");
    assert_eq!(names(fresh.path()), ["engine"]);
}

#[test]
fn checkpoints_that_this_program_has_not_left_there_are_not_removed() {
    let (dir, other) = (filled(Fjall), filled(Sled));
    std::fs::remove_dir_all(dir.path().join("engine")).expect("is there, and empty");
    std::fs::rename(other.path().join("engine"), dir.path().join("engine")).expect("moves");
    for kind in [Fjall, Sled] {
        let Err(error) = open(dir.path(), Some(kind), &ignore) else { panic!("which of them counts?") };
        assert!(matches!(error, HomeError::Both { counts: Fjall, stranger: Sled, .. }), "{error}");
        assert_eq!(error.exit_code(), 78);
    }
    std::fs::remove_dir_all(dir.path().join("engine")).expect("is there");
    is_whole(&*open(dir.path(), Some(Sled), &ignore).expect("opens"));
}

#[test]
fn a_note_that_says_something_else_is_refused() {
    let dir = filled(Fjall);
    for text in
        ["", "rocks\n", "memory\n", "fjall\nleft over: fjall\n", "fjall\nsled\n", "sled\nfjall\nsled\n"]
    {
        std::fs::write(dir.path().join("CHECKPOINTS"), text).expect("writes");
        let Err(error) = open(dir.path(), Some(Fjall), &ignore) else { panic!("{text:?} says nothing") };
        assert_eq!(error.exit_code(), 65, "{error}");
    }
}

#[test]
fn a_source_that_is_damaged_stays_what_counts() {
    let dir = filled(Fjall);
    std::fs::remove_file(dir.path().join("engine-fjall/version")).expect("is there");
    let Err(error) = open(dir.path(), Some(Sled), &ignore) else { panic!("there is nothing to copy from") };
    assert!(matches!(error, HomeError::Engine(EngineError::Corrupt { .. })), "{error}");
    let note = std::fs::read_to_string(dir.path().join("CHECKPOINTS")).expect("is there");
    assert_eq!(note, "fjall\nleft over: sled\n");
}

#[test]
#[ignore = "is the process that the test below ends"]
fn converter() {
    let variable = |name| std::env::var(name).ok();
    let (Some(dir), Some(to), Some(ends_at)) = (variable(DIR), variable(TO), variable(ENDS_AT)) else {
        return;
    };
    let to = if to == "fjall" { Fjall } else { Sled };
    let ends_at: usize = ends_at.parse().expect("a number");
    let mut steps = 0;
    let mut at = |_: Step| {
        steps += 1;
        if steps == ends_at {
            std::process::abort();
        }
    };
    open_watched(Path::new(&dir), Some(to), None, &ignore, &mut at).expect("opens");
}

/// Converts in a process that ends at that step; whether there was such a step.
fn ends_at(dir: &Path, to: EngineKind, step: usize) -> bool {
    let status = Command::new(std::env::current_exe().expect("this binary"))
        .args(["engine::home_tests::converter", "--exact", "--ignored", "--test-threads=1"])
        .envs([(DIR, dir.to_str().expect("our own")), (TO, &to.to_string()), (ENDS_AT, &step.to_string())])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("starts");
    !status.success()
}

fn is_interrupted_everywhere(from: EngineKind, to: EngineKind) {
    // What is asked for after it: to go on, or to stay.
    for after in [to, from] {
        let mut step = 1;
        loop {
            let dir = filled(from);
            if !ends_at(dir.path(), to, step) {
                break;
            }
            // Once more before it comes to an end.
            ends_at(dir.path(), after, step);
            let engine = open(dir.path(), Some(after), &ignore).expect("opens");
            is_whole(&*engine);
            let name = (key(b"large"), Timestamp(5));
            engine.remove(P, &[name]).expect("goes on");
            engine.commit(P, b"after").expect("goes on");
            drop(engine);
            assert_eq!(names(dir.path()), ["CHECKPOINTS", place(after)], "after step {step}");
            step += 1;
        }
        // Three partitions are copied.
        assert_eq!(step, 10, "a step was not come by");
    }
}

#[test]
fn a_conversion_to_fjall_that_is_interrupted_anywhere_goes_on_or_is_undone() {
    is_interrupted_everywhere(Sled, Fjall);
}

#[test]
fn a_conversion_to_sled_that_is_interrupted_anywhere_goes_on_or_is_undone() {
    is_interrupted_everywhere(Fjall, Sled);
}
