//! A partition through writes, garbage collection, checkpoints, crashes and snapshots in any order, against
//! the log alone.

use crate::engine::Engine;
use crate::twin::Twin;
use bytes::Bytes;
use proptest::prelude::*;
use trandb_cluster::command::{Command, Condition, Write, WriteBatch};
use trandb_cluster::mvcc::{KEY_OVERHEAD_BYTES, StoredVersion};
use trandb_cluster::partition::{Checked, PartitionHeader, PartitionRestore, PartitionState, SnapshotCursor};
use trandb_cluster::wire::RangeScan;
use trandb_cluster::{EncodedKey, KeyspaceId, Timestamp};

#[derive(Debug, Clone)]
enum Op {
    /// The first timestamp's distance from the last one used (zero is stale), how far behind it the floor is.
    Write {
        ahead: u64,
        floor_behind: u64,
        writes: Vec<(usize, Option<u8>, u8)>,
    },
    Skip,
    Gc(usize),
    Check(usize),
    Begin,
    Puts(usize),
    End {
        committed: bool,
        removes_first: bool,
        removes: bool,
    },
    /// A whole checkpoint in one go, and whether what it may remove is asked for.
    Checkpoint {
        removes: bool,
    },
    /// Power fails, with what luck.
    Crash(u64),
    Pin,
    Chunk(usize),
    Unpin,
}

fn op() -> impl Strategy<Value = Op> {
    let write = (0..KEYS.len(), proptest::option::of(any::<u8>()), any::<u8>());
    prop_oneof![
        8 => (0..6_u64, 0..20_u64, proptest::collection::vec(write, 0..4))
            .prop_map(|(ahead, floor_behind, writes)| Op::Write { ahead, floor_behind, writes }),
        1 => Just(Op::Skip),
        3 => prop_oneof![0..12_usize, Just(100)].prop_map(Op::Gc),
        2 => (0..4_usize).prop_map(Op::Check),
        1 => Just(Op::Begin),
        4 => (0..400_usize).prop_map(Op::Puts),
        3 => (prop::bool::weighted(0.8), any::<bool>(), prop::bool::weighted(0.8))
            .prop_map(|(committed, removes_first, removes)| Op::End { committed, removes_first, removes }),
        4 => prop::bool::weighted(0.7).prop_map(|removes| Op::Checkpoint { removes }),
        2 => any::<u64>().prop_map(Op::Crash),
        1 => Just(Op::Pin),
        4 => (0..200_usize).prop_map(Op::Chunk),
        1 => Just(Op::Unpin),
    ]
}

const KEYS: [&str; 6] = ["a", "aa", "b", "ba", "c", "d"];

fn key(text: &str) -> EncodedKey {
    EncodedKey::from_parts(KeyspaceId::DEFAULT, text.as_bytes())
}

/// A snapshot on its way to another replica.
struct Stream {
    header: PartitionHeader,
    cursor: Option<SnapshotCursor>,
    receiver: PartitionRestore,
}

#[derive(Default)]
struct Bench {
    twin: Twin,
    state: PartitionState,
    engine: Engine,
    /// The running checkpoint, and whether all of it was put.
    running: Option<(PartitionHeader, bool)>,
    /// A checkpoint failed, so that the next ones may put again what is there.
    again: bool,
    stream: Option<Stream>,
}

impl Bench {
    fn step(&mut self, op: Op) {
        match op {
            Op::Write { ahead, floor_behind, writes } => self.write(ahead, floor_behind, &writes),
            Op::Skip => {
                self.twin.skip();
                self.state.skip(self.twin.index());
            }
            Op::Gc(steps) => self.collect(steps),
            Op::Check(keys) => {
                let checked = self.state.check_step(keys, usize::MAX);
                assert!(checked.is_none_or(|checked| checked == Checked::Sound), "{checked:?}");
            }
            Op::Begin => {
                self.again |= self.running.is_some();
                self.running = Some((self.state.begin_checkpoint(), false));
            }
            Op::Puts(bytes) => self.puts(bytes),
            Op::End { committed, removes_first, removes } => self.end(committed, removes_first, removes),
            Op::Checkpoint { removes } => {
                self.step(Op::Begin);
                self.puts(usize::MAX);
                self.puts(usize::MAX);
                self.end(true, false, removes);
            }
            Op::Crash(luck) => {
                self.state = self.engine.crash(luck);
                self.twin.replay(&mut self.state);
                (self.running, self.stream, self.again) = (None, None, true);
            }
            Op::Pin if self.stream.is_none() => {
                let header = self.state.pin_snapshot();
                let receiver = PartitionState::restore_from_snapshot(header.clone());
                self.stream = Some(Stream { header, cursor: None, receiver });
            }
            Op::Chunk(bytes) => self.chunk(bytes),
            Op::Unpin => {
                if let Some(stream) = self.stream.take() {
                    self.state.unpin_snapshot(stream.header.index);
                }
            }
            Op::Pin => {}
        }
    }

    /// One step, which forgets no more than it may and, unless something holds it up, something if there is anything.
    fn collect(&mut self, steps: usize) {
        let before = self.state.versions();
        let gone = self.state.gc_step(steps);
        assert!(gone <= steps, "{gone} versions in {steps} steps");
        assert_eq!(before - self.state.versions(), gone as u64);
        let floor = self.twin.gc_floor;
        let oldest = self.state.garbage_since();
        assert_eq!(self.state.has_garbage(), oldest.is_some_and(|since| since <= floor));
        let stored = dump(&self.state);
        // No key with a past is overlooked: the oldest that is known is not younger than any there is.
        let since = |versions: &[StoredVersion]| match versions {
            [only] => only.version.value.is_none().then_some(only.version.timestamp),
            versions => Some(versions[1].version.timestamp),
        };
        let there_is = stored.chunk_by(|one, next| one.key == next.key).filter_map(since).min();
        assert!(oldest <= there_is || there_is.is_none(), "{oldest:?} known, {there_is:?} there");
        assert!(there_is.is_none() || oldest.is_some(), "{there_is:?} is not known");
    }

    fn write(&mut self, ahead: u64, floor_behind: u64, writes: &[(usize, Option<u8>, u8)]) {
        let timestamp = self.twin.last_timestamp.plus(ahead);
        let writes = writes
            .iter()
            .map(|&(place, value, condition)| {
                let key = key(KEYS[place]);
                let condition = match condition {
                    0..150 => Condition::Any,
                    150..180 => Condition::Absent,
                    180..210 => Condition::Present,
                    210..240 => Condition::Version(self.state.exists(&key).unwrap_or_default()),
                    240.. => Condition::Version(Timestamp(3)),
                };
                Write {
                    key,
                    value: value.map(|byte| Bytes::from(vec![byte; usize::from(byte) % 70])),
                    condition,
                }
            })
            .collect();
        let gc_floor = Timestamp(timestamp.0.saturating_sub(floor_behind));
        let batch = WriteBatch { timestamp, gc_floor, writes };
        let expected = self.twin.apply(batch.clone());
        assert_eq!(self.state.apply(self.twin.index(), Command::Write(batch)), expected);
    }

    fn puts(&mut self, bytes: usize) {
        let puts = self.state.checkpoint_puts(bytes);
        let Some((header, done)) = &mut self.running else { return assert!(puts.is_none()) };
        *done |= puts.is_none();
        for put in puts.into_iter().flatten() {
            assert!(put.version.index <= header.index, "later than the checkpoint");
            let was_there = self.engine.put(put);
            assert!(self.again || !was_there, "put twice");
        }
    }

    fn end(&mut self, committed: bool, removes_first: bool, removes: bool) {
        let Some((header, done)) = self.running.take() else { return };
        let early = if removes && removes_first { self.removes() } else { vec![] };
        let committed = committed && done;
        if committed {
            self.engine.commit(header);
        }
        self.again |= !committed;
        drop(self.state.end_checkpoint(committed));
        if committed {
            self.engine.remove(early);
        }
        if removes {
            let removes = self.removes();
            self.engine.remove(removes);
        }
    }

    /// All that may be removed, a few at a time.
    fn removes(&mut self) -> Vec<(EncodedKey, Timestamp)> {
        let mut all = Vec::new();
        loop {
            let some = self.state.checkpoint_removes(2);
            assert!(some.len() <= 2);
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    }

    fn chunk(&mut self, bytes: usize) {
        let Some(mut stream) = self.stream.take() else { return };
        let (chunk, cursor) = self.state.snapshot_chunk(stream.header.index, stream.cursor.as_ref(), bytes);
        assert!(cursor.is_none() || cursor != stream.cursor, "it does not move");
        let weight: usize = chunk.iter().map(StoredVersion::weight).sum();
        let last = chunk.last().map_or(0, StoredVersion::weight);
        assert!(chunk.len() <= 1 || weight - last < bytes, "{weight} bytes in {} versions", chunk.len());
        chunk.into_iter().for_each(|stored| stream.receiver.add(stored));
        if cursor.is_some() {
            stream.cursor = cursor;
            self.stream = Some(stream);
            return;
        }
        self.state.unpin_snapshot(stream.header.index);
        let mut state = stream.receiver.finish().expect("all of it was received");
        assert_eq!(state.applied(), stream.header.index);
        self.twin.replay(&mut state);
        self.compare(&state);
        // All of it is new to the receiver's engine.
        let mut engine = Engine::default();
        let header = state.begin_checkpoint();
        let before = dump(&state);
        let puts = state.checkpoint_puts(usize::MAX).unwrap_or_default();
        assert_eq!(puts.len(), before.len());
        puts.into_iter().for_each(|put| assert!(!engine.put(put), "put twice"));
        engine.commit(header);
        assert_eq!(dump(&engine.crash(0)), before);
    }

    fn compare(&self, state: &PartitionState) {
        let twin = &self.twin;
        assert_eq!(state.applied(), twin.index());
        assert_eq!((state.last_timestamp(), state.gc_floor()), (twin.last_timestamp, twin.gc_floor));
        assert_eq!(state.digest(), state.recompute_digest());
        assert_eq!((state.digest(), state.live_keys()), twin.digest_at(twin.index()));
        for at in (twin.gc_floor.0..=twin.last_timestamp.0).chain([u64::MAX]).map(Timestamp) {
            for key in KEYS.map(key) {
                assert_eq!(state.get(&key, at), twin.get(&key, at), "{key:?} at {at}");
            }
            assert_eq!(scan_all(state, at, 3, 200), twin.live(at), "scan at {at}");
        }
        let live = twin.live(Timestamp(u64::MAX));
        let live_bytes: usize =
            live.iter().map(|(key, found)| key.as_bytes().len() + found.value.len()).sum();
        assert_eq!(state.live_bytes(), live_bytes as u64);
        let stored = dump(state);
        assert_eq!(state.versions(), stored.len() as u64);
        let mut keys: Vec<_> = stored.iter().map(|stored| &stored.key).collect();
        keys.dedup();
        let bytes = stored.iter().map(|stored| stored.version.weight()).sum::<usize>()
            + keys.iter().map(|key| key.as_bytes().len() + KEY_OVERHEAD_BYTES).sum::<usize>();
        assert_eq!(state.bytes(), bytes as u64);
    }
}

fn dump(state: &PartitionState) -> Vec<StoredVersion> {
    state.snapshot_chunk(u64::MAX, None, usize::MAX).0
}

/// Pages through everything.
fn scan_all(
    state: &PartitionState,
    at: Timestamp,
    limit: u32,
    bytes_max: u32,
) -> Vec<(EncodedKey, trandb_cluster::wire::Versioned)> {
    let mut found = Vec::new();
    let mut start = key("");
    loop {
        let page = state.scan(&RangeScan { start, end: None, at, limit, bytes_max, keys_only: false });
        assert!(page.entries.len() <= limit as usize);
        found.extend(page.entries);
        if !page.more {
            return found;
        }
        let (last, _): &(EncodedKey, _) = found.last().expect("a page that stopped at a limit has an entry");
        let mut next = last.as_bytes().to_vec();
        next.push(0);
        start = EncodedKey::from_stored(next.into()).expect("it has a keyspace");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_state_is_what_the_log_says(ops in proptest::collection::vec(op(), 1..250)) {
        let mut bench = Bench::default();
        for op in ops {
            bench.step(op);
        }
        bench.compare(&bench.state);
        for index in 0..=bench.twin.index() {
            if let Some(known) = bench.state.digest_at(index) {
                assert_eq!(known, bench.twin.digest_at(index), "at {index}");
            }
        }
        // Brought to rest, it forgets all that the floor allows, and so does its engine.
        for _ in 0..4 {
            bench.step(Op::Unpin);
            bench.step(Op::Checkpoint { removes: true });
            // In steps of any size: each does something as long as there is anything to do.
            while bench.state.gc_step(3) > 0 {}
            bench.step(Op::Gc(100));
        }
        assert!(!bench.state.has_garbage(), "since {:?}", bench.state.garbage_since());
        bench.compare(&bench.state);
        let floor = bench.twin.gc_floor;
        let stored = dump(&bench.state);
        for pair in stored.windows(2).filter(|pair| pair[0].key == pair[1].key) {
            assert!(pair[1].version.timestamp > floor, "{pair:?} is below {floor}");
        }
        let mut crashed = bench.engine.crash(0);
        bench.twin.replay(&mut crashed);
        assert_eq!(dump(&crashed), stored, "the engine holds what memory does");
    }
}

#[test]
fn only_the_last_digests_are_remembered() {
    use trandb_cluster::partition::DIGEST_HISTORY_MAX;
    let mut state = PartitionState::new();
    let last = DIGEST_HISTORY_MAX as u64 * 2;
    for index in 1..=last {
        state.skip(index);
    }
    let first = last - DIGEST_HISTORY_MAX as u64 + 1;
    assert_eq!(state.digest_at(first - 1), None);
    assert!(state.digest_at(first).is_some());
    assert!(state.digest_at(last).is_some());
    assert_eq!(state.digest_at(last + 1), None);
}

#[test]
fn a_gap_in_the_log_answers_as_what_was_before_it() {
    let mut state = PartitionState::new();
    state.skip(3);
    state.skip(9);
    assert_eq!(state.digest_at(7), state.digest_at(3));
    assert_eq!(state.digest_at(10), None);
}
