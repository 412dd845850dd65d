//! Key locks at the partition's leader: who waits is answered when its turn has come, and its coordinator's node is told
//! whom it waits behind, which is how deadlocks are found.
//!
//! Locks end with leadership, or with this actor. That is safe: a transaction that relied on one is checked when it
//! commits.

use super::Partition;
use super::message::{Answer, LocalPartition, LockAnswer, LockAsk, LockCall, PartitionMessage};
use super::writes::Refusal;
use crate::txn::{DeadlockCall, find_deadlocks};
use std::collections::BTreeMap;
use std::time::Duration;
use trandb_cluster::txn::{Asked, LockEvent, Locks};
use trandb_cluster::{EncodedKey, TxnId};
use trandb_runtime::rpc::Reply;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct KeyLocks {
    core: Locks,
    waiting: BTreeMap<(EncodedKey, TxnId), Reply<Answer<LockAnswer>>>,
}

impl Partition {
    pub(super) fn lock(&mut self, call: LockCall, reply: Reply<Answer<LockAnswer>>) {
        if let Err(leader) = self.leads() {
            reply.send(Answer::NotLeader { leader });
            return;
        }
        let LockCall { txn, ask } = call;
        let now_ms = self.context.uptime_ms();
        match ask {
            LockAsk::Lock { key, within_ms } => {
                match self.locks.core.ask(&key, txn, now_ms, now_ms + within_ms) {
                    Ok(Asked::Granted) => reply.send(Answer::Done(LockAnswer::Granted)),
                    Ok(Asked::Behind(behind)) => {
                        // Should it have asked before, that question is answered by its being dropped.
                        self.locks.waiting.insert((key, txn), reply);
                        self.me.send_after(Duration::from_millis(within_ms), || {
                            PartitionMessage::Local(LocalPartition::LocksDue)
                        });
                        find_deadlocks(&self.context, DeadlockCall::Waits { txn, behind });
                    }
                    Err(error) => reply.send(Answer::Failed(error)),
                }
            }
            LockAsk::GiveUp { key } => {
                let events = self.locks.core.give_up(&key, txn);
                self.locks.waiting.remove(&(key, txn));
                self.lock_events(events);
                reply.send(Answer::Done(LockAnswer::Done));
            }
            LockAsk::Release => {
                let events = self.locks.core.release(txn);
                self.lock_events(events);
                reply.send(Answer::Done(LockAnswer::Done));
            }
            LockAsk::Keep => {
                self.locks.core.keep(txn, now_ms);
                reply.send(Answer::Done(LockAnswer::Done));
            }
        }
    }

    fn lock_events(&mut self, events: Vec<LockEvent>) {
        for event in events {
            match event {
                LockEvent::Granted { key, txn } => {
                    if let Some(reply) = self.locks.waiting.remove(&(key, txn)) {
                        reply.send(Answer::Done(LockAnswer::Granted));
                    }
                }
                LockEvent::TimedOut { key, txn, holder } => {
                    if let Some(reply) = self.locks.waiting.remove(&(key, txn)) {
                        reply.send(Answer::Done(LockAnswer::TimedOut { holder }));
                    }
                }
                LockEvent::Behind { txn, behind } => {
                    find_deadlocks(&self.context, DeadlockCall::Waits { txn, behind });
                }
            }
        }
    }

    /// Ends waits and leases that are over; forgets all locks where this replica leads no more.
    pub(super) fn locks_due(&mut self) {
        if self.locks.core.is_empty() {
            return;
        }
        if let Err(leader) = self.leads() {
            self.locks.core = Locks::default();
            for (_, reply) in std::mem::take(&mut self.locks.waiting) {
                reply.send(Refusal::NotLeader(leader).answer());
            }
            return;
        }
        let events = self.locks.core.expire(self.context.uptime_ms());
        self.lock_events(events);
    }

    /// Keys that are locked here.
    pub(super) fn locked_keys(&self) -> usize {
        self.locks.core.held()
    }
}
