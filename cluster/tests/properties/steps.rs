//! A step of a checkpoint is small whatever the partition holds: it keeps everything else waiting.

use bytes::Bytes;
use trandb_cluster::command::{Command, Condition, Write, WriteBatch};
use trandb_cluster::partition::PartitionState;
use trandb_cluster::{EncodedKey, KeyspaceId, Timestamp};

/// Keys that a step looks at.
const AT_ONCE: usize = 256;

/// Keys that are written at once.
const BATCH: usize = 1000;

/// Writes every key once, with nothing of the past kept.
fn write_all(state: &mut PartitionState, keys: usize, value: &'static [u8]) {
    for first in (0..keys).step_by(BATCH) {
        let writes = (first..keys.min(first + BATCH)).map(|number| Write {
            key: EncodedKey::from_parts(KeyspaceId::DEFAULT, format!("key-{number:012}").as_bytes()),
            value: Some(Bytes::from_static(value)),
            condition: Condition::Any,
        });
        let index = state.applied() + 1;
        let timestamp = Timestamp(index * BATCH as u64);
        let batch = WriteBatch { timestamp, gc_floor: Timestamp(0), writes: writes.collect() };
        state.apply(index, Command::Write(batch));
    }
    let (index, floor) = (state.applied() + 1, state.last_timestamp());
    let batch = WriteBatch { timestamp: floor.plus(1), gc_floor: floor, writes: Vec::new() };
    state.apply(index, Command::Write(batch));
}

/// Runs a checkpoint; how many versions each of its steps put, and how many each one removed.
fn checkpoint(state: &mut PartitionState, removes_max: usize) -> (Vec<usize>, Vec<usize>) {
    state.begin_checkpoint();
    let puts = std::iter::from_fn(|| state.checkpoint_puts(usize::MAX)).map(|puts| puts.len()).collect();
    drop(state.end_checkpoint(true));
    let removes = std::iter::from_fn(|| Some(state.checkpoint_removes(removes_max).len()));
    (puts, removes.take_while(|&removed| removed > 0).collect())
}

#[test]
fn a_step_of_a_checkpoint_is_bounded() {
    const KEYS: usize = 2 * AT_ONCE + 100;
    let mut state = PartitionState::new();
    write_all(&mut state, KEYS, b"old");
    assert_eq!(checkpoint(&mut state, usize::MAX), (vec![AT_ONCE, AT_ONCE, 100], vec![]));

    // Each is overwritten; what it had is forgotten once that is in a checkpoint, and removed after the next one.
    write_all(&mut state, KEYS, b"new");
    assert_eq!(checkpoint(&mut state, AT_ONCE), (vec![AT_ONCE, AT_ONCE, 100], vec![]));
    while state.gc_step(AT_ONCE) > 0 {}
    assert_eq!(checkpoint(&mut state, AT_ONCE), (vec![], vec![AT_ONCE, AT_ONCE, 100]));
}

/// How long each step takes. `cargo test -p trandb-cluster --release --test properties steps_take -- --ignored --nocapture`
#[test]
#[ignore = "measures"]
#[allow(clippy::disallowed_methods, reason = "it measures real time")]
fn steps_take() {
    const KEYS: usize = 1_000_000;
    let mut state = PartitionState::new();
    write_all(&mut state, KEYS, &[b'v'; 100]);
    checkpoint(&mut state, AT_ONCE);
    write_all(&mut state, KEYS, &[b'w'; 100]);
    checkpoint(&mut state, AT_ONCE);
    while state.gc_step(AT_ONCE) > 0 {}
    write_all(&mut state, KEYS, &[b'x'; 100]);

    let mut took = Vec::new();
    let mut step = |name: &'static str, step: &mut dyn FnMut() -> bool| {
        let began = std::time::Instant::now();
        let goes_on = step();
        took.push((began.elapsed(), name));
        goes_on
    };
    step("begin", &mut || state.begin_checkpoint().index > 0);
    let mut puts = Vec::new();
    while step("puts", &mut || state.checkpoint_puts(1 << 20).map(|some| puts.extend(some)).is_some()) {}
    let mut keys = Vec::new();
    step("end", &mut || {
        keys = state.end_checkpoint(true);
        false
    });
    let mut removes = Vec::new();
    while step("removes", &mut || {
        let some = state.checkpoint_removes(4096);
        let goes_on = !some.is_empty();
        removes.extend(some);
        goes_on
    }) {}
    assert_eq!((puts.len(), keys.len(), removes.len()), (KEYS, KEYS, KEYS));
    took.sort_unstable();
    let (half, most) = (took[took.len() / 2], took[took.len() - 1]);
    println!("{} steps, {half:?} at p50, {most:?} at most", took.len());
}
