//! What can go wrong with the log.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trandb_cluster::PartitionId;

/// A failure of the write-ahead log. It concerns this node only; replicas do not share it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WalError {
    /// The disk refused. The log is poisoned if this came from a write.
    #[error("could not {action} {}: {source}", file.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        file: PathBuf,
        /// Why not.
        source: Arc<io::Error>,
    },
    /// There is no room on the disk. Nothing was written that counts, and the same write may be tried again.
    #[error("there is no room on the disk to {action} {}: {source}", file.display())]
    Full {
        /// What was tried.
        action: &'static str,
        /// On which file.
        file: PathBuf,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// Durable data no longer checks out. Never repaired silently.
    #[error("the log is corrupt in {} at byte {offset}{}: {what}", file.display(), of_group(*group))]
    Corrupt {
        /// The segment.
        file: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// Whose record, as far as that can be told.
        group: Option<PartitionId>,
        /// What is wrong.
        what: String,
    },
    /// Written by a newer TranDB.
    #[error("{} has log format {found}, this program knows {known}", file.display())]
    Format {
        /// The segment.
        file: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known.
        known: u32,
    },
    /// An earlier write failed, so what is on disk is not known until the log is opened anew.
    #[error("the log takes no writes after one that failed")]
    Poisoned,
    /// A record or a write over its limit. Nothing was written.
    #[error("{bytes} bytes to log at once, the limit is {bytes_max}")]
    TooLarge {
        /// What was asked for.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// The record is gone: every group had purged what its segment held.
    #[error("log segment {segment} is gone")]
    Purged {
        /// The segment's sequence number.
        segment: u64,
    },
    /// The writer has stopped.
    #[error("the log is closed")]
    Closed,
}

impl WalError {
    /// Exit code of a process that cannot go on because of this (sysexits).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Corrupt { .. } => 65,
            Self::Io { .. } | Self::Full { .. } | Self::Poisoned => 74,
            Self::Format { .. } => 78,
            Self::TooLarge { .. } | Self::Purged { .. } | Self::Closed => 1,
        }
    }

    pub(super) fn io(action: &'static str, file: &Path) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_owned();
        move |source| Self::Io { action, file, source: Arc::new(source) }
    }

    /// As [`WalError::io`] for a call after whose failure the log is as it was before.
    pub(super) fn room(action: &'static str, file: &Path) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_owned();
        move |source| {
            let full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let source = Arc::new(source);
            if full { Self::Full { action, file, source } } else { Self::Io { action, file, source } }
        }
    }
}

fn of_group(group: Option<PartitionId>) -> String {
    group.map(|group| format!(" in {group}")).unwrap_or_default()
}
