//! Batches: a transaction in one request.

use super::{commit, ops};
use crate::database::{Database, RequestContext};
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::limits::TXN_BATCH_RESULT_BYTES_MAX;
use trandb_cluster::txn::{Coordinator, NAMES_PER_GRANT, TxnBatch, TxnResponse};
use trandb_cluster::{Error, Timestamp, TxnId};

/// How long names ahead of need are waited for; meanwhile who needs one asks for it.
const NAMES_WAIT: Duration = Duration::from_secs(1);

impl Database {
    /// Begins, does, and commits. It has no actor: nobody can ask anything of it before it has ended.
    pub(crate) async fn batch(
        &self,
        batch: TxnBatch,
        request: &RequestContext,
    ) -> Result<TxnResponse, Error> {
        let (begin, read_at) = match batch.reads_nothing() {
            true => (self.name(request).await?, Timestamp::MAX),
            false => {
                let now = self.timestamp(request).await?;
                (now, now)
            }
        };
        let txn = TxnId { begin, node: self.node() };
        let mut core = Coordinator::new(txn, batch.isolation, false, read_at);
        let result = self.run_batch(&mut core, batch, request).await;
        self.release_locks(txn);
        result
    }

    /// A timestamp that nobody else has, from not long ago.
    async fn name(&self, request: &RequestContext) -> Result<Timestamp, Error> {
        let (context, now_ms) = (self.context(), self.context().uptime_ms());
        let name = {
            let mut names = context.transactions.names();
            if names.wants_more(now_ms) {
                let database = self.clone();
                tokio::spawn(async move { database.get_names(now_ms).await });
            }
            names.take(now_ms)
        };
        match name {
            Some(name) => Ok(name),
            None => self.timestamp(request).await,
        }
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
        core: &mut Coordinator,
        batch: TxnBatch,
        request: &RequestContext,
    ) -> Result<TxnResponse, Error> {
        let txn = core.txn();
        let (mut results, mut bytes) = (Vec::with_capacity(batch.ops.len().min(1024)), 0);
        for op in batch.ops {
            let result = ops::run(self, core, op, request).await?;
            bytes += result.weight();
            if bytes > TXN_BATCH_RESULT_BYTES_MAX {
                return Err(Error::too_large("the batch's results take too many bytes"));
            }
            results.push(result);
        }
        match commit::commit(self, core, request).await {
            Ok(committed) => Ok(TxnResponse::Batch { txn, committed, results }),
            Err(failed) if failed.aborted.is_none() => {
                let message = format!("{} (transaction {txn})", failed.error.message);
                Err(Error { message, ..failed.error })
            }
            Err(failed) => Err(failed.error),
        }
    }
}
