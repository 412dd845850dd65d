//! Locks from a transaction's side: asked for at the key's partition, kept alive every second, given back at the end; and the
//! search for deadlocks among the transactions that wait.

use super::trace::phase;
use super::{CoordinatorsMessage, NAME, Transactions};
use crate::context::NodeContext;
use crate::database::{Database, RequestContext};
use crate::partition::{LockAnswer, LockAsk};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use trandb_cluster::txn::{LOCK_LEASE_MS, Probed, Waits, describe_cycle};
use trandb_cluster::{EncodedKey, Error, NodeId, PartitionId, TxnId};

/// How long a message about locks may take; the lease makes up for what is lost.
const MESSAGE_MAX: Duration = Duration::from_millis(LOCK_LEASE_MS / 2);

/// How much earlier than its caller a waiter gives up, so that the answer still comes through.
const MARGIN: Duration = Duration::from_millis(50);

/// What nodes tell each other about waits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum DeadlockCall {
    /// A transaction of the node that is told waits behind another one.
    Waits {
        /// Who waits.
        txn: TxnId,
        /// The one before it in the queue.
        behind: TxnId,
    },
    /// A path of waits, whose last one is of the node that is told.
    Probe(Vec<TxnId>),
    /// A cycle, whose first one, of the node that is told, gives way.
    Victim(Vec<TxnId>),
}

impl DeadlockCall {
    fn node(&self) -> Option<NodeId> {
        match self {
            Self::Waits { txn, .. } => Some(txn.node),
            Self::Probe(path) => path.last().map(|txn| txn.node),
            Self::Victim(cycle) => cycle.first().map(|txn| txn.node),
        }
    }
}

/// What the transactions of a node hold and wait for.
#[derive(Debug, Default)]
pub(super) struct Locking {
    waits: Waits,
    /// Told when they must give way.
    victims: BTreeMap<TxnId, oneshot::Sender<String>>,
    /// Where they hold locks or wait for them.
    partitions: BTreeMap<TxnId, BTreeSet<PartitionId>>,
}

impl Transactions {
    fn locking(&self) -> MutexGuard<'_, Locking> {
        self.locking.lock().expect("no holder of the lock panics")
    }

    fn begin_wait(&self, txn: TxnId, partition: PartitionId) -> oneshot::Receiver<String> {
        let (sender, receiver) = oneshot::channel();
        let mut locking = self.locking();
        locking.victims.insert(txn, sender);
        locking.partitions.entry(txn).or_default().insert(partition);
        receiver
    }

    fn end_wait(&self, txn: TxnId) {
        let mut locking = self.locking();
        locking.victims.remove(&txn);
        locking.waits.clear(txn);
    }

    /// Takes what another node says; answers what is to be said next.
    fn learn(&self, call: DeadlockCall) -> Probed {
        let mut locking = self.locking();
        match call {
            // One that waits no more has its lock, or has given up.
            DeadlockCall::Waits { txn, .. } if !locking.victims.contains_key(&txn) => Probed::Nothing,
            DeadlockCall::Waits { txn, behind } => locking.waits.set(txn, behind),
            DeadlockCall::Probe(path) => locking.waits.probe(path),
            DeadlockCall::Victim(cycle) => {
                if locking.waits.confirms(&cycle)
                    && let Some(sender) = cycle.first().and_then(|victim| locking.victims.remove(victim))
                {
                    metrics::counter!("trandb_txn_deadlocks_total").increment(1);
                    // Whoever waited may have its lock just now.
                    let _ = sender.send(describe_cycle(&cycle));
                }
                Probed::Nothing
            }
        }
    }
}

/// Follows waits from node to node until the chain ends or closes.
pub(crate) fn find_deadlocks(context: &Arc<NodeContext>, mut call: DeadlockCall) {
    loop {
        let Some(node) = call.node() else { return };
        if node != context.node {
            let hub = context.hub.clone();
            tokio::spawn(async move {
                // A probe that is lost costs its cycle the deadline of some member.
                let make = |reply| CoordinatorsMessage::Deadlock(call.clone(), reply);
                let _ = hub.call::<_, ()>(node, NAME, MESSAGE_MAX, 256, make).await;
            });
            return;
        }
        call = match context.transactions.learn(call) {
            Probed::Nothing => return,
            Probed::Forward(path) => DeadlockCall::Probe(path),
            Probed::Deadlock(cycle) => DeadlockCall::Victim(cycle),
        };
    }
}

/// Keeps alive what the transactions of this node hold.
pub(super) fn keep_locks(context: &Arc<NodeContext>) {
    let held = context.transactions.locking().partitions.clone();
    for (txn, partitions) in held {
        for partition in partitions {
            tell(context, partition, txn, LockAsk::Keep);
        }
    }
}

fn tell(context: &Arc<NodeContext>, partition: PartitionId, txn: TxnId, ask: LockAsk) {
    let database = Database::new(context.clone());
    tokio::spawn(async move {
        let request = RequestContext { deadline: Instant::now() + MESSAGE_MAX, trace: None };
        let _ = database.lock_call(partition, txn, &ask, &request).await;
    });
}

impl Database {
    /// Waits for a key's lock until the deadline.
    ///
    /// # Errors
    /// `unavailable` when it was not got in time, `conflict` when waiting for it closed a cycle.
    pub(super) async fn lock_key(
        &self,
        txn: TxnId,
        key: &EncodedKey,
        request: &RequestContext,
    ) -> Result<(), Error> {
        let context = self.context();
        let partition =
            self.partition_of(key).ok_or_else(|| Error::unavailable("the partition map is not known yet"))?;
        let began = Instant::now();
        let within = request.deadline.saturating_duration_since(began).saturating_sub(MARGIN);
        let ask = LockAsk::Lock { key: key.clone(), within_ms: within.as_millis() as u64 };
        let (_span, request) = phase("txn lock wait", context.node, Some(txn), request);
        let victim = context.transactions.begin_wait(txn, partition);
        let answer = tokio::select! {
            biased;
            Ok(cycle) = victim => Err(Error::conflict(cycle)),
            answer = self.lock_call(partition, txn, &ask, &request) => answer,
        };
        context.transactions.end_wait(txn);
        metrics::histogram!("trandb_txn_lock_wait_seconds").record(began.elapsed().as_secs_f64());
        match answer {
            Ok(LockAnswer::Granted) => Ok(()),
            Ok(LockAnswer::TimedOut { holder }) => {
                tracing::debug!(%txn, %holder, "a key's lock was not had in time");
                let key = key.user_key();
                let key = key.escape_ascii();
                Err(Error::unavailable(format!("the key {key} is locked by transaction {holder}")))
            }
            Ok(LockAnswer::Done) => Err(Error::internal("a lock was answered as something else")),
            Err(error) => {
                tell(context, partition, txn, LockAsk::GiveUp { key: key.clone() });
                Err(error)
            }
        }
    }

    /// Gives back all locks of a transaction.
    pub(super) fn release_locks(&self, txn: TxnId) {
        let context = self.context();
        let partitions = context.transactions.locking().partitions.remove(&txn);
        for partition in partitions.into_iter().flatten() {
            tell(context, partition, txn, LockAsk::Release);
        }
    }
}
