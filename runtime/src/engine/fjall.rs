//! Checkpoints in fjall 3, a tree of sorted files behind a journal.
//!
//! All partitions lie in one keyspace of it, told apart by how names begin:
//!
//! ```text
//! 0 · partition (4)               ▶  nothing     the partition is being dropped
//! 1 · partition (4) · record name ▶  record      whole, as `record.rs` lays it out
//! 2                               ▶  commits     how many there were (8)
//! ```
//!
//! - A put or a removal is a batch of the journal, which is there after a crash with all its records or not at all; and
//!   so are all before it, since the journal is read up to its first damage.
//! - A commit is a batch with the meta and its own number, and the journal's `fdatasync`.
//! - Dropping a partition commits its mark together with the end of its meta; only then do its records go, in small
//!   batches, and the mark with the last of them. What a crash interrupts is finished when it is opened.
//! - The files that fjall makes once, at the beginning, are made beside and moved into place whole
//!   ([`super::files`]), and the journal's torn end is cut off by us ([`super::fjall_journal`]): fjall by itself
//!   would refuse to open after some power cuts.
//! - What fjall takes on trust is checked before it is opened ([`super::fjall_tree`]).
//!
//! A keyspace for each partition would make dropping one cheap. But a new keyspace costs ten syncs, its folder's
//! name is never synced by fjall, and its number may be given out again once it is gone, below what the old one left in
//! fjall's list of them.
//!
//! # Caveats
//! Dropping a partition takes as long as removing its records does.

use super::files;
use super::fjall_journal;
use super::fjall_tree;
use super::guard::{self, Fault, Guard, panic_text};
use super::record::{self, Assembler, Entries, EntryKey, WHOLE};
use super::{Engine, EngineError, META_BYTES_MAX};
use crate::planted::{Planted, is_planted};
use ::fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use bytes::Bytes;
use std::io;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::time::Instant;
use trandb_cluster::mvcc::StoredVersion;
use trandb_cluster::{EncodedKey, PartitionId, Timestamp};

/// The only keyspace.
const KEYSPACE: &str = "checkpoints";

const DROPPING: u8 = 0;
const RECORD: u8 = 1;
pub(super) const COMMITS: u8 = 2;
const PREFIX_BYTES: usize = 1 + 4;

/// Records of a dropped partition that are removed at once: some hundred kilobytes of names.
const DROP_BATCH: usize = 4096;

/// Bytes of recent changes in memory, the same that the journal holds, before they become a sorted file. Four such files
/// are merged with those below: data of up to 256 MiB, all of it at once, so that each merge drops all that is gone.
const MEMTABLE_BYTES: u64 = 8 << 20;

/// Bytes of journal files, the one being written among them: twice its own size at least, so that one that is written
/// need not wait for the one before to go.
const JOURNAL_BYTES_MAX: u64 = 192 << 20;

/// Threads that turn memory into files and merge those. One could not do the former while it does the latter, for
/// which writes would have to wait.
const WORKERS: usize = 2;

/// How fjall is set up.
#[derive(Debug, Clone, Copy)]
pub struct FjallOptions {
    /// Bytes of blocks that fjall keeps in memory.
    pub cache_bytes: u64,
}

impl Default for FjallOptions {
    fn default() -> Self {
        // Checkpoints are read once, at start, in order.
        Self { cache_bytes: 16 << 20 }
    }
}

/// A [`Engine`] on disk.
pub struct FjallEngine {
    db: Database,
    keyspace: Keyspace,
    /// How many there were, that which is under way among them.
    commits: AtomicU64,
    guard: Guard,
}

impl FjallEngine {
    /// Opens the database in `dir`, or makes one where there is nothing or an empty directory.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`] when what is there cannot be read, else as the system says.
    pub fn open(dir: &Path, options: FjallOptions) -> Result<Self, EngineError> {
        guard::on_a_thread_that_can_wait(|| Self::open_here(dir, options))
    }

    fn open_here(dir: &Path, options: FjallOptions) -> Result<Self, EngineError> {
        let io = |error| EngineError::Io { action: "open", error };
        if files::is_empty(dir).map_err(io)? {
            let making = files::begin(dir).map_err(io)?;
            // It writes down who its keyspaces are as it makes them.
            drop(open_db(&making, options)?);
            files::finish(&making, dir).map_err(io)?;
        }
        files::check(dir).map_err(|fault| fault.into_error("open"))?;
        // The list of keyspaces, and the only one.
        for tree in ["keyspaces/0", "keyspaces/1"] {
            fjall_tree::check(&dir.join(tree)).map_err(|fault| fault.into_error("open"))?;
        }
        fjall_journal::check(dir).map_err(|fault| fault.into_error("open"))?;
        let (db, keyspace) = open_db(dir, options)?;
        // What was removed before a crash must not come back after the next one.
        files::sync_dir(dir).map_err(io)?;
        let engine = Self { db, keyspace, commits: AtomicU64::new(0), guard: Guard::new("fjall") };
        let commits = engine.guard.call("read the number of commits", || engine.stored_commits())?;
        engine.commits.store(commits, Ordering::Relaxed);
        for partition in engine.guard.call("list what is dropped", || engine.dropping())? {
            engine.guard.call("drop a partition", || engine.sweep(partition))?;
        }
        Ok(engine)
    }

    fn insert(&self, batch: &mut OwnedWriteBatch, name: Vec<u8>, entry: Vec<u8>) {
        batch.insert(&self.keyspace, name, entry);
    }

    fn stored_commits(&self) -> Result<u64, Fault> {
        let Some(stored) = self.keyspace.get([COMMITS])? else { return Ok(0) };
        let number = stored.first_chunk().filter(|_| stored.len() == 8);
        let number = number.ok_or_else(|| Fault::Corrupt("the number of commits is malformed".into()))?;
        Ok(u64::from_be_bytes(*number))
    }

    /// Writes a batch that is durable, and all before it, when this returns. The journal gets nothing else meanwhile, as
    /// whoever looks at it after a crash relies on: one thread makes all calls.
    fn write_durably(&self, mut batch: OwnedWriteBatch) -> Result<(), Fault> {
        let started = Instant::now();
        let number = self.commits.fetch_add(1, Ordering::Relaxed) + 1;
        self.insert(&mut batch, vec![COMMITS], number.to_be_bytes().to_vec());
        let mode =
            if is_planted(Planted::EngineWithoutSync) { PersistMode::Buffer } else { PersistMode::SyncData };
        let written = batch.durability(Some(mode)).commit();
        metrics::histogram!("trandb_checkpoint_sync_seconds").record(started.elapsed().as_secs_f64());
        Ok(written?)
    }

    /// The partitions of which a crash interrupted the dropping.
    fn dropping(&self) -> Result<Vec<PartitionId>, Fault> {
        let marks = self.keyspace.prefix([DROPPING]);
        marks.map(|mark| partition_of(&mark.key()?)).collect()
    }

    /// Removes what is left of a partition that is marked, then the mark.
    fn sweep(&self, partition: PartitionId) -> Result<(), Fault> {
        let mut batch = self.db.batch();
        for entry in self.keyspace.range(names_of(partition)) {
            if batch.len() == DROP_BATCH {
                std::mem::replace(&mut batch, self.db.batch()).commit()?;
            }
            batch.remove(&self.keyspace, entry.key()?);
        }
        batch.remove(&self.keyspace, prefix(DROPPING, partition));
        Ok(batch.commit()?)
    }
}

impl Engine for FjallEngine {
    fn partitions(&self) -> Result<Vec<PartitionId>, EngineError> {
        self.guard.call("list partitions", || {
            let mut partitions = Vec::new();
            let mut from = prefix(RECORD, PartitionId(0));
            let end = [COMMITS].to_vec();
            while let Some(entry) = self.keyspace.range(from..end.clone()).next() {
                let partition = partition_of(&entry.key()?)?;
                partitions.push(partition);
                let Some(next) = partition.0.checked_add(1) else { break };
                from = prefix(RECORD, PartitionId(next));
            }
            Ok(partitions)
        })
    }

    fn meta(&self, partition: PartitionId) -> Result<Option<Bytes>, EngineError> {
        self.guard.call("read a meta", || {
            let entry = self.keyspace.get(name_of(partition, EntryKey::meta()));
            let entry = entry.map_err(|error| Fault::from(error).of(partition))?;
            let meta = entry.map(|entry| record::whole_meta(&entry)).transpose();
            meta.map_err(|what| Fault::Corrupt(what).of(partition))
        })
    }

    fn load(&self, partition: PartitionId, sink: &mut dyn FnMut(StoredVersion)) -> Result<(), EngineError> {
        let mut entries =
            self.guard.call("read a partition", || Ok(self.keyspace.range(names_of(partition))))?;
        let mut assembler = Assembler::default();
        let corrupt = |what| EngineError::Corrupt { partition: Some(partition), what };
        loop {
            let next = self.guard.call("read a partition", || {
                let next = entries.next().map(::fjall::Guard::into_inner).transpose();
                next.map_err(|error| Fault::from(error).of(partition))
            })?;
            let Some((name, entry)) = next else { break };
            if let Some(version) = assembler.take(&name[PREFIX_BYTES..], &entry).map_err(corrupt)? {
                sink(version);
            }
        }
        assembler.finish().map_err(corrupt)
    }

    fn put(&self, partition: PartitionId, versions: &[StoredVersion]) -> Result<(), EngineError> {
        let mut batch = self.db.batch();
        for StoredVersion { key, version } in versions {
            let name = name_of(partition, EntryKey::version(key, version.timestamp)?);
            self.insert(&mut batch, name, Entries::version(version, WHOLE)?.into_whole());
        }
        self.guard.call("write versions", || Ok(batch.commit()?))
    }

    fn commit(&self, partition: PartitionId, meta: &[u8]) -> Result<(), EngineError> {
        if meta.len() > META_BYTES_MAX {
            return Err(EngineError::failed(format!("a meta of {} bytes does not fit", meta.len())));
        }
        let mut batch = self.db.batch();
        let name = name_of(partition, EntryKey::meta());
        self.insert(&mut batch, name, Entries::meta(meta, WHOLE)?.into_whole());
        self.guard.call("write a meta", || self.write_durably(batch))
    }

    fn remove(
        &self,
        partition: PartitionId,
        versions: &[(EncodedKey, Timestamp)],
    ) -> Result<(), EngineError> {
        let mut batch = self.db.batch();
        for (key, timestamp) in versions {
            batch.remove(&self.keyspace, name_of(partition, EntryKey::version(key, *timestamp)?));
        }
        self.guard.call("remove versions", || Ok(batch.commit()?))
    }

    fn drop_partition(&self, partition: PartitionId) -> Result<(), EngineError> {
        self.guard.call("drop a partition", || {
            if self.keyspace.range(names_of(partition)).next().is_none() {
                return Ok(());
            }
            let mut batch = self.db.batch();
            self.insert(&mut batch, prefix(DROPPING, partition), Vec::new());
            batch.remove(&self.keyspace, name_of(partition, EntryKey::meta()));
            self.write_durably(batch)?;
            self.sweep(partition)
        })
    }

    fn has_failed(&self) -> bool {
        self.guard.has_failed()
    }
}

/// Opens what is there, or makes it. fjall finds some of what is wrong with its files by tripping over it.
fn open_db(dir: &Path, options: FjallOptions) -> Result<(Database, Keyspace), EngineError> {
    let opened = catch_unwind(AssertUnwindSafe(|| -> ::fjall::Result<_> {
        let db = Database::builder(dir)
            .cache_size(options.cache_bytes)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .worker_threads(WORKERS)
            .open()?;
        // Written down with the keyspace when it is made; one that is there keeps what it has.
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let keyspace = db.keyspace(KEYSPACE, options)?;
        Ok((db, keyspace))
    }));
    match opened {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(error)) => Err(Fault::from(error).into_error("open")),
        Err(panic) => {
            let what = format!("fjall panicked: {}", panic_text(&*panic));
            Err(EngineError::Corrupt { partition: None, what })
        }
    }
}

fn prefix(kind: u8, partition: PartitionId) -> Vec<u8> {
    let mut name = vec![kind];
    name.extend_from_slice(&partition.0.to_be_bytes());
    name
}

fn name_of(partition: PartitionId, mut record: EntryKey) -> Vec<u8> {
    let mut name = prefix(RECORD, partition);
    name.extend_from_slice(record.chunk(0));
    name
}

/// All names of a partition's records: none is as long as what the last one stands for.
fn names_of(partition: PartitionId) -> RangeInclusive<Vec<u8>> {
    let mut last = prefix(RECORD, partition);
    last.extend_from_slice(&[u8::MAX; 8]);
    prefix(RECORD, partition)..=last
}

fn partition_of(name: &[u8]) -> Result<PartitionId, Fault> {
    match name.get(1..PREFIX_BYTES).and_then(|number| number.first_chunk()) {
        Some(number) => Ok(PartitionId(u32::from_be_bytes(*number))),
        None => Err(Fault::Corrupt(format!("the name of an entry is malformed: {}", name.escape_ascii()))),
    }
}

impl From<::fjall::Error> for Fault {
    fn from(error: ::fjall::Error) -> Self {
        use ::fjall::{Error, LsmError};
        match error {
            Error::Io(error) | Error::Storage(LsmError::Io(error)) => match error.kind() {
                // A file ends where its content says that it goes on.
                io::ErrorKind::UnexpectedEof => Self::Corrupt(error.to_string()),
                _ => Self::Io(error),
            },
            Error::Storage(_)
            | Error::JournalRecovery(_)
            | Error::InvalidVersion(_)
            | Error::Decompress(_)
            | Error::InvalidTrailer
            | Error::InvalidTag(_)
            | Error::Unrecoverable => Self::Corrupt(error.to_string()),
            // Poisoned, of which nothing is known but that a write or a sync has failed before, and what cannot be.
            error => Self::Failed(error.to_string()),
        }
    }
}
