//! Why a data directory is refused.

use std::io;
use std::path::{Path, PathBuf};
use trandb_cluster::ClusterId;

/// A data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it.
    #[error("the data directory {} is in use{}", path.display(), process.map(|p| format!(" by process {p}")).unwrap_or_default())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who has it, if that could be read.
        process: Option<u32>,
    },
    /// A later release wrote it.
    #[error("the data directory {} has format {found}, this release reads up to {known}", path.display())]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// What it says.
        found: u32,
        /// What this build reads.
        known: u32,
    },
    /// It has something else in it.
    #[error("{} is no data directory and not empty: it holds {found:?}", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// It belongs to another cluster.
    #[error("the data directory {} belongs to cluster {found}, not to {expected}", path.display())]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: ClusterId,
        /// Whose it should be.
        expected: ClusterId,
    },
    /// Its data cannot be rebuilt from other nodes, since it knows of none.
    #[error("the data directory {} belongs to no cluster yet, so there is nobody to rebuild it from", path.display())]
    NoCluster {
        /// The directory.
        path: PathBuf,
    },
    /// A file in it is not what was written.
    #[error("{} is corrupt: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The operating system refused.
    #[error("the data directory {} cannot be used: {error}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
}

impl DataDirError {
    /// The exit code of a node that is refused its directory.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::InUse { .. } => 75,
            Self::NewerFormat { .. } | Self::Foreign { .. } | Self::OtherCluster { .. } => 78,
            Self::Corrupt { .. } | Self::NoCluster { .. } => 65,
            Self::Io { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => 77,
            Self::Io { .. } => 74,
        }
    }

    pub(crate) fn io(path: &Path, error: io::Error) -> Self {
        Self::Io { path: path.into(), error }
    }

    pub(crate) fn corrupt(path: PathBuf, what: impl Into<String>) -> Self {
        Self::Corrupt { path, what: what.into() }
    }
}
