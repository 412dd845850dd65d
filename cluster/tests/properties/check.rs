//! The walk over a partition's memory finds a byte that changed by itself, and nothing else.

use bytes::Bytes;
use proptest::prelude::*;
use trandb_cluster::command::{Command, Condition, Write, WriteBatch};
use trandb_cluster::partition::{Checked, PartitionState};
use trandb_cluster::{EncodedKey, KeyspaceId, Timestamp};

fn key(number: usize) -> EncodedKey {
    EncodedKey::from_parts(KeyspaceId::DEFAULT, format!("k{number:03}").as_bytes())
}

fn write(state: &mut PartitionState, number: usize, value: Option<u8>) {
    let index = state.applied() + 1;
    let value = value.map(|byte| Bytes::from(vec![byte; 5]));
    let writes = vec![Write { key: key(number), value, condition: Condition::Any }];
    let batch = WriteBatch { timestamp: Timestamp(index * 10), gc_floor: Timestamp(index * 9), writes };
    state.apply(index, Command::Write(batch));
}

/// Walks on to the last key.
fn walk(state: &mut PartitionState, keys: usize, bytes: usize) -> Checked {
    (0..10_000).find_map(|_| state.check_step(keys, bytes)).expect("it ends")
}

#[derive(Debug, Clone)]
enum Op {
    Write(usize, Option<u8>),
    Step(usize, usize),
    Gc(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..30_usize, proptest::option::weighted(0.7, any::<u8>())).prop_map(|(key, value)| Op::Write(key, value)),
        4 => (0..6_usize, 0..30_usize).prop_map(|(keys, bytes)| Op::Step(keys, bytes)),
        1 => (0..20_usize).prop_map(Op::Gc),
    ]
}

proptest! {
    #[test]
    fn nothing_is_found_where_nothing_is_wrong(ops in proptest::collection::vec(op(), 1..120)) {
        let mut state = PartitionState::new();
        let mut ended = 0;
        for op in ops {
            match op {
                Op::Write(number, value) => write(&mut state, number, value),
                Op::Gc(keys) => drop(state.gc_step(keys)),
                Op::Step(keys, bytes) => if let Some(checked) = state.check_step(keys, bytes) {
                    prop_assert_eq!(checked, Checked::Sound);
                    ended += 1;
                },
            }
        }
        prop_assert_eq!(walk(&mut state, 3, 12), Checked::Sound, "after {} others", ended);
    }

    /// Wherever the walk is when a byte changes, and whether the key is written again or not: the walk that begins after
    /// that finds it.
    #[cfg(debug_assertions)]
    #[test]
    fn a_flipped_byte_is_found(
        before in proptest::collection::vec(op(), 1..60),
        flipped in 0..30_usize,
        after in proptest::collection::vec(op(), 0..30),
        again in any::<bool>(),
    ) {
        let mut state = PartitionState::new();
        let run = |state: &mut PartitionState, ops: Vec<Op>| for op in ops {
            match op {
                Op::Write(number, value) => write(state, number, value),
                Op::Gc(keys) => drop(state.gc_step(keys)),
                Op::Step(keys, bytes) => drop(state.check_step(keys, bytes)),
            }
        };
        run(&mut state, before);
        write(&mut state, flipped, Some(7));
        prop_assert!(state.flip_byte(&key(flipped), false));
        run(&mut state, after);
        if again {
            write(&mut state, flipped, Some(8));
        }
        walk(&mut state, 4, usize::MAX);
        prop_assert_ne!(walk(&mut state, 4, usize::MAX), Checked::Sound);
        prop_assert_ne!(walk(&mut state, usize::MAX, usize::MAX), Checked::Sound, "it stays");
    }
}

#[cfg(debug_assertions)]
#[test]
fn there_is_nothing_to_flip_where_there_is_no_byte() {
    let mut state = PartitionState::new();
    assert!(!state.flip_byte(&key(1), false), "no such key");
    write(&mut state, 1, Some(1));
    write(&mut state, 1, None);
    assert!(!state.flip_byte(&key(1), false), "deleted");
}

#[cfg(debug_assertions)]
#[test]
fn what_the_digest_knows_of_is_not_damage() {
    let mut state = PartitionState::new();
    write(&mut state, 1, Some(1));
    let before = state.digest();
    assert!(state.flip_byte(&key(1), true));
    assert_ne!(state.digest(), before);
    assert_eq!(walk(&mut state, 4, usize::MAX), Checked::Sound);
}

#[test]
fn a_step_is_bounded_and_an_empty_state_is_sound() {
    let mut state = PartitionState::new();
    assert_eq!(state.check_step(1, 1), Some(Checked::Sound));
    for number in 0..10 {
        write(&mut state, number, Some(1));
    }
    // Four keys each: two steps that go on, and one to the last key.
    let steps: Vec<_> = (0..3).map(|_| state.check_step(4, usize::MAX)).collect();
    assert_eq!(steps, [None, None, Some(Checked::Sound)]);
    // By their bytes, two of five bytes each reach ten.
    assert_eq!((0..10).take_while(|_| state.check_step(usize::MAX, 10).is_none()).count(), 4);
}

/// How long one tick's step takes. `cargo test -p trandb-cluster --release --test properties a_step_takes -- --ignored --nocapture`
#[test]
#[ignore = "measures"]
#[allow(clippy::disallowed_methods, reason = "it measures real time")]
fn a_step_takes() {
    for (keys, value_bytes) in [(1_000_000, 100), (2_000, 64 << 10)] {
        let mut state = PartitionState::new();
        for (at, number) in (0..keys).map(|at| (at + 1, at * 7_919 % keys)) {
            let key = EncodedKey::from_parts(KeyspaceId::DEFAULT, format!("key-{number:012}").as_bytes());
            let value = Some(Bytes::from(vec![b'v'; value_bytes]));
            let writes = vec![Write { key, value, condition: Condition::Any }];
            let batch = WriteBatch { timestamp: Timestamp(at * 10), gc_floor: Timestamp(0), writes };
            state.apply(at, Command::Write(batch));
        }
        let mut took = Vec::new();
        for _ in 0..3 {
            loop {
                let began = std::time::Instant::now();
                let checked = state.check_step(4096, 2 << 20);
                took.push(began.elapsed());
                if checked.is_some() {
                    break;
                }
            }
        }
        took.sort_unstable();
        let (half, most) = (took[took.len() / 2], took[took.len() - 1]);
        println!(
            "{keys} keys of {value_bytes} B: {} steps, {half:?} at p50, {most:?} at most",
            took.len() / 3
        );
    }
}
