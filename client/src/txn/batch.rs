//! Operations that are done together in one request.

use super::ask;
use super::ending::{OPEN_PAUSE, outcome};
use super::transact::again_until;
use crate::client::{Client, check_value};
use crate::dispatch::{Task, mismatch};
use crate::routing::Target;
use bytes::Bytes;
use tokio::time::Instant;
use trandb_cluster::command::Condition;
use trandb_cluster::txn::{
    Isolation, TxnBatch, TxnId, TxnKey, TxnOp, TxnOutcome, TxnRequest, TxnResponse, TxnWrite,
};
use trandb_cluster::wire::{Page, Request, Response, ScanRequest, Versioned};
use trandb_cluster::{Error, ErrorCode, Key, NodeId, Timestamp};

/// Operations for [`Client::batch`], in order; each sees those before it.
///
/// ```no_run
/// # async fn example(client: trandb_client::Client) -> Result<(), trandb_client::Error> {
/// use trandb_client::Batch;
/// client.batch(Batch::new().put("order/7", "paid").delete("cart/7")).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Default, Clone)]
#[must_use]
pub struct Batch {
    isolation: Isolation,
    ops: Vec<TxnOp>,
}

impl Batch {
    /// Without operations, strictly serializable.
    pub fn new() -> Self {
        Self::default()
    }

    /// What it may see of others that run at the same time.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// Reads a key.
    pub fn get(self, key: impl AsRef<[u8]>) -> Self {
        self.op(TxnOp::Get(named(key.as_ref())))
    }

    /// Sets a key, whatever it was.
    pub fn put(self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Self {
        self.put_if(key, value, Condition::Any)
    }

    /// Sets a key; if `condition` does not hold, nothing of the batch is done.
    pub fn put_if(self, key: impl AsRef<[u8]>, value: impl Into<Bytes>, condition: Condition) -> Self {
        self.op(TxnOp::Write(TxnWrite { key: named(key.as_ref()), value: Some(value.into()), condition }))
    }

    /// Removes a key; an absent one, too, counts as removed.
    pub fn delete(self, key: impl AsRef<[u8]>) -> Self {
        self.delete_if(key, Condition::Any)
    }

    /// Removes a key; if `condition` does not hold, nothing of the batch is done.
    pub fn delete_if(self, key: impl AsRef<[u8]>, condition: Condition) -> Self {
        self.op(TxnOp::Write(TxnWrite { key: named(key.as_ref()), value: None, condition }))
    }

    /// Reads one page of keys.
    pub fn scan(self, scan: ScanRequest) -> Self {
        self.op(TxnOp::Scan(scan))
    }

    fn op(mut self, op: TxnOp) -> Self {
        self.ops.push(op);
        self
    }
}

fn named(key: &[u8]) -> TxnKey {
    TxnKey { key: Bytes::copy_from_slice(key), keyspace: None }
}

/// What one operation of a batch did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchResult {
    /// Of a get. What the batch itself has written has version 0.
    Value(Option<Versioned>),
    /// Of a put or delete.
    Done,
    /// Of a scan.
    Page(Page),
    /// Of a get or scan: the batch was committed, but the node's answer was lost, and with it what was read.
    Lost,
}

/// A batch that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its name as a transaction.
    pub txn: TxnId,
    /// When: the version of all that it wrote.
    pub at: Timestamp,
    /// One per operation, in order.
    pub results: Vec<BatchResult>,
}

impl Client {
    /// Does all operations of a batch together, or none. When it loses a conflict it is sent again, after a pause, until
    /// the client's timeout is over: nothing of it hangs on what was read before.
    ///
    /// When the node's answer is lost, the outcome is asked for, through any node, and the batch done again if it
    /// was not done. If it was, what it read is [`Lost`](BatchResult::Lost).
    ///
    /// # Errors
    /// `conflict` when it lost against others until then, `condition_failed` when a condition did not hold,
    /// `unavailable` or `overloaded` when it was not done in time: nothing was written. `unknown` only if not even the
    /// outcome could be learned in time; the error names the transaction, of which [`Client::outcome`] tells later.
    pub async fn batch(&self, batch: Batch) -> Result<Committed, Error> {
        let Batch { isolation, mut ops } = batch;
        for (index, op) in ops.iter_mut().enumerate() {
            self.check(op).map_err(|error| Error {
                message: format!("operation {index}: {}", error.message),
                ..error
            })?;
        }
        let target = self.target(&ops);
        let deadline = Instant::now() + self.timeout;
        let again_until = again_until(deadline, self.timeout);
        for run in 1.. {
            let error = match self.run_batch(run - 1, isolation, &ops, target, deadline).await {
                Ok(done) => {
                    self.dispatch.transacted();
                    return Ok(done);
                }
                Err(error) => error,
            };
            // Of these each says that nothing was written.
            let again =
                matches!(error.code, ErrorCode::Conflict | ErrorCode::Unavailable | ErrorCode::Overloaded);
            match again.then(|| self.dispatch.pause_after_conflict(run, again_until)).flatten() {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            }
        }
        unreachable!("the loop ends only by returning")
    }

    /// Sends a batch under a name of its own, until it is known what came of it.
    async fn run_batch(
        &self,
        run: u32,
        isolation: Isolation,
        ops: &[TxnOp],
        target: Target,
        deadline: Instant,
    ) -> Result<Committed, Error> {
        let begin = self.dispatch.names.take(&self.dispatch, deadline).await?;
        let mut txn = TxnId { begin, node: NodeId(0) };
        let request = TxnRequest::Batch(TxnBatch { id: Some(txn), run, isolation, ops: ops.to_vec() });
        let task = Task {
            request: Request::Txn(request),
            target,
            deadline: self.answered_by(deadline),
            trace: self.trace,
        };
        let lost = match self.dispatch.run_somewhere(task, &mut txn.node).await {
            Ok(Response::Txn(TxnResponse::Batch { txn, committed, results })) => {
                let results = results.into_iter().map(result).collect::<Result<_, _>>()?;
                return Ok(Committed { txn, at: committed, results });
            }
            Ok(Response::Txn(TxnResponse::Outcome(TxnOutcome::Committed(at)))) => {
                return Ok(without_answer(txn, at, ops));
            }
            Ok(other) => mismatch(&other),
            Err(error) => error,
        };
        match lost.code {
            // One that only reads is done again with less ado.
            ErrorCode::Unknown | ErrorCode::Internal if !ops.iter().any(writes) => {
                Err(Error::unavailable(lost.message))
            }
            ErrorCode::Unknown | ErrorCode::Internal => {
                let at = self.settle(txn, lost, deadline).await?;
                Ok(without_answer(txn, at, ops))
            }
            _ => Err(lost),
        }
    }

    /// By when a batch must be answered, so that there is time to ask what became of it.
    fn answered_by(&self, deadline: Instant) -> Instant {
        let now = Instant::now();
        let half = deadline.saturating_duration_since(now) / 2;
        deadline.min(now + half.max(self.dispatch.options.attempt_timeout))
    }

    /// When a batch was committed whose answer was lost. `conflict` if it was not.
    async fn settle(&self, txn: TxnId, mut last: Error, deadline: Instant) -> Result<Timestamp, Error> {
        while Instant::now() < deadline {
            let asked = TxnRequest::Outcome { txn };
            match ask(&self.dispatch, asked, Target::Node(txn.node), deadline, self.trace)
                .await
                .and_then(outcome)
            {
                Ok(TxnOutcome::Committed(at)) => return Ok(at),
                Ok(TxnOutcome::Aborted(reason)) => {
                    return Err(Error::conflict(format!("the batch {txn} was aborted: {reason}")));
                }
                Ok(TxnOutcome::Unknown) => break,
                Ok(TxnOutcome::Open) => {}
                Err(error) => last = error,
            }
            tokio::time::sleep_until(deadline.min(Instant::now() + OPEN_PAUSE)).await;
        }
        let reason = format!("whether the batch {txn} was committed was not learned: {}", last.message);
        Err(Error::unknown(reason))
    }

    /// Checks an operation, and puts it into this client's keyspace.
    fn check(&self, op: &mut TxnOp) -> Result<(), Error> {
        let key = match op {
            TxnOp::Get(key) | TxnOp::GetForUpdate(key) | TxnOp::Lock(key) => key,
            TxnOp::Write(write) => {
                write.value.as_ref().map_or(Ok(()), check_value)?;
                &mut write.key
            }
            TxnOp::Scan(scan) => {
                if scan.keyspace.is_none() {
                    scan.keyspace.clone_from(&self.keyspace);
                }
                return Ok(());
            }
        };
        key.keyspace.clone_from(&self.keyspace);
        Key::new(key.key.clone()).map(drop)
    }

    /// The leader of the first key's partition: for a batch on one partition that saves a detour.
    fn target(&self, ops: &[TxnOp]) -> Target {
        let first = ops.iter().find_map(|op| match op {
            TxnOp::Get(key) | TxnOp::GetForUpdate(key) | TxnOp::Lock(key) => Some(key),
            TxnOp::Write(write) => Some(&write.key),
            TxnOp::Scan(_) => None,
        });
        let token = first.and_then(|first| {
            let key = Key::new(first.key.clone()).ok()?;
            self.dispatch.routes().token(first.keyspace.as_deref(), &key)
        });
        token.map_or(Target::Any, Target::Leader)
    }
}

fn writes(op: &TxnOp) -> bool {
    matches!(op, TxnOp::Write(_))
}

/// A batch of which only the outcome is known.
fn without_answer(txn: TxnId, at: Timestamp, ops: &[TxnOp]) -> Committed {
    let results = ops.iter().map(|op| if writes(op) { BatchResult::Done } else { BatchResult::Lost });
    Committed { txn, at, results: results.collect() }
}

fn result(response: TxnResponse) -> Result<BatchResult, Error> {
    match response {
        TxnResponse::Value(found) => Ok(BatchResult::Value(found)),
        TxnResponse::Done => Ok(BatchResult::Done),
        TxnResponse::Page(page) => Ok(BatchResult::Page(page)),
        other => Err(mismatch(&Response::Txn(other))),
    }
}
