//! What can be set about a transaction.

use std::time::Duration;
use trandb_cluster::Timestamp;
use trandb_cluster::txn::{Isolation, TxnRequest};

/// How a transaction runs. The default is strictly serializable, and may write.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct TxnOptions {
    /// What it may see of others that run at the same time.
    pub isolation: Isolation,
    /// It will write nothing: it then takes no locks and never aborts.
    pub read_only: bool,
    /// Read as of then instead of now; only for a read-only one.
    pub at: Option<Timestamp>,
    /// It is aborted when nothing is asked of it for this long. None leaves that to the node (30 s unless set), which
    /// also has the last word: a longer one is cut to its.
    pub idle_timeout: Option<Duration>,
}

impl TxnOptions {
    /// Opens one, for the `run`-th time.
    pub(crate) fn begin(self, run: u32) -> TxnRequest {
        let idle_timeout_ms = self.idle_timeout.map_or(0, |timeout| {
            // Zero would mean the node's own.
            u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1)
        });
        TxnRequest::Begin {
            isolation: self.isolation,
            read_only: self.read_only,
            at: self.at,
            idle_timeout_ms,
            run,
        }
    }
}
