//! Reads of the past by whatever replica has it, without a word to the leader.
//!
//! Timestamps of entries grow with the log index, so a replica that has applied one at or above `at` has all that came
//! before: nothing later changes what a read at `at` sees. Except for a transaction that is prepared here, which may have
//! been committed elsewhere already, and below `at`: who meets one asks the leader, who finds out. One that prepares later
//! is committed later, too, since its commit's timestamp is given out after all have prepared.
//!
//! Whether `at` itself lies in the past is asked of the oracle before, by whoever does so for the leader.

use super::Partition;
use super::applier::ReplicaState;
use super::message::{LocalPartition, PartitionMessage};
use crate::database::{Database, RequestContext};
use ractor::rpc::CallResult;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::wire::{KeyOp, KeyResult, RangePage, RangeScan};
use trandb_cluster::{Error, PartitionId, Timestamp};
use trandb_runtime::planted::{Planted, is_planted};

/// How long this node's own replica may take to answer before the leader is asked instead.
const HERE_MAX: Duration = Duration::from_millis(500);

/// Up to which timestamp a replica has applied its log, for a look before it is asked.
#[derive(Debug, Default)]
pub(super) struct Covered(AtomicU64);

impl Covered {
    pub(super) fn set(&self, at: Timestamp) {
        self.0.store(at.0, Ordering::Release);
    }

    fn get(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Acquire))
    }
}

/// What is read of the past.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "part of the mailbox, which is public")]
pub enum Past {
    /// Gets, each with a timestamp.
    Keys(Arc<Vec<KeyOp>>, ractor::RpcReplyPort<Option<Vec<Result<KeyResult, Error>>>>),
    /// A range.
    Scan(RangeScan, ractor::RpcReplyPort<Option<RangePage>>),
}

impl Partition {
    /// Answers from the state if it has what is asked for, else with none.
    pub(super) fn read_past(&self, past: Past) {
        match past {
            Past::Keys(ops, reply) => {
                let results = self.has_all(&ops).then(|| ops.iter().map(|op| self.answer_key(op)).collect());
                let _ = reply.send(results);
            }
            Past::Scan(scan, reply) => {
                let has = self.has(scan.at) && self.state.intents_of(&scan).is_empty();
                let _ = reply.send(has.then(|| self.state.scan(&scan)));
            }
        }
    }

    fn has(&self, at: Timestamp) -> bool {
        let covered = at <= self.state.last_timestamp() || is_planted(Planted::ReadAheadOfLog);
        covered && self.state.gc_floor() <= at && self.is_sound()
    }

    fn has_all(&self, ops: &[KeyOp]) -> bool {
        ops.iter().all(|op| match op {
            KeyOp::Get { key, at: Some(at) } => self.has(*at) && self.state.intent(key).is_none(),
            _ => false,
        })
    }
}

impl Database {
    /// Gets of the past from this node's replica; none if it leads, lacks something, or there is none.
    pub(crate) async fn keys_here(
        &self,
        partition: PartitionId,
        ops: &Arc<Vec<KeyOp>>,
        context: &RequestContext,
    ) -> Option<Vec<Result<KeyResult, Error>>> {
        let mut latest = Timestamp::ZERO;
        for op in ops.iter() {
            let KeyOp::Get { at: Some(at), .. } = op else { return None };
            latest = latest.max(*at);
        }
        self.here(partition, latest, context, |reply| Past::Keys(ops.clone(), reply)).await
    }

    /// The same for a part of a range.
    pub(crate) async fn scan_here(
        &self,
        partition: PartitionId,
        scan: &RangeScan,
        context: &RequestContext,
    ) -> Option<RangePage> {
        self.here(partition, scan.at, context, |reply| Past::Scan(scan.clone(), reply)).await
    }

    async fn here<T: Send + 'static>(
        &self,
        partition: PartitionId,
        at: Timestamp,
        context: &RequestContext,
        ask: impl FnOnce(ractor::RpcReplyPort<Option<T>>) -> Past,
    ) -> Option<T> {
        if self.context().leader(partition) == Some(self.node()) {
            return None;
        }
        let replica: Arc<ReplicaState> = self.context().replica(partition)?;
        if replica.covered().get() < at && !is_planted(Planted::ReadAheadOfLog) {
            return None;
        }
        let timeout = HERE_MAX.min(context.deadline.saturating_duration_since(Instant::now()));
        let ask = |reply| PartitionMessage::Local(LocalPartition::Past(ask(reply)));
        match replica.actor()?.call(ask, Some(timeout)).await {
            Ok(CallResult::Success(Some(found))) => {
                metrics::counter!("trandb_follower_reads_total").increment(1);
                Some(found)
            }
            // It restarts, is busy, or meets a transaction: the leader answers.
            _ => None,
        }
    }
}
