//! What a data directory takes on disk, at one moment and over time.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two looks, and between two lines about them.
const SAMPLE: Duration = Duration::from_millis(500);
const LINE: Duration = Duration::from_secs(20);

/// Bytes on disk. Room that a file has and nothing was written to does not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) engine: u64,
    pub(crate) log: u64,
}

impl Used {
    /// By the data directory `dir`.
    pub(crate) fn of(dir: &Path) -> Self {
        let mut used = Self::default();
        for entry in std::fs::read_dir(dir).expect("is there") {
            let entry = entry.expect("is read");
            let name = entry.file_name().into_string().expect("is text");
            match name.as_str() {
                "wal" => used.log += bytes_below(&entry.path()),
                name if name.starts_with("engine") => used.engine += bytes_below(&entry.path()),
                _ => {}
            }
        }
        used
    }

    pub(crate) fn total(self) -> u64 {
        self.engine + self.log
    }
}

/// Bytes that the files below a directory take. One that goes while they are counted takes none.
fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let bytes_of = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.ok()?;
        let metadata = entry.metadata().ok()?;
        let blocks = metadata.blocks() * 512;
        Some(if metadata.is_dir() { bytes_below(&entry.path()) } else { blocks })
    };
    entries.filter_map(bytes_of).sum()
}

/// Looks at directories again and again.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Used>,
}

impl Watch {
    /// Prints what they take together now and then.
    pub(crate) fn start(dirs: Vec<PathBuf>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let began = Instant::now();
            let mut line = began;
            let mut most = Used::default();
            while !stopped.load(Ordering::Relaxed) {
                let used = dirs.iter().map(|dir| Used::of(dir)).fold(Used::default(), |sum, one| Used {
                    engine: sum.engine + one.engine,
                    log: sum.log + one.log,
                });
                if used.total() > most.total() {
                    most = used;
                }
                if line.elapsed() >= LINE {
                    line = Instant::now();
                    let Used { engine, log } = used;
                    let (at, engine, log) = (began.elapsed().as_secs(), engine >> 20, log >> 20);
                    println!("after {at} s on disk: engine {engine} MiB, log {log} MiB");
                }
                std::thread::sleep(SAMPLE);
            }
            most
        });
        Self { stop, thread }
    }

    /// The most that they took together at one time.
    pub(crate) fn most(self) -> Used {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("looking does not panic")
    }
}

#[test]
fn what_is_written_counts_and_what_is_not_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, bytes: usize| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("has one")).expect("is made");
        std::fs::write(path, vec![1; bytes]).expect("is written");
    };
    write("wal/1.wal", 1 << 20);
    write("engine-fjall/keyspaces/1/2", 2 << 20);
    write("IDENTITY", 3 << 20);
    let sparse = std::fs::File::create(folder.path().join("wal/2.wal")).expect("is made");
    sparse.set_len(64 << 20).expect("has room");
    sparse.sync_all().expect("is synced");
    let used = Used::of(folder.path());
    // File systems may need some more for a file than what is in it.
    assert!((1 << 20..2 << 20).contains(&used.log), "{used:?}");
    assert!((2 << 20..3 << 20).contains(&used.engine), "{used:?}");
}
