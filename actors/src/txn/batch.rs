//! Batches: a transaction in one request.

use super::{commit, ops};
use crate::database::{Database, RequestContext};
use trandb_cluster::limits::TXN_BATCH_RESULT_BYTES_MAX;
use trandb_cluster::txn::{Coordinator, TxnBatch, TxnResponse};
use trandb_cluster::{Error, TxnId};

impl Database {
    /// Begins, does, and commits. It has no actor: nobody can ask anything of it before it has ended.
    pub(crate) async fn batch(
        &self,
        batch: TxnBatch,
        request: &RequestContext,
    ) -> Result<TxnResponse, Error> {
        let begin = self.timestamp(request).await?;
        let txn = TxnId { begin, node: self.node() };
        let mut core = Coordinator::new(txn, batch.isolation, false, begin);
        let result = self.run_batch(&mut core, batch, request).await;
        self.release_locks(txn);
        result
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
