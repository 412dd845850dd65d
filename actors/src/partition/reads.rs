//! Reads: answered at once under a valid lease, else parked until leadership is confirmed.

use super::Partition;
use super::message::{Answer, LocalPartition, PartitionMessage};
use super::writes::{ExecuteReply, Refusal, Writes};
use std::sync::Arc;
use tracing::Span;
use trandb_cluster::txn::Blocker;
use trandb_cluster::wire::{KeyOp, KeyResult, RangePage, RangeScan, Versioned};
use trandb_cluster::{EncodedKey, Error, Timestamp};
use trandb_runtime::planted::{Planted, is_planted};
use trandb_runtime::raft::ReadPolicy;
use trandb_runtime::rpc::Reply;

/// Reads that may wait for a confirmation or for writes at once; beyond it `overloaded`.
const PARKED_MAX: usize = 8192;

/// A read that has not been answered.
#[derive(Debug)]
pub(super) enum Parked {
    /// Gets and exists.
    Keys {
        /// What to read.
        ops: Arc<Vec<KeyOp>>,
        /// The number that the next push had when it came.
        since: u64,
        /// Who asks.
        reply: ExecuteReply,
        /// Ends with the answer.
        span: Span,
    },
    /// A range at a snapshot.
    Scan {
        /// What to read.
        scan: RangeScan,
        /// Proposals below this may carry timestamps up to the snapshot's.
        horizon: u64,
        /// Who asks.
        reply: Reply<Answer<RangePage>>,
        /// Ends with the answer.
        span: Span,
    },
}

impl Parked {
    pub(super) fn refuse(self, refusal: &Refusal) {
        match self {
            Self::Keys { reply, .. } => reply.send(refusal.answer()),
            Self::Scan { reply, .. } => reply.send(refusal.answer()),
        }
    }

    /// Whether it reads a snapshot, for which writes with lower timestamps must have been applied.
    fn is_snapshot(&self) -> bool {
        match self {
            Self::Scan { .. } => true,
            Self::Keys { ops, .. } => ops.iter().any(|op| matches!(op, KeyOp::Get { at: Some(_), .. })),
        }
    }
}

/// Reads that wait.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// For the next read-index round: they came after the running one had started.
    next: Vec<Parked>,
    /// For the running round.
    confirming: Vec<Parked>,
    running: bool,
    /// For proposals below the horizon to end.
    blocked: Vec<(u64, Parked)>,
    /// For the end of a pause.
    held: Vec<Parked>,
}

impl Reads {
    fn len(&self) -> usize {
        self.next.len() + self.confirming.len() + self.blocked.len() + self.held.len()
    }

    pub(super) fn unblocked(&mut self, writes: &Writes) -> Vec<Parked> {
        if self.blocked.is_empty() {
            return Vec::new();
        }
        let (free, blocked) = std::mem::take(&mut self.blocked)
            .into_iter()
            .partition(|(horizon, _)| writes.settled_below(*horizon));
        self.blocked = blocked;
        let free: Vec<(u64, Parked)> = free;
        free.into_iter().map(|(_, parked)| parked).collect()
    }

    /// Those that wait for leadership to be confirmed, or for proposals, neither of which a leader that is cut off hears of.
    /// A round that runs may still end, for nobody.
    pub(super) fn take_unconfirmed(&mut self) -> Vec<Parked> {
        let mut unconfirmed = std::mem::take(&mut self.confirming);
        unconfirmed.append(&mut self.next);
        unconfirmed.extend(std::mem::take(&mut self.blocked).into_iter().map(|(_, parked)| parked));
        unconfirmed
    }

    pub(super) fn take_held(&mut self) -> Vec<Parked> {
        std::mem::take(&mut self.held)
    }
}

impl Partition {
    /// Answers a read, or parks it until it may be answered.
    pub(super) fn read(&mut self, read: Parked) {
        if self.reads.len() >= PARKED_MAX {
            let error = Error::overloaded(format!("{PARKED_MAX} reads wait in this partition, the limit"));
            read.refuse(&Refusal::Failed(error));
            return;
        }
        if self.writes.paused {
            self.reads.held.push(read);
            return;
        }
        if let Err(leader) = self.leads() {
            read.refuse(&Refusal::NotLeader(leader));
            return;
        }
        if read.is_snapshot() {
            let horizon = match &read {
                Parked::Scan { horizon, .. } => *horizon,
                Parked::Keys { .. } => self.writes.horizon(),
            };
            if !self.writes.settled_below(horizon) {
                // What is waited for does not end either.
                if self.is_cut_off() {
                    read.refuse(&self.cut_off());
                    return;
                }
                self.reads.blocked.push((horizon, read));
                return;
            }
        }
        if self.lease_valid() || is_planted(Planted::ReadWhenDeposed) {
            self.answer(read);
        } else if self.is_cut_off() {
            read.refuse(&self.cut_off());
        } else {
            self.reads.next.push(read);
            self.confirm();
        }
    }

    fn answer(&mut self, read: Parked) {
        if let Some(blocker) = self.in_the_way(&read) {
            self.wait_to_read(blocker, read);
            return;
        }
        match read {
            Parked::Keys { ops, reply, span: _span, .. } => {
                let results = ops.iter().map(|op| self.answer_key(op)).collect();
                reply.send(Answer::Done(results));
            }
            Parked::Scan { scan, reply, span: _span, .. } => match self.check_snapshot(scan.at) {
                Ok(()) => reply.send(Answer::Done(self.state.scan(&scan))),
                Err(error) => reply.send(Answer::Failed(error)),
            },
        }
    }

    /// A transaction that may be about to write what is read, as of then.
    fn in_the_way(&self, read: &Parked) -> Option<Blocker> {
        if self.state.held().len() == 0 {
            return None;
        }
        match read {
            Parked::Keys { ops, since, .. } => ops.iter().find_map(|op| {
                let at = match op {
                    KeyOp::Get { at, .. } => *at,
                    _ => None,
                };
                let passes = |by: &Blocker| {
                    self.chases.passes(by.txn, at, *since) || self.is_decided(op.key(), by.txn)
                };
                self.state.intent(op.key()).filter(|by| !passes(by))
            }),
            Parked::Scan { scan, .. } => {
                let intents = self.state.intents_of(scan);
                intents.into_iter().find(|by| !self.chases.passes(by.txn, Some(scan.at), 0))
            }
        }
    }

    pub(super) fn answer_key(&self, op: &KeyOp) -> Result<KeyResult, Error> {
        match op {
            KeyOp::Get { key, at: None } => Ok(KeyResult::Value(self.value(key, Timestamp::MAX))),
            KeyOp::Get { key, at: Some(at) } => {
                self.check_snapshot(*at)?;
                Ok(KeyResult::Value(self.value(key, *at)))
            }
            KeyOp::Exists { key } => Ok(KeyResult::Exists(match self.committed_intent(key) {
                Some(_) => self.value(key, Timestamp::MAX).map(|found| found.version),
                None => self.state.exists(key),
            })),
            KeyOp::Write(_) => Err(Error::internal("a write among reads")),
        }
    }

    fn value(&self, key: &EncodedKey, at: Timestamp) -> Option<Versioned> {
        match self.committed_intent(key) {
            Some(committed) => self.state.get_decided(key, at, committed),
            None => self.state.get(key, at),
        }
    }

    fn check_snapshot(&self, at: Timestamp) -> Result<(), Error> {
        let floor = self.state.gc_floor();
        if at < floor {
            return Err(Error::invalid(format!("versions before {floor} may be gone, {at} was asked for")));
        }
        Ok(())
    }

    /// Starts a read-index round unless one runs.
    fn confirm(&mut self) {
        if self.reads.running || self.reads.next.is_empty() {
            return;
        }
        let Some(raft) = self.raft.clone() else { return };
        self.reads.running = true;
        metrics::counter!("trandb_read_index_rounds_total").increment(1);
        self.reads.confirming = std::mem::take(&mut self.reads.next);
        let me = self.me.clone();
        tokio::spawn(async move {
            let leads = raft.ensure_linearizable(ReadPolicy::ReadIndex).await.is_ok();
            // A partition that died meanwhile has dropped the reads; their callers ask again.
            let _ = me.cast(PartitionMessage::Local(LocalPartition::Confirmed(leads)));
        });
    }

    pub(super) fn confirmed(&mut self, leads: bool) {
        self.reads.running = false;
        for read in std::mem::take(&mut self.reads.confirming) {
            if leads && !self.writes.paused && !self.replica.is_suspect() {
                self.answer(read);
            } else {
                let leader = self.leads().err().flatten();
                read.refuse(&Refusal::NotLeader(leader));
            }
        }
        self.confirm();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ractor::concurrency::oneshot;

    #[test]
    fn whoever_is_cut_off_keeps_no_read_waiting() {
        let mut reads = Reads::default();
        let mut answers = Vec::new();
        let mut read = || {
            let (port, answer) = oneshot();
            answers.push(answer);
            let (ops, reply) = (Arc::default(), Reply::Local(port.into()));
            Parked::Keys { ops, since: 0, reply, span: Span::none() }
        };
        reads.next.push(read());
        reads.confirming.push(read());
        reads.blocked.push((1, read()));
        for waiting in reads.take_unconfirmed() {
            waiting.refuse(&Refusal::CutOff(Error::unavailable("alone")));
        }
        assert_eq!(reads.len(), 0);
        for mut answer in answers {
            assert!(matches!(answer.try_recv(), Ok(Answer::CutOff(_))));
        }
    }
}
