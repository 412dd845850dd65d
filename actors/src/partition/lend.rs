//! Lending the state to a replica that was found wrong: frozen at a log index, and asked for chunk by chunk.
//!
//! It is the snapshot that a leader sends to a replica which is far behind, but fetched, and from any replica that is
//! right: the leader may be the one that is wrong.

use super::Partition;
use super::SNAPSHOT_CHUNK_BYTES;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::mvcc::StoredVersion;
use trandb_cluster::partition::{PartitionHeader, SnapshotCursor};
use trandb_runtime::raft::{LogId, StoredMembership};

/// Loans at once. Beyond it a borrower is refused, and comes again.
const LOANS_MAX: usize = 2;

/// How long a borrower may be silent before its loan ends: it keeps versions from being forgotten.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// What a borrower asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum LendCall {
    /// Freeze the state as it is.
    Open,
    /// The next versions.
    Chunk {
        /// The loan.
        loan: u64,
        /// Resume after this; none begins.
        after: Option<SnapshotCursor>,
    },
    /// It has all, or gives up.
    Close {
        /// The loan.
        loan: u64,
    },
}

/// What a lender answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum LendAnswer {
    /// Frozen.
    Opened(Box<Opened>),
    /// Versions, and where to resume; none when these were the last.
    Chunk(Vec<StoredVersion>, Option<SnapshotCursor>),
    /// Let go.
    Closed,
}

/// A loan's beginning.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Opened {
    /// Its name.
    pub loan: u64,
    /// What the state is.
    pub header: PartitionHeader,
    /// The last entry in it.
    pub last: LogId,
    /// The membership as of it.
    pub membership: StoredMembership,
}

/// The loans of a replica.
#[derive(Debug, Default)]
pub(super) struct Loans {
    open: BTreeMap<u64, Loan>,
    given: u64,
}

#[derive(Debug)]
struct Loan {
    /// The frozen state's log index.
    index: u64,
    used: Instant,
}

impl Partition {
    /// Answers a borrower.
    pub(super) fn lend(&mut self, call: LendCall) -> Result<LendAnswer, String> {
        match call {
            LendCall::Open => self.open_loan(),
            LendCall::Chunk { loan, after } => {
                let unknown = || format!("there is no loan {loan} of {}", self.id);
                let open = self.loans.open.get_mut(&loan).ok_or_else(unknown)?;
                open.used = Instant::now();
                let (versions, resume) =
                    self.state.snapshot_chunk(open.index, after.as_ref(), SNAPSHOT_CHUNK_BYTES);
                Ok(LendAnswer::Chunk(versions, resume))
            }
            LendCall::Close { loan } => {
                if let Some(loan) = self.loans.open.remove(&loan) {
                    self.state.unpin_snapshot(loan.index);
                }
                Ok(LendAnswer::Closed)
            }
        }
    }

    fn open_loan(&mut self) -> Result<LendAnswer, String> {
        if !self.is_sound() {
            return Err(format!("{} on {} is wrong itself", self.id, self.context.node));
        }
        if self.loans.open.len() >= LOANS_MAX {
            return Err(format!("{} is lent {LOANS_MAX} times already, the limit", self.id));
        }
        let last = self.applied.ok_or_else(|| format!("{} is empty", self.id))?;
        let header = self.state.pin_snapshot();
        self.loans.given += 1;
        let loan = self.loans.given;
        self.loans.open.insert(loan, Loan { index: header.index, used: Instant::now() });
        Ok(LendAnswer::Opened(Box::new(Opened { loan, header, last, membership: self.membership.clone() })))
    }

    /// Ends loans whose borrowers are gone.
    pub(super) fn end_idle_loans(&mut self) {
        let idle = self.loans.open.extract_if(.., |_, loan| loan.used.elapsed() >= IDLE_MAX);
        for (_, loan) in idle {
            self.state.unpin_snapshot(loan.index);
        }
    }

    /// The state was replaced, and what was frozen in it is gone.
    pub(super) fn forget_loans(&mut self) {
        self.loans.open.clear();
    }
}
