//! Checkpoints in sled 0.34.
//!
//! Sled by itself does not survive a power cut: on Linux it starts the transfer of pages but never
//! makes the disk or the file system write them down, and pages that outgrow a segment go to files that are
//! never synced. What makes it fit for checkpoints, which the log can redo:
//!
//! - What sled calls to sync a part of its file syncs the file ([`super::sync_range`]): sled relies on that before it
//!   writes over what it does not need any more.
//! - [`SledEngine::commit`] flushes, then syncs the database file through a file handle of its own. That covers
//!   what sled wrote through its own handle, since both are the same file.
//! - What a crash leaves unfinished, and sled would take for rot, is cleared before it is opened.
//! - Records are cut into entries so small that pages stay below that size ([`super::record`]); should any
//!   such file appear all the same, it is synced, too.
//! - Records of several entries are written and removed in one batch, so they are whole or not there.
//! - A meta is the last thing written before the flush, and sled's log recovers to a prefix of what was written.
//! - A panic, or a sync that failed, ends the engine: what it would answer after that cannot be trusted.
//!
//! One database holds all partitions, one tree each: databases cost a thread and megabytes apiece.
//!
//! # Caveats
//! The file never shrinks; room is reused. A checkpoint of much more than the cache is slow.

use super::guard::{self, Fault, Guard, panic_text};
use super::record::{self, Assembler, CHUNK_BYTES, Entries, EntryKey};
use super::{Engine, EngineError, META_BYTES_MAX};
use crate::planted::{Planted, is_planted};
use ::sled::{Batch, Db, Mode, Tree};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::mvcc::StoredVersion;
use trandb_cluster::{EncodedKey, PartitionId, Timestamp};

/// A closed database holds its lock until sled's own threads have let go of it. How long opening waits for
/// that before it fails; no other process can hold it, since the data directory is locked.
const OPEN_ATTEMPTS_MAX: u32 = 100;
const OPEN_PAUSE: Duration = Duration::from_millis(20);

/// How sled is set up.
#[derive(Debug, Clone, Copy)]
pub struct SledOptions {
    /// Bytes of pages that sled keeps in memory. A checkpoint that is larger is several times slower.
    pub cache_bytes: u64,
}

impl Default for SledOptions {
    fn default() -> Self {
        // The data itself is in memory already; what is cached here is what checkpoints write to.
        Self { cache_bytes: 64 << 20 }
    }
}

/// A [`Engine`] on disk.
pub struct SledEngine {
    db: Db,
    /// The same file that sled writes to.
    file: File,
    blobs: PathBuf,
    trees: Mutex<BTreeMap<PartitionId, Tree>>,
    /// The files in `blobs` that are known to be on disk.
    synced_blobs: Mutex<BTreeSet<PathBuf>>,
    guard: Guard,
}

impl SledEngine {
    /// Opens the database in `dir`, or makes one.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`] when what is there cannot be read, else as the system says.
    pub fn open(dir: &Path, options: SledOptions) -> Result<Self, EngineError> {
        guard::on_a_thread_that_can_wait(|| Self::open_here(dir, options))
    }

    fn open_here(dir: &Path, options: SledOptions) -> Result<Self, EngineError> {
        clear_unfinished(dir).map_err(|error| EngineError::Io { action: "open", error })?;
        let db = open_db(dir, options)?;
        let opened = || -> io::Result<File> {
            let file = File::options().read(true).write(true).open(dir.join("db"))?;
            file.sync_all()?;
            File::open(dir.join("conf"))?.sync_all()?;
            File::open(dir)?.sync_all()?;
            Ok(file)
        };
        let file = opened().map_err(|error| EngineError::Io { action: "sync its files", error })?;
        let engine = Self {
            db,
            file,
            blobs: dir.join("blobs"),
            trees: Mutex::default(),
            synced_blobs: Mutex::default(),
            guard: Guard::new("sled"),
        };
        let trees = engine.guard.call("list its trees", || {
            let mut trees = BTreeMap::new();
            for name in engine.db.tree_names() {
                if let Some(partition) = partition_of(&name) {
                    trees.insert(partition, engine.db.open_tree(&name)?);
                }
            }
            Ok(trees)
        })?;
        *lock(&engine.trees) = trees;
        Ok(engine)
    }

    fn tree(&self, partition: PartitionId) -> Option<Tree> {
        lock(&self.trees).get(&partition).cloned()
    }

    fn tree_or_new(&self, partition: PartitionId) -> Result<Tree, EngineError> {
        let mut trees = lock(&self.trees);
        if let Some(tree) = trees.get(&partition) {
            return Ok(tree.clone());
        }
        let tree = self.guard.call("make a tree", || Ok(self.db.open_tree(name_of(partition))?))?;
        trees.insert(partition, tree.clone());
        Ok(tree)
    }

    /// Makes all that was written durable. A sync that fails may have lost what it was for, and the next one
    /// would not know: so the first failure is the last call.
    fn sync(&self) -> Result<(), EngineError> {
        let started = Instant::now();
        let result = self.guard.call("flush", || Ok(self.db.flush()?)).and_then(|_| {
            if is_planted(Planted::EngineWithoutSync) {
                return Ok(());
            }
            self.sync_blobs()
                .and_then(|()| self.file.sync_data())
                .map_err(|error| EngineError::Io { action: "sync", error })
        });
        if result.is_err() {
            self.guard.fail();
        }
        metrics::histogram!("trandb_checkpoint_sync_seconds").record(started.elapsed().as_secs_f64());
        result
    }

    fn sync_blobs(&self) -> io::Result<()> {
        let mut present = BTreeSet::new();
        for entry in std::fs::read_dir(&self.blobs)? {
            present.insert(entry?.path());
        }
        let mut synced = lock(&self.synced_blobs);
        let mut any = false;
        for path in present.difference(&synced) {
            match File::open(path) {
                Ok(file) => file.sync_all()?,
                // Sled has removed it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            any = true;
        }
        if any {
            File::open(&self.blobs)?.sync_all()?;
        }
        *synced = present;
        Ok(())
    }
}

impl Engine for SledEngine {
    fn partitions(&self) -> Result<Vec<PartitionId>, EngineError> {
        let trees: Vec<_> = lock(&self.trees).iter().map(|(id, tree)| (*id, tree.clone())).collect();
        self.guard.call("list partitions", || {
            let mut present = Vec::new();
            for (partition, tree) in trees {
                if tree.first().map_err(|error| Fault::from(error).of(partition))?.is_some() {
                    present.push(partition);
                }
            }
            Ok(present)
        })
    }

    fn meta(&self, partition: PartitionId) -> Result<Option<Bytes>, EngineError> {
        let Some(tree) = self.tree(partition) else { return Ok(None) };
        self.guard.call("read a meta", || read_meta(&tree).map_err(|fault| fault.of(partition)))
    }

    fn load(&self, partition: PartitionId, sink: &mut dyn FnMut(StoredVersion)) -> Result<(), EngineError> {
        let Some(tree) = self.tree(partition) else { return Ok(()) };
        let corrupt = |what| EngineError::Corrupt { partition: Some(partition), what };
        let mut assembler = Assembler::default();
        let mut entries = self.guard.call("read a partition", || Ok(tree.iter()))?;
        loop {
            let next = self.guard.call("read a partition", || {
                entries.next().transpose().map_err(|error| Fault::from(error).of(partition))
            })?;
            let Some((name, entry)) = next else { break };
            if let Some(version) = assembler.take(&name, &entry).map_err(corrupt)? {
                sink(version);
            }
        }
        assembler.finish().map_err(corrupt)
    }

    fn put(&self, partition: PartitionId, versions: &[StoredVersion]) -> Result<(), EngineError> {
        let tree = self.tree_or_new(partition)?;
        for StoredVersion { key, version } in versions {
            let name = EntryKey::version(key, version.timestamp)?;
            let entries = Entries::version(version, CHUNK_BYTES)?;
            self.guard.call("write a version", || {
                write(&tree, name, &entries, |first| record::version_entries(first).map_err(Fault::Corrupt))
                    .map_err(|fault| fault.of(partition))
            })?;
        }
        Ok(())
    }

    fn commit(&self, partition: PartitionId, meta: &[u8]) -> Result<(), EngineError> {
        if meta.len() > META_BYTES_MAX {
            return Err(EngineError::failed(format!("a meta of {} bytes does not fit", meta.len())));
        }
        let tree = self.tree_or_new(partition)?;
        let entries = Entries::meta(meta, CHUNK_BYTES)?;
        self.guard.call("write a meta", || {
            write(&tree, EntryKey::meta(), &entries, |first| {
                record::meta_entries(first).map(|(entries, _)| entries).map_err(Fault::Corrupt)
            })
            .map_err(|fault| fault.of(partition))
        })?;
        self.sync()
    }

    fn remove(
        &self,
        partition: PartitionId,
        versions: &[(EncodedKey, Timestamp)],
    ) -> Result<(), EngineError> {
        let Some(tree) = self.tree(partition) else { return Ok(()) };
        for (key, timestamp) in versions {
            let name = EntryKey::version(key, *timestamp)?;
            self.guard
                .call("remove a version", || erase(&tree, name).map_err(|fault| fault.of(partition)))?;
        }
        Ok(())
    }

    fn drop_partition(&self, partition: PartitionId) -> Result<(), EngineError> {
        let mut trees = lock(&self.trees);
        if !trees.contains_key(&partition) {
            return Ok(());
        }
        self.guard.call("drop a tree", || Ok(self.db.drop_tree(name_of(partition))?))?;
        trees.remove(&partition);
        drop(trees);
        self.sync()
    }

    fn has_failed(&self) -> bool {
        self.guard.has_failed()
    }
}

/// Writes a record over the one that may be there: in one step, and leaving none of its entries.
fn write(
    tree: &Tree,
    mut name: EntryKey,
    entries: &Entries<'_>,
    entries_before: impl FnOnce(&[u8]) -> Result<u32, Fault>,
) -> Result<(), Fault> {
    let before = tree.get(name.chunk(0))?.map_or(Ok(0), |first| entries_before(&first))?;
    if entries.count() == 1 && before <= 1 {
        for entry in entries.iter() {
            tree.insert(name.chunk(0), entry)?;
        }
        return Ok(());
    }
    let mut batch = Batch::default();
    for (chunk, entry) in entries.iter().enumerate() {
        batch.insert(name.chunk(chunk as u32), entry);
    }
    for chunk in entries.count()..before {
        batch.remove(name.chunk(chunk));
    }
    Ok(tree.apply_batch(batch)?)
}

/// Removes a version in one step.
fn erase(tree: &Tree, mut name: EntryKey) -> Result<(), Fault> {
    let Some(first) = tree.get(name.chunk(0))? else { return Ok(()) };
    let entries = record::version_entries(&first).map_err(Fault::Corrupt)?;
    if entries == 1 {
        tree.remove(name.chunk(0))?;
        return Ok(());
    }
    let mut batch = Batch::default();
    for chunk in 0..entries {
        batch.remove(name.chunk(chunk));
    }
    Ok(tree.apply_batch(batch)?)
}

fn read_meta(tree: &Tree) -> Result<Option<Bytes>, Fault> {
    let mut name = EntryKey::meta();
    let Some(first) = tree.get(name.chunk(0))? else { return Ok(None) };
    let (entries, length) = record::meta_entries(&first).map_err(Fault::Corrupt)?;
    let mut meta = record::meta_payload(&first).to_vec();
    for chunk in 1..entries {
        let entry = tree.get(name.chunk(chunk))?;
        let entry = entry.ok_or_else(|| Fault::Corrupt(format!("chunk {chunk} of the meta is missing")))?;
        meta.extend_from_slice(&entry);
    }
    if meta.len() != length {
        return Err(Fault::Corrupt(format!("the meta has {} bytes instead of {length}", meta.len())));
    }
    Ok(Some(meta.into()))
}

impl From<::sled::Error> for Fault {
    fn from(error: ::sled::Error) -> Self {
        match error {
            ::sled::Error::Io(error) => Self::Io(error),
            error @ ::sled::Error::Corruption { .. } => Self::Corrupt(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }
}

/// Removes what a process that died on the way leaves behind and sled itself then takes for complete, and so for
/// corrupt: a snapshot of its page table that has not got its final name, and a configuration that was cut short. Sled
/// makes both again, the latter always the same.
fn clear_unfinished(dir: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let unfinished = match name {
            "conf" => !is_whole(&std::fs::read(&path)?),
            _ => name.starts_with("snap.") && name.ends_with(".generating"),
        };
        if unfinished {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Whether these bytes end with their checksum, as sled writes them.
fn is_whole(conf: &[u8]) -> bool {
    conf.split_last_chunk()
        .is_some_and(|(content, sum)| !content.is_empty() && crc32fast::hash(content).to_le_bytes() == *sum)
}

#[allow(
    clippy::disallowed_methods,
    reason = "opening happens before there is anything to hold up, and never in the simulation"
)]
fn open_db(dir: &Path, options: SledOptions) -> Result<Db, EngineError> {
    let config = ::sled::Config::new()
        .path(dir)
        .cache_capacity(options.cache_bytes)
        .mode(Mode::HighThroughput)
        // Commits flush; what lies between them need not be on disk.
        .flush_every_ms(None);
    let mut attempts = 1;
    loop {
        let opened = catch_unwind(AssertUnwindSafe(|| config.open())).map_err(|panic| {
            // Sled finds much of what is wrong with its files by tripping over it.
            EngineError::Corrupt { partition: None, what: format!("sled panicked: {}", panic_text(&*panic)) }
        })?;
        match opened {
            Ok(db) => return Ok(db),
            Err(::sled::Error::Io(error)) if is_locked(&error) && attempts < OPEN_ATTEMPTS_MAX => {
                attempts += 1;
                std::thread::sleep(OPEN_PAUSE);
            }
            Err(error) => return Err(Fault::from(error).into_error("open")),
        }
    }
}

/// Sled says so in words only.
fn is_locked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Other && error.to_string().contains("could not acquire lock")
}

/// Trees are named after their partition, in a form that cannot be sled's own default tree.
fn name_of(partition: PartitionId) -> String {
    format!("p{:08x}", partition.0)
}

fn partition_of(name: &[u8]) -> Option<PartitionId> {
    let digits = std::str::from_utf8(name).ok()?.strip_prefix('p')?;
    u32::from_str_radix(digits, 16).ok().map(PartitionId)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded here is whole at any time: every change to it is a single call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
