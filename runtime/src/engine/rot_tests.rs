//! Bytes of a small database flipped in turn, and what a partition's state that is loaded from it then is: as it was, as an
//! earlier checkpoint left it, or refused. Never another one.
//!
//! A node whose checkpoint is older than what its log was purged to is refused when it starts.

use super::EngineError;
use super::tests::{Bench, DiskBench, Open, P, copy, files, fjall, key, large, sled};
use std::fs;
use std::path::Path;
use trandb_cluster::command::{Command, Condition, Write, WriteBatch};
use trandb_cluster::partition::{PartitionHeader, PartitionState};
use trandb_cluster::{Timestamp, wire};

/// Checkpoints that are written.
const ROUNDS: u64 = 4;

/// A database with so many checkpoints, and the header of each, that of none first. With what the header was written for it is
/// the whole state, and nothing else is taken for that.
fn pristine(open: Open) -> (tempfile::TempDir, Vec<PartitionHeader>) {
    let bench = DiskBench::new(open);
    let mut state = PartitionState::new();
    let mut headers = vec![PartitionHeader::default()];
    for round in 1..=ROUNDS {
        let writes = (0..4).map(|nth| Write {
            key: key(format!("key {}", (nth * round) % 7).as_bytes()),
            value: (nth != 3).then(|| large(100 * round as usize)),
            condition: Condition::Any,
        });
        let batch = WriteBatch {
            timestamp: Timestamp(round * 100),
            gc_floor: Timestamp::ZERO,
            writes: writes.collect(),
        };
        state.apply(round, Command::Write(batch));
        let header = state.begin_checkpoint();
        while let Some(puts) = state.checkpoint_puts(1 << 16) {
            bench.engine().put(P, &puts).expect("puts");
        }
        bench.engine().commit(P, &wire::encode(&header)).expect("commits");
        drop(state.end_checkpoint(true));
        headers.push(header);
    }
    // As a process leaves it that is killed.
    (copy(bench.dir.path()), headers)
}

/// Loads the state as a node does; the header that it was written for.
fn loaded(open: Open, dir: &Path) -> Result<PartitionHeader, String> {
    let text = |error: EngineError| error.to_string();
    let engine = open(dir).map_err(text)?;
    let Some(meta) = engine.meta(P).map_err(text)? else { return Ok(PartitionHeader::default()) };
    let header: PartitionHeader = wire::decode(&meta).map_err(|error| error.to_string())?;
    let mut restore = PartitionState::restore_from_checkpoint(header.clone());
    engine.load(P, &mut |version| restore.add(version)).map_err(text)?;
    restore.finish().map_err(|error| error.to_string())?;
    Ok(header)
}

fn flip_each(open: Open, stride: usize) {
    let (dir, headers) = pristine(open);
    // A copy, as all others: what opens it changes it.
    assert_eq!(loaded(open, copy(dir.path()).path()).as_ref(), Ok(&headers[ROUNDS as usize]));
    let (mut without, mut older, mut refused) = (0, 0, 0);
    for path in files(dir.path()) {
        let bytes = fs::read(&path).expect("is there");
        // What was allocated and never written is not read.
        let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        for at in (0..end).step_by(stride) {
            let rotten = copy(dir.path());
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            let place = path.strip_prefix(dir.path()).expect("lies below");
            fs::write(rotten.path().join(place), &flipped).expect("writes");
            match loaded(open, rotten.path()) {
                Err(_) => refused += 1,
                Ok(header) => match headers.iter().position(|known| *known == header) {
                    Some(round) if round as u64 == ROUNDS => without += 1,
                    Some(_) => older += 1,
                    None => panic!("{} at {at}: another state: {header:?}", path.display()),
                },
            }
        }
    }
    println!("{without} flips without effect, {older} gave an older checkpoint, {refused} were refused");
    assert!(older + refused > without, "{without}, {older}, {refused}");
}

#[test]
fn flipped_bytes_of_sled_never_give_another_state() {
    flip_each(sled, 499);
}

#[test]
fn flipped_bytes_of_fjall_never_give_another_state() {
    flip_each(fjall, 499);
}

#[test]
#[ignore = "takes minutes"]
fn every_flipped_byte_of_sled_never_gives_another_state() {
    flip_each(sled, 1);
}

#[test]
#[ignore = "takes minutes"]
fn every_flipped_byte_of_fjall_never_gives_another_state() {
    flip_each(fjall, 1);
}
