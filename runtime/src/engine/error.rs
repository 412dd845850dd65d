//! What goes wrong in storage engines.

use std::io;
use trandb_cluster::PartitionId;

/// An engine failed. Nothing here says that a request failed: the log has it.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The operating system refused.
    #[error("the storage engine could not {action}: {error}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the operating system said.
        error: io::Error,
    },
    /// What is stored is not what was written. The partition must be rebuilt from another replica; without a
    /// partition, all of the node's.
    #[error("the storage engine holds corrupt data{}: {what}", partition.map(|p| format!(" of {p}")).unwrap_or_default())]
    Corrupt {
        /// Whose records are hit, if only one partition's are.
        partition: Option<PartitionId>,
        /// What does not fit.
        what: String,
    },
    /// The engine itself failed and answers nothing any more until the node restarts, or it was asked for
    /// something beyond its limits.
    #[error("the storage engine failed: {what}")]
    Failed {
        /// What happened.
        what: String,
    },
}

impl EngineError {
    /// The exit code of a node that cannot start because of it: 65 for corrupt data, 74 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Corrupt { .. } => 65,
            Self::Io { .. } | Self::Failed { .. } => 74,
        }
    }

    pub(super) fn failed(what: impl Into<String>) -> Self {
        Self::Failed { what: what.into() }
    }
}

impl From<EngineError> for io::Error {
    fn from(error: EngineError) -> Self {
        let kind = match &error {
            EngineError::Io { error, .. } => error.kind(),
            EngineError::Corrupt { .. } => io::ErrorKind::InvalidData,
            EngineError::Failed { .. } => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_partition_when_there_is_one() {
        let corrupt = |partition| EngineError::Corrupt { partition, what: "a hole".into() }.to_string();
        assert_eq!(corrupt(Some(PartitionId(7))), "the storage engine holds corrupt data of p7: a hole");
        assert_eq!(corrupt(None), "the storage engine holds corrupt data: a hole");
    }

    #[test]
    fn an_io_error_keeps_its_kind_and_its_cause() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = io::Error::from(EngineError::Io { action: "flush", error: full });
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(error.to_string(), "the storage engine could not flush: no storage space");
    }
}
