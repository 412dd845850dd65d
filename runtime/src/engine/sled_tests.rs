//! What is sled's own.

use super::EngineError;
use super::tests::{Bench, DiskBench, P, key, large, load, sled as open, value, version};
use std::path::Path;
use trandb_cluster::Timestamp;
use trandb_cluster::limits::KEY_BYTES_MAX;

#[test]
fn a_lost_chunk_is_corruption_not_a_shorter_value() {
    for lost in [0u32, 1, 2] {
        let bench = DiskBench::new(open);
        bench
            .engine()
            .put(P, &[version("k", 4, Some(large(9000))), version("l", 4, value("x"))])
            .expect("puts");
        bench.engine().commit(P, b"meta").expect("commits");
        let dir = bench.close();
        damage(dir.path(), lost);
        let engine = open(dir.path()).expect("opens");
        let error = engine.load(P, &mut |_| {}).expect_err("a hole");
        assert!(matches!(error, EngineError::Corrupt { partition: Some(P), .. }), "{error}");
        assert_eq!(error.exit_code(), 65);
    }
}

/// Takes chunk `lost` of the only record that has several out of the database in `dir`.
fn damage(dir: &Path, lost: u32) {
    let db = loop {
        match ::sled::open(dir) {
            Ok(db) => break db,
            Err(::sled::Error::Io(_)) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    let tree = db.open_tree("p00000001").expect("is there");
    let name = super::record::EntryKey::version(&key(b"k"), Timestamp(4)).expect("fits").chunk(lost).to_vec();
    assert!(tree.remove(name).expect("removes").is_some());
    db.flush().expect("flushes");
}

#[test]
fn what_a_crash_leaves_unfinished_is_no_corruption() {
    let bench = DiskBench::new(open);
    bench.engine().put(P, &[version("k", 4, value("x"))]).expect("puts");
    bench.engine().commit(P, b"meta").expect("commits");
    let dir = bench.close();
    let conf = std::fs::read(dir.path().join("conf")).expect("is there");
    for bytes in 0..=conf.len() {
        // It dies while it writes the one or the other.
        std::fs::write(dir.path().join("conf"), &conf[..bytes]).expect("writes");
        std::fs::write(dir.path().join("snap.00000000FFFFFFFF.generating"), &conf[..bytes]).expect("writes");
        let engine = open(dir.path()).expect("opens");
        assert_eq!(load(&*engine, P), [version("k", 4, value("x"))]);
        drop(engine);
        assert_eq!(std::fs::read(dir.path().join("conf")).expect("is there"), conf);
    }
}

#[test]
fn the_largest_pages_need_no_files_of_their_own() {
    let bench = DiskBench::new(open);
    // Keys that have nothing in common, since sled stores what neighbours share only once.
    let versions: Vec<_> = (0..200u64)
        .map(|n| {
            let letter = |place: usize| char::from(b'a' + ((n * 31 + place as u64) % 26) as u8);
            let text: String = (0..KEY_BYTES_MAX).map(letter).collect();
            version(&text, 1000 - n, Some(large(4083)))
        })
        .collect();
    for chunk in versions.chunks(20) {
        bench.engine().put(P, chunk).expect("puts");
        bench.engine().commit(P, b"meta").expect("commits");
    }
    assert_eq!(load(bench.engine(), P).len(), versions.len());
    assert_eq!(std::fs::read_dir(bench.dir.path().join("blobs")).expect("is there").count(), 0);
}
