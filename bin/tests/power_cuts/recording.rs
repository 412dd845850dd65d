//! What was done to a disk, in order.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use trandb_client::{PartitionId, Timestamp};
use trandb_cluster::EncodedKey;
use trandb_cluster::mvcc::StoredVersion;

/// A file, whatever its name is.
pub(crate) type FileId = usize;

/// Counts beginnings and ends of events: a point in a recording.
pub(crate) type Clock = u64;

/// What an event does. Paths are relative to what is recorded.
#[derive(Debug, Clone)]
pub(crate) enum What {
    MakeDir(PathBuf),
    Create(FileId, PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    Write {
        file: FileId,
        offset: u64,
        data: Bytes,
    },
    /// The file gets this length.
    Length {
        file: FileId,
        bytes: u64,
    },
    /// The file gets at least this length.
    Allocate {
        file: FileId,
        bytes: u64,
    },
    Sync(FileId),
    SyncDir(PathBuf),
    Engine(PartitionId, Step),
}

/// What a storage engine was asked for.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Put(Vec<StoredVersion>),
    Remove(Vec<(EncodedKey, Timestamp)>),
    Commit(Bytes),
    Drop,
}

impl What {
    /// Whether it is one of the few moments on which most depends, as opposed to one of many writes.
    pub(crate) fn is_turning_point(&self) -> bool {
        match self {
            Self::Write { .. } | Self::Sync(_) | Self::Engine(_, Step::Put(_) | Step::Remove(_)) => false,
            Self::MakeDir(_)
            | Self::Create(..)
            | Self::Rename(..)
            | Self::Remove(_)
            | Self::Length { .. }
            | Self::Allocate { .. }
            | Self::SyncDir(_)
            | Self::Engine(_, Step::Commit(_) | Step::Drop) => true,
        }
    }
}

/// Something that was done.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) begun: Clock,
    /// None: the recording ended before it did.
    pub(crate) ended: Option<Clock>,
    pub(crate) what: What,
}

/// Events in the order in which they began.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    pub(crate) events: Vec<Event>,
    clock: Clock,
    names: BTreeMap<PathBuf, FileId>,
    dirs: BTreeMap<PathBuf, ()>,
    files: usize,
}

/// Moves what is called `from`, or lies below that, to `to`; what was called so before is replaced.
pub(crate) fn rename<T>(names: &mut BTreeMap<PathBuf, T>, from: &Path, to: &Path) {
    let moved: Vec<PathBuf> = names.keys().filter(|path| path.starts_with(from)).cloned().collect();
    for path in moved {
        let below = path.strip_prefix(from).expect("just seen");
        let name = if below.as_os_str().is_empty() { to.to_owned() } else { to.join(below) };
        let content = names.remove(&path).expect("just seen");
        names.insert(name, content);
    }
}

impl Recording {
    /// Now: later than all that has begun or ended.
    pub(crate) fn now(&self) -> Clock {
        self.clock
    }

    fn tick(&mut self) -> Clock {
        self.clock += 1;
        self.clock
    }

    /// Something begins; the number by which to say that it has ended.
    pub(crate) fn begin(&mut self, what: What) -> usize {
        let begun = self.tick();
        self.events.push(Event { begun, ended: None, what });
        self.events.len() - 1
    }

    /// It has ended, well.
    pub(crate) fn end(&mut self, event: usize) {
        let ended = self.tick();
        // Unknown after a recording was taken, which a node need not notice.
        let Some(event) = self.events.get_mut(event) else { return };
        event.ended = Some(ended);
        match &event.what {
            What::Rename(from, to) => {
                rename(&mut self.names, from, to);
                rename(&mut self.dirs, from, to);
            }
            What::MakeDir(path) => {
                self.dirs.insert(path.clone(), ());
            }
            What::Remove(path) => {
                self.names.remove(path);
            }
            _ => {}
        }
    }

    /// A new file of that name.
    pub(crate) fn name(&mut self, path: &Path) -> FileId {
        self.files += 1;
        self.names.insert(path.to_owned(), self.files);
        self.files
    }

    /// The file of that name.
    pub(crate) fn file(&self, path: &Path) -> Option<FileId> {
        self.names.get(path).copied()
    }

    /// Whether a directory of that name was made.
    pub(crate) fn is_dir(&self, path: &Path) -> bool {
        self.dirs.contains_key(path)
    }

    /// Counts of syncs, renames and so on, for the heading of a run.
    pub(crate) fn summary(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut bytes = 0;
        for event in &self.events {
            let kind = match &event.what {
                What::MakeDir(_) => "directories made",
                What::Create(..) => "files created",
                What::Rename(..) => "renamed",
                What::Remove(_) => "removed",
                What::Write { data, .. } => {
                    bytes += data.len();
                    "writes"
                }
                What::Length { .. } => "lengths set",
                What::Allocate { .. } => "allocations",
                What::Sync(_) => "syncs",
                What::SyncDir(_) => "directory syncs",
                What::Engine(_, Step::Commit(_)) => "engine commits",
                What::Engine(..) => "engine calls",
            };
            *counts.entry(kind).or_default() += 1;
        }
        let counts: Vec<_> = counts.into_iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        format!("{} ({:.1} MiB written)", counts.join(", "), bytes as f64 / f64::from(1 << 20))
    }
}
