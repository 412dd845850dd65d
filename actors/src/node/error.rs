//! Why a node does not start.

use std::io;
use trandb_cluster::{ClusterId, PartitionId};
use trandb_runtime::datadir::DataDirError;
use trandb_runtime::engine::HomeError;
use trandb_runtime::peer::{PeerError, Reverted};
use trandb_runtime::wal::WalError;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory is in use, foreign, of a newer format, or cannot be written.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The data directory is of another cluster than the seeds: one of the two settings is a slip.
    #[error("the data directory belongs to cluster {ours}, and the seed {seed} to another one")]
    OtherCluster {
        /// Whose the directory is.
        ours: ClusterId,
        /// Which seed.
        seed: String,
    },
    /// The write-ahead log is corrupt or cannot be read.
    #[error("write-ahead log: {0}")]
    Log(#[from] WalError),
    /// The system gives no more threads.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// The storage engine cannot be opened, or is not the one that is set.
    #[error("storage engine: {0}")]
    Engine(#[from] HomeError),
    /// A checkpoint ends before the log begins: what lies between them is on this node no more.
    #[error("the storage engine lost a checkpoint of {partition}: {}, and the log begins after index {purged}",
        reaches_to(*.checkpoint))]
    CheckpointLost {
        /// Whose.
        partition: PartitionId,
        /// The last log index of the one that is there, if any is.
        checkpoint: Option<u64>,
        /// The last log index that was purged, which is never done before a checkpoint beyond it is durable.
        purged: u64,
    },
    /// A checkpoint cannot be read.
    #[error("storage engine: {0}")]
    Checkpoint(io::Error),
    /// A port is in use or an address is not ours.
    #[error("cannot listen on {addr} for the {door} door: {error}")]
    Bind {
        /// Which door.
        door: &'static str,
        /// Where.
        addr: String,
        /// Why not.
        error: io::Error,
    },
    /// The peer links cannot start.
    #[error("peers: {0}")]
    Peers(#[from] PeerError),
    /// An actor failed while the node started.
    #[error("{}", .0.message)]
    Failed(Fatal),
}

/// Why a node that served can go on no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fatal {
    /// Lower case, what happened, then the values.
    pub message: String,
    /// The process's exit code (sysexits).
    pub exit_code: u8,
    /// Whether a node that is started anew, from what is on disk, may do better. What was acknowledged is there.
    pub rebuild: bool,
}

impl Fatal {
    /// An actor that cannot be restarted: exit code 1.
    pub(super) fn actor(message: String) -> Self {
        Self { message, exit_code: 1, rebuild: false }
    }

    /// A log that takes no more writes. Of what it wrote last nobody knows whether it is on disk; opening it finds out.
    pub(super) fn log(error: &WalError) -> Self {
        let rebuild = matches!(error, WalError::Io { .. } | WalError::Full { .. } | WalError::Poisoned);
        Self { message: format!("write-ahead log: {error}"), exit_code: error.exit_code(), rebuild }
    }

    /// A checkpoint that is not what was written. The replica must be rebuilt from others.
    pub(crate) fn damaged(why: &io::Error) -> Self {
        Self { message: format!("storage engine: {why}"), exit_code: 65, rebuild: false }
    }

    /// A data directory that is older than what others know of it. As this node it would have forgotten what it acknowledged, so
    /// it can only be taken in as another one.
    pub(super) fn reverted(reverted: &Reverted) -> Self {
        Self { message: format!("data directory: {reverted}"), exit_code: 65, rebuild: false }
    }

    /// A storage engine from which a checkpoint cannot be read: it answers nothing more until it is opened anew.
    pub(crate) fn unreadable(why: &io::Error) -> Self {
        Self { message: format!("storage engine: {why}"), exit_code: 74, rebuild: true }
    }

    /// A storage engine that has failed, though its disk has room: only opening it anew can help.
    pub(super) fn engine() -> Self {
        let message = "the storage engine has failed, and no checkpoint can be written".to_owned();
        Self { message, exit_code: 74, rebuild: true }
    }
}

impl StartError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::DataDir(error) => error.exit_code(),
            Self::OtherCluster { .. } => 78,
            Self::Log(error) => error.exit_code(),
            Self::CheckpointLost { .. } => 65,
            Self::Checkpoint(error) if error.kind() == io::ErrorKind::InvalidData => 65,
            Self::Engine(error) => error.exit_code(),
            Self::Checkpoint(_) | Self::Thread(_) => 74,
            Self::Bind { error, .. } => match error.kind() {
                io::ErrorKind::PermissionDenied => 77,
                _ => 69,
            },
            Self::Peers(_) => 69,
            Self::Failed(fatal) => fatal.exit_code,
        }
    }
}

fn reaches_to(checkpoint: Option<u64>) -> String {
    checkpoint
        .map_or("none is left".to_owned(), |index| format!("the one that is left reaches to index {index}"))
}
