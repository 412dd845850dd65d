//! What every engine must do, run against each of them.

use super::{Engine, EngineError, FjallEngine, FjallOptions, MemoryEngine, SledEngine, SledOptions};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use trandb_cluster::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use trandb_cluster::mvcc::{StoredVersion, Version};
use trandb_cluster::{EncodedKey, KeyspaceId, PartitionId, Timestamp};

pub(super) const P: PartitionId = PartitionId(1);

pub(super) fn key(text: &[u8]) -> EncodedKey {
    EncodedKey::from_parts(KeyspaceId::DEFAULT, text)
}

pub(super) fn version(text: &str, timestamp: u64, value: Option<Bytes>) -> StoredVersion {
    let timestamp = Timestamp(timestamp);
    StoredVersion { key: key(text.as_bytes()), version: Version { timestamp, index: timestamp.0 / 2, value } }
}

pub(super) fn value(text: &'static str) -> Option<Bytes> {
    Some(Bytes::from_static(text.as_bytes()))
}

/// Bytes that differ from place to place, so that chunks in the wrong order show.
pub(super) fn large(bytes: usize) -> Bytes {
    (0..bytes).map(|place| (place / 7 + place / 4096) as u8).collect()
}

pub(super) fn load(engine: &dyn Engine, partition: PartitionId) -> Vec<StoredVersion> {
    let mut loaded = Vec::new();
    engine.load(partition, &mut |version| loaded.push(version)).expect("loads");
    loaded.sort_by(|a, b| (&a.key, a.version.timestamp).cmp(&(&b.key, b.version.timestamp)));
    loaded
}

/// All files of a database on disk.
pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("is a directory") {
        let path = entry.expect("reads").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A database as it lies on disk, empty directories included.
pub(super) fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().expect("a directory");
    copy_into(from, to.path());
    to
}

fn copy_into(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("is a directory") {
        let entry = entry.expect("reads");
        let copied = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&copied).expect("makes");
            copy_into(&entry.path(), &copied);
        } else {
            fs::copy(entry.path(), copied).expect("copies");
        }
    }
}

/// Something that can be stopped and started, with all that it had committed.
pub(super) trait Bench {
    fn engine(&self) -> &dyn Engine;
    fn reopen(&mut self);
}

impl Bench for MemoryEngine {
    fn engine(&self) -> &dyn Engine {
        self
    }

    fn reopen(&mut self) {
        self.crash();
    }
}

/// How an engine on disk is opened.
pub(super) type Open = fn(&Path) -> Result<Box<dyn Engine>, EngineError>;

pub(super) fn sled(dir: &Path) -> Result<Box<dyn Engine>, EngineError> {
    Ok(Box::new(SledEngine::open(dir, SledOptions { cache_bytes: 8 << 20 })?))
}

pub(super) fn fjall(dir: &Path) -> Result<Box<dyn Engine>, EngineError> {
    Ok(Box::new(FjallEngine::open(dir, FjallOptions::default())?))
}

/// All of them.
pub(super) const ON_DISK: [Open; 2] = [sled, fjall];

/// An engine on disk.
pub(super) struct DiskBench {
    pub(super) dir: tempfile::TempDir,
    engine: Option<Box<dyn Engine>>,
    open: Open,
}

impl DiskBench {
    pub(super) fn new(open: Open) -> Self {
        let mut bench = Self { dir: tempfile::tempdir().expect("a directory"), engine: None, open };
        bench.reopen();
        bench
    }

    /// Only what is on disk.
    pub(super) fn close(self) -> tempfile::TempDir {
        drop(self.engine);
        self.dir
    }
}

impl Bench for DiskBench {
    fn engine(&self) -> &dyn Engine {
        self.engine.as_deref().expect("is open")
    }

    fn reopen(&mut self) {
        drop(self.engine.take());
        self.engine = Some((self.open)(self.dir.path()).expect("opens"));
    }
}

fn on_each(test: impl Fn(&mut dyn Bench)) {
    test(&mut MemoryEngine::new());
    for open in ON_DISK {
        test(&mut DiskBench::new(open));
    }
}

#[test]
fn what_was_committed_is_there_after_a_restart() {
    on_each(|bench| {
        assert_eq!(bench.engine().meta(P).expect("reads"), None);
        assert_eq!(load(bench.engine(), P), []);
        let versions =
            [version("a", 10, value("1")), version("a", 20, None), version("b", 12, Some(Bytes::new()))];
        bench.engine().put(P, &versions).expect("puts");
        bench.engine().commit(P, b"first").expect("commits");
        bench.reopen();
        assert_eq!(bench.engine().meta(P).expect("reads").expect("is there"), "first");
        assert_eq!(load(bench.engine(), P), versions);
    });
}

#[test]
fn versions_and_metas_of_any_size_survive() {
    on_each(|bench| {
        let longest_key = "k".repeat(KEY_BYTES_MAX);
        let mut versions = vec![version(&longest_key, 2, Some(large(VALUE_BYTES_MAX)))];
        // Around the places where an entry is full.
        for (n, bytes) in [1, 4082, 4083, 4084, 8178, 8179, 8180, 100_000].into_iter().enumerate() {
            versions.push(version("sizes", 10 + n as u64, Some(large(bytes))));
        }
        bench.engine().put(P, &versions).expect("puts");
        for bytes in [0, 4092, 4093, 50_000, 7] {
            bench.engine().commit(P, &large(bytes)).expect("commits");
            bench.reopen();
            assert_eq!(bench.engine().meta(P).expect("reads").expect("is there"), large(bytes));
        }
        assert_eq!(load(bench.engine(), P), versions);
        let too_large = large(super::META_BYTES_MAX + 1);
        assert!(matches!(bench.engine().commit(P, &too_large), Err(EngineError::Failed { .. })));
    });
}

#[test]
fn what_was_removed_is_gone_and_the_rest_stays() {
    on_each(|bench| {
        let versions = [
            version("a", 10, Some(large(20_000))),
            version("a", 11, Some(large(20_000))),
            version("ab", 10, value("short")),
        ];
        bench.engine().put(P, &versions).expect("puts");
        bench.engine().commit(P, b"1").expect("commits");
        let names = [
            (key(b"a"), Timestamp(10)),
            (key(b"ab"), Timestamp(10)),
            (key(b"ab"), Timestamp(11)),
            (key(b"nobody"), Timestamp(1)),
        ];
        bench.engine().remove(P, &names).expect("removes");
        bench.engine().remove(PartitionId(77), &names).expect("has nothing to remove");
        bench.engine().commit(P, b"2").expect("commits");
        bench.reopen();
        assert_eq!(load(bench.engine(), P), versions[1..2]);
    });
}

#[test]
fn partitions_are_listed_as_long_as_they_hold_anything() {
    on_each(|bench| {
        assert_eq!(bench.engine().partitions().expect("lists"), []);
        let ids = [PartitionId(0), P, PartitionId(u32::MAX)];
        bench.engine().put(ids[2], &[version("k", 2, value("three"))]).expect("puts");
        bench.engine().commit(ids[0], b"a meta alone").expect("commits");
        bench.engine().put(ids[1], &[version("k", 2, value("one")), version("l", 2, None)]).expect("puts");
        bench.engine().commit(ids[1], b"one").expect("commits");
        bench.engine().commit(ids[2], b"three").expect("commits");
        bench.reopen();
        assert_eq!(bench.engine().partitions().expect("lists"), ids);
        bench.engine().drop_partition(ids[1]).expect("drops");
        assert_eq!(bench.engine().partitions().expect("lists"), [ids[0], ids[2]]);
        bench.reopen();
        assert_eq!(bench.engine().partitions().expect("lists"), [ids[0], ids[2]]);
    });
}

#[test]
fn what_was_not_committed_leaves_the_old_meta() {
    on_each(|bench| {
        let committed = [version("a", 10, value("1"))];
        bench.engine().put(P, &committed).expect("puts");
        bench.engine().commit(P, b"first").expect("commits");
        bench.engine().put(P, &[version("b", 20, value("2"))]).expect("puts");
        let too_large = large(super::META_BYTES_MAX + 1);
        bench.engine().commit(P, &too_large).expect_err("does not fit");
        bench.reopen();
        assert_eq!(bench.engine().meta(P).expect("reads").expect("is there"), "first");
        let left = load(bench.engine(), P);
        // What comes later than the meta may be there or not.
        assert_eq!(left[..1], committed);
    });
}

#[test]
fn a_record_that_is_put_again_is_replaced_whole() {
    on_each(|bench| {
        for bytes in [9000, 50_000, 3, 5000] {
            let versions = [version("k", 4, Some(large(bytes)))];
            bench.engine().put(P, &versions).expect("puts");
            assert_eq!(load(bench.engine(), P), versions);
        }
    });
}

#[test]
fn partitions_do_not_see_each_other_and_may_be_dropped() {
    on_each(|bench| {
        let generation = PartitionId(P.0 | 7 << 24);
        for (partition, text) in [(P, "one"), (generation, "two"), (PartitionId(u32::MAX), "three")] {
            bench.engine().put(partition, &[version("k", 2, value(text))]).expect("puts");
            bench.engine().commit(partition, text.as_bytes()).expect("commits");
        }
        bench.engine().drop_partition(P).expect("drops");
        bench.engine().drop_partition(P).expect("has nothing to drop");
        for _ in 0..2 {
            assert_eq!(bench.engine().meta(P).expect("reads"), None);
            assert_eq!(load(bench.engine(), P), []);
            assert_eq!(load(bench.engine(), generation), [version("k", 2, value("two"))]);
            assert_eq!(
                bench.engine().meta(PartitionId(u32::MAX)).expect("reads").expect("is there"),
                "three"
            );
            bench.reopen();
        }
        bench.engine().put(P, &[version("k", 9, value("new"))]).expect("puts");
        bench.engine().commit(P, b"again").expect("commits");
        bench.reopen();
        assert_eq!(load(bench.engine(), P), [version("k", 9, value("new"))]);
    });
}

#[test]
fn no_key_falls_between_the_chunks_of_another() {
    on_each(|bench| {
        // The second key is the first one's entry name, cut where its chunk number would tell entries apart.
        let mut name = b"a".to_vec();
        name.extend_from_slice(&10u64.to_be_bytes());
        name.extend_from_slice(&[0, 0, 0]);
        let nested = StoredVersion { key: key(&name), version: version("", 3, value("between")).version };
        let versions = [version("a", 10, Some(large(9000))), nested];
        bench.engine().put(P, &versions).expect("puts");
        assert_eq!(load(bench.engine(), P), versions);
    });
}

#[test]
fn a_crash_of_the_memory_engine_loses_exactly_what_was_not_committed() {
    let engine = MemoryEngine::new();
    let kept = [version("a", 2, value("1")), version("b", 4, value("2"))];
    engine.put(P, &kept).expect("puts");
    engine.commit(P, b"1").expect("commits");
    engine.put(P, &[version("c", 6, value("3")), version("a", 2, value("changed"))]).expect("puts");
    engine.remove(P, &[(key(b"b"), Timestamp(4)), (key(b"c"), Timestamp(6))]).expect("removes");
    engine.put(PartitionId(2), &kept).expect("puts");
    engine.clone().crash();
    assert_eq!(load(&engine, P), kept);
    assert_eq!(load(&engine, PartitionId(2)), []);
}

#[test]
fn a_database_that_cannot_be_opened_says_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, b"no directory").expect("writes");
    for open in ON_DISK {
        let Err(error) = open(&file) else { panic!("a file is no database") };
        assert!(matches!(error, EngineError::Io { action: "open", .. }), "{error:?}");
        assert_eq!(error.exit_code(), 74);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8, Option<usize>),
    Remove(u8, u8),
    Commit(u8),
    Drop,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0u8..6;
    let timestamp = 1u8..5;
    let size = prop_oneof![Just(None), (0usize..50).prop_map(Some), (4000usize..13_000).prop_map(Some)];
    let step = prop_oneof![
        8 => (key.clone(), timestamp.clone(), size).prop_map(|(k, t, size)| Step::Put(k, t, size)),
        4 => (key, timestamp).prop_map(|(k, t)| Step::Remove(k, t)),
        3 => any::<u8>().prop_map(Step::Commit),
        1 => Just(Step::Drop),
        2 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every engine holds what a map would, with a commit before each restart.
    #[test]
    fn engines_hold_what_a_map_would(steps in steps()) {
        on_each(|bench| {
            let mut twin = BTreeMap::new();
            let mut meta = None;
            for step in &steps {
                match *step {
                    Step::Put(k, t, size) => {
                        let stored = version(&"k".repeat(k.into()), t.into(), size.map(large));
                        bench.engine().put(P, std::slice::from_ref(&stored)).expect("puts");
                        twin.insert((stored.key.clone(), stored.version.timestamp), stored);
                    }
                    Step::Remove(k, t) => {
                        let name = (key("k".repeat(k.into()).as_bytes()), Timestamp(t.into()));
                        twin.remove(&name);
                        bench.engine().remove(P, &[name]).expect("removes");
                    }
                    Step::Commit(number) => {
                        meta = Some(Bytes::copy_from_slice(&[number]));
                        bench.engine().commit(P, &[number]).expect("commits");
                    }
                    Step::Drop => {
                        twin.clear();
                        meta = None;
                        bench.engine().drop_partition(P).expect("drops");
                    }
                    Step::Reopen => {
                        meta = Some(Bytes::from_static(b"reopen"));
                        bench.engine().commit(P, b"reopen").expect("commits");
                        bench.reopen();
                    }
                }
                assert_eq!(bench.engine().meta(P).expect("reads"), meta);
                assert!(load(bench.engine(), P).iter().eq(twin.values()));
            }
        });
    }
}

/// Not a test of speed: shows how long a start takes.
#[test]
#[ignore = "takes a minute"]
fn load_a_million_keys() {
    for open in ON_DISK {
        load_a_million_keys_of(DiskBench::new(open));
    }
}

fn load_a_million_keys_of(mut bench: DiskBench) {
    let started = tokio::time::Instant::now();
    for chunk in 0..1000u64 {
        let versions: Vec<_> = (0..1000)
            .map(|n| version(&format!("user{:010}", chunk * 1000 + n), 2 + n, Some(large(100))))
            .collect();
        bench.engine().put(P, &versions).expect("puts");
    }
    bench.engine().commit(P, b"meta").expect("commits");
    println!("written in {:?}", started.elapsed());
    let started = tokio::time::Instant::now();
    bench.reopen();
    println!("opened in {:?}", started.elapsed());
    let started = tokio::time::Instant::now();
    let mut count = 0;
    bench.engine().load(P, &mut |_| count += 1).expect("loads");
    println!("loaded in {:?}", started.elapsed());
    assert_eq!(count, 1_000_000);
}
