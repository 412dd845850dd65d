//! Open transactions of which nothing is heard: how long they may stay so.
//!
//! A client that lives may think for as long as its transaction's idle timeout. One whose connection ended has
//! probably died, and the keys that it has locked are waited for: unless it asks for more within [`LEFT`], from whatever
//! connection and node, the transaction is aborted. Over HTTP, where each request may come on a connection of its own, only
//! the idle timeout tells.

use crate::database::Database;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use trandb_cluster::limits::TXN_LEASE_MS;
use trandb_cluster::txn::TxnRequest;
use trandb_cluster::{NodeId, TxnId};
use trandb_runtime::rpc::Reply;

/// How long a transaction outlives its client's connection. With the time between two looks it is a lease.
const LEFT: Duration = Duration::from_millis(TXN_LEASE_MS - super::TICK.as_millis() as u64);

/// How long another node may take to hear of it.
const TELL_MAX: Duration = Duration::from_secs(1);

/// Transactions of one connection that are known to be open; of more only the idle timeout tells.
const USED_MAX: usize = 1024;

/// Since when nothing was heard of an open transaction, in milliseconds since the node started.
#[derive(Debug)]
pub(crate) struct Idle {
    timeout: Duration,
    used_ms: AtomicU64,
    /// One more than when its client went; zero while it is there.
    left_ms: AtomicU64,
}

/// Why it has been long enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// Nothing was asked for so long.
    Idle(Duration),
    /// Nor since its client's connection ended.
    Left(Duration),
}

impl Idle {
    pub(super) fn new(timeout: Duration, now_ms: u64) -> Self {
        Self { timeout, used_ms: AtomicU64::new(now_ms), left_ms: AtomicU64::new(0) }
    }

    /// Something is asked of it: there is a client.
    pub(super) fn asked(&self, now_ms: u64) {
        self.left_ms.store(0, Ordering::Relaxed);
        self.used_ms.store(now_ms, Ordering::Relaxed);
    }

    /// What was asked is done. Its client may have gone meanwhile.
    pub(super) fn answered(&self, now_ms: u64) {
        self.used_ms.store(now_ms, Ordering::Relaxed);
    }

    pub(super) fn leave(&self, now_ms: u64) {
        self.left_ms.store(now_ms + 1, Ordering::Relaxed);
    }

    pub(super) fn over(&self, now_ms: u64) -> Option<Over> {
        let for_long =
            |since_ms: u64, limit: Duration| u128::from(now_ms.saturating_sub(since_ms)) >= limit.as_millis();
        let left_ms = self.left_ms.load(Ordering::Relaxed);
        if left_ms > 0 && for_long(left_ms - 1, LEFT) {
            return Some(Over::Left(LEFT));
        }
        for_long(self.used_ms.load(Ordering::Relaxed), self.timeout).then_some(Over::Idle(self.timeout))
    }
}

/// The transactions that one connection has asked something of and not ended.
#[derive(Debug, Default)]
pub(crate) struct Used(BTreeSet<TxnId>);

impl Used {
    /// Takes note of a request.
    pub(crate) fn note(&mut self, request: &TxnRequest) {
        match request {
            TxnRequest::Op { txn, .. } if self.0.len() < USED_MAX => drop(self.0.insert(*txn)),
            TxnRequest::Commit { txn } | TxnRequest::Abort { txn } => drop(self.0.remove(txn)),
            _ => {}
        }
    }

    /// All of them, once.
    pub(crate) fn take(&mut self) -> Vec<TxnId> {
        std::mem::take(&mut self.0).into_iter().collect()
    }
}

impl Database {
    /// The connection from which more was asked of these transactions has ended.
    pub(crate) fn leave(&self, txns: Vec<TxnId>) {
        let context = self.context();
        let mut of_node: BTreeMap<NodeId, Vec<TxnId>> = BTreeMap::new();
        for txn in txns {
            of_node.entry(txn.node).or_default().push(txn);
        }
        if let Some(here) = of_node.remove(&self.node()) {
            context.transactions.leave_alone(&here, context.uptime_ms());
        }
        // Connections may end with the runtime.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        for (node, txns) in of_node {
            let context = context.clone();
            runtime.spawn(async move {
                let make = |reply: Reply<()>| super::CoordinatorsMessage::Left(txns.clone(), reply);
                // Where it cannot be told, the idle timeout tells.
                let _ = context.hub.call(node, super::NAME, TELL_MAX, 64 * txns.len(), make).await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trandb_cluster::Timestamp;
    use trandb_cluster::txn::{TxnKey, TxnOp};

    #[test]
    fn a_client_that_left_has_less_time_than_one_that_thinks() {
        let idle = Idle::new(Duration::from_secs(30), 0);
        let left = LEFT.as_millis() as u64;
        assert_eq!(idle.over(29_999), None);
        assert_eq!(idle.over(30_000), Some(Over::Idle(Duration::from_secs(30))));
        idle.leave(0);
        assert_eq!(idle.over(left - 1), None);
        assert_eq!(idle.over(left), Some(Over::Left(LEFT)));
        idle.asked(left);
        assert_eq!(idle.over(left + 29_999), None, "it came back");
        idle.leave(left);
        idle.answered(2 * left);
        assert_eq!(idle.over(2 * left), Some(Over::Left(LEFT)), "an answer that nobody takes is no client");
    }

    #[test]
    fn what_a_connection_has_ended_it_does_not_leave() {
        let txn = |number| TxnId { begin: Timestamp(number), node: NodeId(1) };
        let lock = |number| TxnRequest::Op { txn: txn(number), op: TxnOp::Lock(TxnKey::default()) };
        let mut used = Used::default();
        (1..=3).for_each(|number| used.note(&lock(number)));
        used.note(&TxnRequest::Commit { txn: txn(1) });
        used.note(&TxnRequest::Abort { txn: txn(2) });
        used.note(&TxnRequest::Outcome { txn: txn(3) });
        assert_eq!(used.take(), [txn(3)]);
        assert!(used.take().is_empty());
        (0..2 * USED_MAX as u64).for_each(|number| used.note(&lock(number)));
        assert_eq!(used.take().len(), USED_MAX);
    }
}
