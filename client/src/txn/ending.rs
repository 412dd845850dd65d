//! Committing, until it is known what came of it.
//!
//! ```text
//!            ┌────────────────────────── open ───────────────────────────┐
//!            ▼                                                           │
//! ─▶ send Commit ── no answer, `unknown`, ─────▶ ask for the outcome ─────┤
//!        │          or nobody could take it       through any node       ├── committed ─▶ done
//!        └── answered ─▶ done, or conflict                               └── aborted ───▶ conflict
//! ```
//!
//! Committing twice is the same as once, and an outcome that was answered never changes. So the loop ends with the
//! truth or, at the deadline, as `unknown`; as `unavailable` if no commit was ever taken. Asking also when none was
//! spares waiting for a coordinator that is gone: its transaction is aborted by asking.

use super::Txn;
use crate::dispatch::mismatch;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::txn::{TxnOutcome, TxnRequest, TxnResponse};
use trandb_cluster::wire::Response;
use trandb_cluster::{Error, ErrorCode, Timestamp};

/// Between an outcome that is still open and the next commit: its coordinator may be at it.
pub(super) const OPEN_PAUSE: Duration = Duration::from_millis(20);

impl Txn {
    /// Commits by `deadline`.
    pub(super) async fn finish(&self, deadline: Instant) -> Result<Timestamp, Error> {
        self.inner.check()?;
        let txn = self.id();
        // From here on dropping it must not abort it: that would look like a conflict.
        self.inner.ended.store(true, Ordering::Relaxed);
        // Whether any commit may have been taken, and what was heard last.
        let (mut doubt, mut last) = (false, Error::unavailable("no time was left to commit, so it was not"));
        while Instant::now() < deadline {
            let attempt = deadline.min(Instant::now() + self.inner.dispatch.options.attempt_timeout);
            match self.inner.ask(TxnRequest::Commit { txn }, attempt).await.and_then(outcome) {
                Ok(TxnOutcome::Open) => doubt = true,
                Ok(known) => return self.judge(known),
                Err(error) if error.code == ErrorCode::Conflict => return Err(error),
                Err(error) => {
                    let unclear = matches!(error.code, ErrorCode::Unknown | ErrorCode::Internal);
                    doubt |= unclear;
                    last = error;
                    if !doubt && !last.is_retryable() {
                        break;
                    }
                }
            }
            match self.inner.ask(TxnRequest::Outcome { txn }, deadline).await.and_then(outcome) {
                Ok(TxnOutcome::Open) => {}
                Ok(known) => return self.judge(known),
                Err(error) => last = error,
            }
            tokio::time::sleep_until(deadline.min(Instant::now() + OPEN_PAUSE)).await;
        }
        if !doubt {
            self.inner.ended.store(false, Ordering::Relaxed);
            return Err(last);
        }
        let reason = format!("whether {txn} was committed was not learned in time: {}", last.message);
        Err(Error::unknown(reason))
    }

    fn judge(&self, outcome: TxnOutcome) -> Result<Timestamp, Error> {
        let txn = self.id();
        match outcome {
            TxnOutcome::Committed(at) => Ok(at),
            TxnOutcome::Aborted(reason) => {
                Err(Error::conflict(format!("transaction {txn} was aborted: {reason}")))
            }
            TxnOutcome::Open => Err(Error::unknown(format!("transaction {txn} is still open"))),
            TxnOutcome::Unknown => {
                Err(Error::unknown(format!("transaction {txn} ended longer ago than outcomes are kept")))
            }
        }
    }
}

/// The outcome that a request for one was answered with.
pub(super) fn outcome(response: TxnResponse) -> Result<TxnOutcome, Error> {
    match response {
        TxnResponse::Outcome(outcome) => Ok(outcome),
        other => Err(mismatch(&Response::Txn(other))),
    }
}
