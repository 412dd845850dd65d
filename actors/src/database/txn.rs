//! Transactions, from any node: requests are led to the node where the transaction began, and answered without it when
//! it is gone.

use super::{Call, Database, RequestContext};
use crate::context::NodeContext;
use crate::gateway::{LARGE_BYTES, rules};
use crate::partition::{LockAnswer, LockAsk, LockCall, PartitionMessage, TxnCall};
use crate::txn::{CoordinatorsMessage, Known, NAME, SessionMessage, TxnAsk, begin};
use ractor::rpc::CallResult;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::txn::{
    Coordinator, Plan, TxnApplied, TxnOp, TxnOutcome, TxnRequest, TxnResponse, TxnStep,
};
use trandb_cluster::{EncodedKey, Error, PartitionId, TxnId};
use trandb_runtime::rpc::RpcError;

impl Database {
    /// Does what is asked of transactions.
    ///
    /// # Errors
    /// `conflict` for one that lost against another or has ended without effect, `unknown` for a commit that was not
    /// answered, and those of single operations.
    pub async fn txn(&self, request: TxnRequest, context: &RequestContext) -> Result<TxnResponse, Error> {
        let Some(txn) = named(&request) else { return self.txn_here(&request, context).await };
        if txn.node == self.context.node {
            return self.txn_here(&request, context).await;
        }
        let writes = rules::txn_is_write(&request);
        let request = Arc::new(request);
        let timeout = context.deadline.saturating_duration_since(Instant::now());
        let ask =
            TxnAsk { request: request.clone(), within_ms: timeout.as_millis() as u64, trace: context.trace };
        let make = |reply| CoordinatorsMessage::Ask(ask.clone(), reply);
        match self.context.hub.call(txn.node, NAME, timeout, weight(&request), make).await {
            Ok(answer) => answer,
            Err(RpcError::Unreachable) => self.without_coordinator(&request, txn, context).await,
            Err(RpcError::Overloaded) => {
                Err(Error::overloaded(format!("too much is under way to {}", txn.node)))
            }
            Err(RpcError::TooLarge) => Err(Error::too_large("the message is over the limit between nodes")),
            Err(RpcError::Decode) => {
                Err(Error::internal(format!("{} and this node do not understand each other", txn.node)))
            }
            Err(RpcError::Timeout | RpcError::Lost) if writes => Err(Error::unknown(format!(
                "{}, which coordinates {txn}, gave no answer: it may or may not have been done",
                txn.node
            ))),
            Err(RpcError::Timeout | RpcError::Lost) => {
                Err(Error::unavailable(format!("{}, which coordinates {txn}, gave no answer", txn.node)))
            }
        }
    }

    /// Does what is asked of a transaction that began on this node, or begins one.
    pub(crate) async fn txn_here(
        &self,
        request: &TxnRequest,
        context: &RequestContext,
    ) -> Result<TxnResponse, Error> {
        let txn = match request {
            TxnRequest::Begin { isolation, read_only, at, idle_timeout_ms, run } => {
                count_run("transaction", *run);
                let most = self.context.config.txn.idle_timeout_ms;
                let idle = match u64::from(*idle_timeout_ms) {
                    0 => most,
                    asked => asked.min(most),
                };
                let idle = Duration::from_millis(idle);
                let (txn, read_at) = begin(&self.context, *isolation, *read_only, *at, idle, context).await?;
                return Ok(TxnResponse::Begun { txn, read_at });
            }
            TxnRequest::Batch(batch) => {
                count_run("batch", batch.run);
                return self.batch(batch.clone(), context).await;
            }
            TxnRequest::Names { count } => return self.batch_names(*count, context).await,
            TxnRequest::Op { txn, .. }
            | TxnRequest::Commit { txn }
            | TxnRequest::Abort { txn }
            | TxnRequest::Outcome { txn } => *txn,
        };
        let handle = match self.context.transactions.find(txn) {
            Known::Open(handle) => handle,
            Known::Ended(outcome) => return ended(request, txn, outcome),
            Known::Batch if matches!(request, TxnRequest::Op { .. }) => {
                return Err(Error::invalid(format!("{txn} is a batch, which takes nothing more")));
            }
            Known::Batch => return Ok(TxnResponse::Outcome(TxnOutcome::Open)),
            Known::Nothing => return self.without_coordinator(request, txn, context).await,
        };
        let timeout = Some(context.deadline.saturating_duration_since(Instant::now()));
        let context = *context;
        let called = match request {
            TxnRequest::Op { op, .. } => {
                let op = Box::new(op.clone());
                handle.actor.call(|reply| SessionMessage::Op(op, context, reply), timeout).await
            }
            TxnRequest::Commit { .. } => {
                let called = handle.actor.call(|reply| SessionMessage::Commit(context, reply), timeout).await;
                called.map(|called| called.map(|outcome| outcome.map(TxnResponse::Outcome)))
            }
            TxnRequest::Abort { .. } => {
                let called = handle.actor.call(SessionMessage::Abort, timeout).await;
                called.map(|called| called.map(|outcome| Ok(TxnResponse::Outcome(outcome))))
            }
            _ => return Ok(TxnResponse::Outcome(TxnOutcome::Open)),
        };
        match called {
            Ok(CallResult::Success(answer)) => answer,
            Ok(CallResult::Timeout) => {
                let message = format!("{txn} gave no answer within the deadline");
                Err(if rules::txn_is_write(request) {
                    Error::unknown(message)
                } else {
                    Error::unavailable(message)
                })
            }
            // It has ended meanwhile.
            _ => match self.context.transactions.find(txn) {
                Known::Ended(outcome) => ended(request, txn, outcome),
                _ => self.without_coordinator(request, txn, &context).await,
            },
        }
    }

    /// Answers for a transaction whose coordinator is gone: the partitions know how it ended, or end it.
    async fn without_coordinator(
        &self,
        request: &TxnRequest,
        txn: TxnId,
        context: &RequestContext,
    ) -> Result<TxnResponse, Error> {
        let now = self.timestamp(context).await?;
        if txn.begin > now {
            return Err(Error::invalid(format!("{txn} has not begun: it is {now} now")));
        }
        let outcome = self.inquire(txn, context).await?;
        ended(request, txn, outcome)
    }

    /// How a transaction is committed as the partition map is now; none before it is known.
    pub(crate) fn plan(&self, core: &Coordinator) -> Option<Plan> {
        let routes = self.routes.borrow().clone();
        core.plan(|token| routes.table.partition_of(token), &self.partitions())
    }

    /// All data partitions.
    pub(crate) fn partitions(&self) -> Vec<PartitionId> {
        self.routes.borrow().table.partitions().map(|route| route.id).collect()
    }

    /// Asks about key locks at the leader of a partition.
    pub(crate) async fn lock_call(
        &self,
        partition: PartitionId,
        txn: TxnId,
        ask: &LockAsk,
        context: &RequestContext,
    ) -> Result<LockAnswer, Error> {
        let call = Call { partition, writes: false, weight: 256 };
        let make = |reply| PartitionMessage::Lock(LockCall { txn, ask: ask.clone() }, reply);
        self.at_leader(&call, context, make).await.map(|(answer, _)| answer)
    }

    /// Where a key lives; none before the partition map is known.
    pub(crate) fn partition_of(&self, key: &EncodedKey) -> Option<PartitionId> {
        self.routes.borrow().table.partition_of(key.token())
    }

    pub(crate) fn context(&self) -> &Arc<NodeContext> {
        &self.context
    }

    /// Takes a step at the leader of a partition.
    pub(crate) async fn txn_step_once(
        &self,
        partition: PartitionId,
        step: &Arc<TxnStep>,
        context: &RequestContext,
    ) -> Result<TxnApplied, Error> {
        let weight = step.weight();
        let _turn = if weight > LARGE_BYTES {
            Some(self.context.large_writes.turn(weight, context.deadline).await?)
        } else {
            None
        };
        // To take a step twice is the same as once, so that it may be sent again.
        let call = Call { partition, writes: false, weight };
        let make = |reply| PartitionMessage::Txn(TxnCall { step: step.clone(), trace: context.trace }, reply);
        self.at_leader(&call, context, make).await.map(|(applied, _)| applied)
    }
}

/// Counts what is run again.
fn count_run(kind: &'static str, run: u32) {
    if run > 0 {
        metrics::counter!("trandb_txn_retries_total", "kind" => kind).increment(1);
    }
}

/// The transaction that a request names.
fn named(request: &TxnRequest) -> Option<TxnId> {
    match request {
        TxnRequest::Begin { .. } | TxnRequest::Names { .. } => None,
        TxnRequest::Batch(batch) => batch.id,
        TxnRequest::Op { txn, .. }
        | TxnRequest::Commit { txn }
        | TxnRequest::Abort { txn }
        | TxnRequest::Outcome { txn } => Some(*txn),
    }
}

fn weight(request: &TxnRequest) -> usize {
    match request {
        TxnRequest::Op { op: TxnOp::Write(write), .. } => write.weight(),
        TxnRequest::Batch(batch) => {
            1024 + batch
                .ops
                .iter()
                .map(|op| match op {
                    TxnOp::Write(write) => write.weight(),
                    _ => 256,
                })
                .sum::<usize>()
        }
        _ => 1024,
    }
}

/// What is answered to a request about a transaction that has ended.
pub(crate) fn ended(request: &TxnRequest, txn: TxnId, outcome: TxnOutcome) -> Result<TxnResponse, Error> {
    match (request, outcome) {
        (TxnRequest::Abort { .. } | TxnRequest::Outcome { .. }, outcome) => Ok(TxnResponse::Outcome(outcome)),
        (TxnRequest::Commit { .. } | TxnRequest::Batch(_), outcome @ TxnOutcome::Committed(_)) => {
            Ok(TxnResponse::Outcome(outcome))
        }
        (_, TxnOutcome::Aborted(why)) => {
            Err(Error::conflict(format!("transaction {txn} was aborted: {why}")))
        }
        (_, TxnOutcome::Committed(_)) => Err(Error::invalid(format!("transaction {txn} has ended"))),
        (TxnRequest::Commit { .. } | TxnRequest::Batch(_), _) => {
            Err(Error::unknown(format!("transaction {txn} ended longer ago than outcomes are kept")))
        }
        (_, _) => Err(Error::not_found(format!("transaction {txn} ended longer ago than outcomes are kept"))),
    }
}
