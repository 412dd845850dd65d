//! Steps that are not urgent: what follows the answer to a commit over several partitions.
//!
//! Each would be an entry of its own on a partition that is otherwise idle, and compete with the next transaction for log,
//! network and processor. So they wait for a while, to go along with other steps: in front of them, so that these do not
//! run into what was decided long before. Writes and scans that do are a reason to wait no longer; gets are answered
//! from what was prepared, as it was decided ([`Partition::committed_intent`]).
//!
//! ```text
//! Resolve ──▶ with the next step ──┬──▶ one entry
//!             or after DEFER       │
//!             or when it is met    │
//! Finish  ──▶ with any of these, or with the next tick
//! ```

use super::message::{Answer, LocalPartition, PartitionMessage};
use super::writes::PendingStep;
use super::{Partition, ends, trace};
use crate::partition::TxnCall;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use trandb_cluster::command::Write;
use trandb_cluster::txn::{TxnApplied, TxnStep};
use trandb_cluster::{EncodedKey, Timestamp, TxnId};
use trandb_runtime::rpc::Reply;

/// How long a resolution waits for other steps to go along with. A busy partition has one sooner; a transaction that
/// meets what is not resolved yet does not wait for it.
const DEFER: Duration = Duration::from_millis(50);

/// Steps that wait at once; with one more all go.
const DEFERRED_MAX: usize = 512;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Deferred {
    steps: VecDeque<PendingStep>,
    /// A look at them is due.
    armed: bool,
    /// Decisions heard of, at least until they are applied.
    decided: BTreeMap<TxnId, Option<Timestamp>>,
}

impl Deferred {
    /// Takes one more; whether there are more now than may wait.
    fn push(&mut self, pending: PendingStep) -> bool {
        self.steps.push_back(pending);
        self.steps.len() > DEFERRED_MAX
    }

    /// As many as fit; one at least, if there is one.
    pub(super) fn take(&mut self, count_max: usize, bytes_max: usize) -> Vec<PendingStep> {
        let mut bytes = 0;
        let fits = |pending: &&PendingStep| {
            bytes += pending.step.weight();
            bytes <= bytes_max
        };
        let count = self.steps.iter().take(count_max).take_while(fits).count().max(1);
        self.steps.drain(..count.min(self.steps.len())).collect()
    }

    /// Whether a transaction's resolution waits.
    fn resolves(&self, txn: TxnId) -> bool {
        let resolves =
            |pending: &PendingStep| matches!(pending.step, TxnStep::Resolve { txn: of, .. } if of == txn);
        self.steps.iter().any(resolves)
    }
}

impl Partition {
    /// Queues a step of a transaction for the log.
    pub(super) fn step(&mut self, call: TxnCall, reply: Reply<Answer<TxnApplied>>) {
        if let Err(refusal) = self.takes_proposals() {
            reply.send(refusal.answer());
            return;
        }
        ends::taken(&call.step);
        // What it puts was admitted where the transaction put it, and is no more refused.
        let (count, bytes) = call.step.puts();
        self.context.memory.charge(count, bytes);
        let span = trace::step(trace::of_step(&call.step), call.trace.as_ref(), self.context.node, self.id);
        let step = Arc::unwrap_or_clone(call.step);
        if let TxnStep::Resolve { txn, committed } = step {
            self.writes.deferred.decided.insert(txn, committed);
        }
        match &step {
            // Whoever asks need not know: it is done by this leader or, seen from the state, by the next one.
            TxnStep::Finish { .. } => {
                reply.send(Answer::Done(TxnApplied::Resolved));
                self.defer(PendingStep { step, reply: None, span });
            }
            TxnStep::Resolve { txn, .. } if !self.is_met(*txn) => {
                self.defer(PendingStep { step, reply: Some(reply), span });
                if !std::mem::replace(&mut self.writes.deferred.armed, true) {
                    self.me.send_after(DEFER, || PartitionMessage::Local(LocalPartition::DeferredDue));
                }
            }
            _ => {
                self.writes.push_step(PendingStep { step, reply: Some(reply), span });
                self.pump();
            }
        }
    }

    fn defer(&mut self, pending: PendingStep) {
        if self.writes.deferred.push(pending) {
            self.send_deferred();
        }
    }

    /// When the transaction that holds an intent on the key was committed, if that is known though it is not resolved
    /// yet. A decision that was told once is final.
    pub(super) fn committed_intent(&self, key: &EncodedKey) -> Option<Timestamp> {
        *self.writes.deferred.decided.get(&self.state.intent(key)?.txn)?
    }

    /// Whether a get of the key can be answered though a transaction holds an intent on it.
    pub(super) fn is_decided(&self, key: &EncodedKey, txn: TxnId) -> bool {
        match self.writes.deferred.decided.get(&txn) {
            Some(None) => true,
            Some(Some(_)) => self.state.is_intended_known(key),
            None => false,
        }
    }

    /// Once per tick: decisions that are applied are not needed any more.
    pub(super) fn forget_decided(&mut self) {
        let state = &self.state;
        self.writes.deferred.decided.retain(|&txn, _| state.holds(txn));
    }

    /// They have waited long enough.
    pub(super) fn deferred_due(&mut self) {
        self.writes.deferred.armed = false;
        self.send_deferred();
    }

    pub(super) fn send_deferred(&mut self) {
        self.writes.push_deferred();
        self.pump();
    }

    /// Has a transaction resolved that somebody has met, if it is known how; whether it is.
    pub(super) fn hasten(&mut self, txn: TxnId) -> bool {
        let known = self.writes.deferred.resolves(txn);
        if known {
            self.send_deferred();
        }
        known
    }

    /// Has transactions resolved first that are in the way of writes, if it is known how.
    pub(super) fn hasten_for(&mut self, writes: &[Write]) {
        if self.writes.deferred.steps.is_empty() {
            return;
        }
        let met = writes.iter().filter_map(|write| self.state.intent(&write.key));
        if met.into_iter().any(|by| self.writes.deferred.resolves(by.txn)) {
            self.writes.push_deferred();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::writes::Writes;
    use super::*;
    use tracing::Span;
    use trandb_cluster::{NodeId, Timestamp};

    fn id(number: u64) -> TxnId {
        TxnId { begin: Timestamp(number), node: NodeId(1) }
    }

    #[test]
    fn steps_are_taken_in_order_as_many_as_fit() {
        let mut deferred = Deferred::default();
        assert!(deferred.take(10, 1000).is_empty());
        let finish = TxnStep::Finish { txn: id(0) };
        let weight = finish.weight();
        deferred.steps.push_back(PendingStep { step: finish, reply: None, span: Span::none() });
        for number in 1..6 {
            let step = TxnStep::Resolve { txn: id(number), committed: None };
            deferred.steps.push_back(PendingStep { step, reply: None, span: Span::none() });
        }
        assert!(deferred.resolves(id(1)));
        assert!(!deferred.resolves(id(0)), "a finish resolves nothing");
        let mut taken = |count, bytes| {
            let taken = deferred.take(count, bytes).into_iter();
            taken.map(|pending| pending.step.txn().begin.0).collect::<Vec<_>>()
        };
        assert_eq!(taken(2, 1000), [0, 1]);
        assert_eq!(taken(10, 2 * weight), [2, 3]);
        assert_eq!(taken(10, 1), [4], "one at least");
        assert_eq!(taken(usize::MAX, usize::MAX), [5]);
    }

    #[test]
    fn as_many_wait_as_may_and_one_more_has_all_of_them_go() {
        let mut writes = Writes::default();
        let mut push = |number| {
            let step = TxnStep::Finish { txn: id(number) };
            writes.deferred.push(PendingStep { step, reply: None, span: Span::none() })
        };
        let too_many: Vec<bool> = (0..=DEFERRED_MAX as u64).map(&mut push).collect();
        assert_eq!(too_many.iter().position(|&too_many| too_many), Some(DEFERRED_MAX));
        writes.push_deferred();
        assert!(writes.deferred.steps.is_empty() && !writes.is_idle(), "they wait for the log now");
    }
}
