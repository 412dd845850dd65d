//! Batches: a transaction in one request.
//!
//! One that was named beforehand is on the node's list while it runs, and its end is remembered like any transaction's.
//! So whoever lost its answer may ask for its outcome, here or, should this node be gone, at the partitions: the name is
//! the transaction's id. It may be sent again, too: it is done once.
//!
//! A name is good for less time than outcomes are kept at the least. Were it not, one that is sent again could meet no
//! trace of its first run, and be done twice.

use super::trace::phase;
use super::{commit, ops};
use crate::context::NodeContext;
use crate::database::{Database, RequestContext, ended};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::limits::{TXN_BATCH_RESULT_BYTES_MAX, TXN_NAME_MS_MAX, TXN_NAMES_MAX};
use trandb_cluster::txn::{
    Coordinator, NAMES_PER_GRANT, Names, TxnBatch, TxnOutcome, TxnRequest, TxnResponse,
};
use trandb_cluster::{Error, ErrorCode, Timestamp, TxnId};

/// How long names ahead of need are waited for; meanwhile who needs one asks for it.
const NAMES_WAIT: Duration = Duration::from_secs(1);

/// A named batch that runs: it is on the node's list for as long as this lives.
struct Running {
    context: Arc<NodeContext>,
    txn: TxnId,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.context.transactions.leave(self.txn);
    }
}

impl Database {
    /// Names for batches.
    pub(crate) async fn batch_names(
        &self,
        count: u32,
        request: &RequestContext,
    ) -> Result<TxnResponse, Error> {
        let count = count.clamp(1, TXN_NAMES_MAX);
        let begin = self.timestamps(u64::from(count), request).await?;
        Ok(TxnResponse::Names { first: TxnId { begin, node: self.node() }, count })
    }

    /// Begins, does, and commits, whether its caller waits to the end or not: half a commit would stand in others' way
    /// until its lease is over.
    pub(crate) async fn batch(
        &self,
        batch: TxnBatch,
        request: &RequestContext,
    ) -> Result<TxnResponse, Error> {
        let running = match batch.id {
            None => None,
            Some(txn) => {
                if let Some(outcome) = self.context().transactions.enter(txn)? {
                    return ended(&TxnRequest::Batch(batch), txn, outcome);
                }
                Some(Running { context: self.context().clone(), txn })
            }
        };
        let (database, request) = (self.clone(), *request);
        let task = tokio::spawn(async move { database.run_batch(batch, running, &request).await });
        task.await.unwrap_or_else(|_| Err(Error::internal("the batch's coordinator died")))
    }

    /// A timestamp that nobody else has, from not long ago.
    async fn name(&self, request: &RequestContext) -> Result<Timestamp, Error> {
        match self.ask_names(Names::take) {
            Some(name) => Ok(name),
            None => self.timestamp(request).await,
        }
    }

    /// About what the oracle would say, where nothing is read at it: not below what it does say.
    async fn about_now(&self, at_least: Timestamp, request: &RequestContext) -> Result<Timestamp, Error> {
        match self.ask_names(|names, now_ms| names.now(now_ms)).filter(|&now| now >= at_least) {
            Some(now) => Ok(now),
            None => self.timestamp(request).await,
        }
    }

    /// Asks the names that this node keeps, and sees to it that it keeps some.
    fn ask_names<T>(&self, ask: impl FnOnce(&mut Names, u64) -> T) -> T {
        let (context, now_ms) = (self.context(), self.context().uptime_ms());
        let mut names = context.transactions.names();
        if names.wants_more(now_ms) {
            let database = self.clone();
            tokio::spawn(async move { database.get_names(now_ms).await });
        }
        ask(&mut names, now_ms)
    }

    async fn get_names(&self, now_ms: u64) {
        let request = RequestContext { deadline: Instant::now() + NAMES_WAIT, trace: None };
        let granted = self.timestamps(NAMES_PER_GRANT, &request).await;
        let mut names = self.context().transactions.names();
        match granted {
            Ok(first) => names.add(first, now_ms),
            Err(_) => names.failed(),
        }
    }

    async fn run_batch(
        &self,
        batch: TxnBatch,
        running: Option<Running>,
        request: &RequestContext,
    ) -> Result<TxnResponse, Error> {
        let (span, inner) = phase("txn begin", self.node(), batch.id, request);
        // One that reads nothing is as of when it commits.
        let blind = batch.reads_nothing();
        let now = match (blind, batch.id) {
            (true, None) => self.name(&inner).await?,
            (true, Some(txn)) => self.about_now(txn.begin, &inner).await?,
            (false, _) => self.timestamp(&inner).await?,
        };
        let txn = batch.id.unwrap_or(TxnId { begin: now, node: self.node() });
        span.record("txn", tracing::field::display(txn));
        drop(span);
        check_name(txn, now)?;
        let doubt = batch.id.is_some() && self.context().transactions.may_have_run(txn, now);
        let read_at = if blind { Timestamp::MAX } else { now };
        let mut core = Coordinator::new(txn, batch.isolation, false, read_at);
        let done = self.do_batch(&mut core, batch, running.as_ref(), doubt, request).await;
        self.release_locks(txn);
        match done {
            // It may be its own earlier run that makes it fail; what memory is used up by may be it, too.
            Err(error)
                if doubt
                    && error.code != ErrorCode::Unknown
                    && (!error.is_retryable() || error.out_of_memory) =>
            {
                match self.inquire(txn, request).await {
                    Ok(committed @ TxnOutcome::Committed(_)) => Ok(TxnResponse::Outcome(committed)),
                    Ok(_) => Err(error),
                    Err(asked) => Err(Error::unknown(format!("{}; and {}", error.message, asked.message))),
                }
            }
            done => done,
        }
    }

    async fn do_batch(
        &self,
        core: &mut Coordinator,
        batch: TxnBatch,
        running: Option<&Running>,
        again: bool,
        request: &RequestContext,
    ) -> Result<TxnResponse, Error> {
        let (txn, began) = (core.txn(), core.read_at());
        let (mut results, mut bytes) = (Vec::with_capacity(batch.ops.len().min(1024)), 0);
        for op in batch.ops {
            let result = ops::run(self, core, op, request).await?;
            bytes += result.weight();
            if bytes > TXN_BATCH_RESULT_BYTES_MAX {
                return Err(Error::too_large("the batch's results take too many bytes"));
            }
            results.push(result);
        }
        let wrote = core.has_written();
        let result = commit::commit(self, core, again, request).await;
        if let Some(running) = running {
            let outcome = match &result {
                Ok(at) => Some(TxnOutcome::Committed(*at)),
                Err(failed) => failed.aborted.clone().map(TxnOutcome::Aborted),
            };
            running.context.transactions.end(txn, outcome);
        }
        match result {
            // The partitions knew it already, from a run that this node has forgotten: what was read now came after it.
            Ok(at) if wrote && at <= began && began != Timestamp::MAX => {
                Ok(TxnResponse::Outcome(TxnOutcome::Committed(at)))
            }
            Ok(committed) => Ok(TxnResponse::Batch { txn, committed, results }),
            Err(failed) if failed.aborted.is_none() => {
                let message = format!("{} (transaction {txn})", failed.error.message);
                Err(Error { message, ..failed.error })
            }
            Err(failed) => Err(failed.error),
        }
    }
}

/// Refuses a name that is good no more, or was never given out.
fn check_name(txn: TxnId, now: Timestamp) -> Result<(), Error> {
    if txn.begin > now {
        return Err(Error::invalid(format!("{txn} was not given out as a name: it is {now} now")));
    }
    let age_ms = now.millis().saturating_sub(txn.begin.millis());
    if age_ms > TXN_NAME_MS_MAX {
        return Err(Error::conflict(format!(
            "the name {txn} was given out {age_ms} ms ago and is good for {TXN_NAME_MS_MAX} ms: take another one"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use trandb_cluster::NodeId;

    #[test]
    fn a_name_is_good_to_its_last_millisecond_and_not_before_it_was_given_out() {
        let begin = Timestamp::ZERO.plus_millis(5_000);
        let check = |now| check_name(TxnId { begin, node: NodeId(1) }, now).map_err(|error| error.code);
        assert_eq!(check(begin), Ok(()));
        assert_eq!(check(begin.plus_millis(TXN_NAME_MS_MAX)), Ok(()));
        assert_eq!(check(begin.plus_millis(TXN_NAME_MS_MAX + 1)), Err(ErrorCode::Conflict));
        assert_eq!(check(Timestamp::ZERO.plus_millis(4_999)), Err(ErrorCode::Invalid));
    }
}
