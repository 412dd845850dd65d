//! Operations that are done together in one request.

use super::ask;
use crate::client::{Client, check_value};
use crate::dispatch::mismatch;
use crate::routing::Target;
use bytes::Bytes;
use tokio::time::Instant;
use trandb_cluster::command::Condition;
use trandb_cluster::txn::{Isolation, TxnBatch, TxnId, TxnKey, TxnOp, TxnRequest, TxnResponse, TxnWrite};
use trandb_cluster::wire::{Page, Response, ScanRequest, Versioned};
use trandb_cluster::{Error, ErrorCode, Key, Timestamp};

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
    /// # Errors
    /// `conflict` when it lost against others until then, `condition_failed` when a condition did not hold,
    /// `unavailable` or `overloaded` when it was not done in time: nothing was written. `unknown` when no answer came:
    /// it may or may not have been done.
    pub async fn batch(&self, batch: Batch) -> Result<Committed, Error> {
        let Batch { isolation, mut ops } = batch;
        for (index, op) in ops.iter_mut().enumerate() {
            self.check(op).map_err(|error| Error {
                message: format!("operation {index}: {}", error.message),
                ..error
            })?;
        }
        let target = self.target(&ops);
        let request = TxnRequest::Batch(TxnBatch { isolation, ops });
        let deadline = Instant::now() + self.timeout;
        for run in 1.. {
            match ask(&self.dispatch, request.clone(), target, deadline, self.trace).await {
                Ok(TxnResponse::Batch { txn, committed, results }) => {
                    self.dispatch.transacted();
                    let results = results.into_iter().map(result).collect::<Result<_, _>>()?;
                    return Ok(Committed { txn, at: committed, results });
                }
                Ok(other) => return Err(mismatch(&Response::Txn(other))),
                Err(error) if error.code == ErrorCode::Conflict => {
                    match self.dispatch.pause_after_conflict(run, deadline) {
                        Some(pause) => tokio::time::sleep(pause).await,
                        None => return Err(error),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        unreachable!("the loop ends only by returning")
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

fn result(response: TxnResponse) -> Result<BatchResult, Error> {
    match response {
        TxnResponse::Value(found) => Ok(BatchResult::Value(found)),
        TxnResponse::Done => Ok(BatchResult::Done),
        TxnResponse::Page(page) => Ok(BatchResult::Page(page)),
        other => Err(mismatch(&Response::Txn(other))),
    }
}
