//! A database in a map, for the doors' tests.

mod txn;

use super::backend::Backend;
use crate::database::{OpReply, Readiness, RequestContext};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use trandb_cluster::command::{Condition, Write, WriteOutcome};
use trandb_cluster::txn::{TxnId, TxnOutcome, TxnRequest, TxnResponse};
use trandb_cluster::wire::{
    CheckpointReport, ClusterView, Entry, KeyOp, KeyResult, NodeView, Page, ScanRequest, Topology,
    TraceContext, VerifiedPartition, VerifyReport, Versioned,
};
use trandb_cluster::{ClusterId, EncodedKey, Epoch, Error, KeyspaceId, NodeId, PartitionId, Timestamp};

/// One node's database; a clone is the same one.
#[derive(Clone)]
pub(crate) struct FakeDatabase {
    map: Arc<Mutex<BTreeMap<EncodedKey, Versioned>>>,
    transactions: txn::Transactions,
    /// What the last operation came with.
    pub(crate) last_trace: Arc<Mutex<Option<TraceContext>>>,
    /// While false, executions wait.
    pub(crate) gate: watch::Sender<bool>,
    /// Calls of `execute` that have begun.
    pub(crate) calls: Arc<watch::Sender<usize>>,
    /// What every execution answers instead.
    pub(crate) failure: Arc<Mutex<Option<Error>>>,
    /// Transactions whose connection has ended.
    pub(crate) left: Arc<Mutex<Vec<TxnId>>>,
}

impl FakeDatabase {
    pub(crate) fn new() -> Self {
        Self {
            map: Arc::default(),
            transactions: txn::Transactions::default(),
            last_trace: Arc::default(),
            gate: watch::Sender::new(true),
            calls: Arc::new(watch::Sender::new(0)),
            failure: Arc::default(),
            left: Arc::default(),
        }
    }

    /// Waits until `execute` was called `calls` times.
    pub(crate) async fn called(&self, calls: usize) {
        let mut seen = self.calls.subscribe();
        tokio::time::timeout(Duration::from_secs(5), seen.wait_for(|seen| *seen >= calls))
            .await
            .expect("in time")
            .expect("the sender lives");
    }

    /// Aborts an open transaction as a coordinator does that was asked nothing for long.
    pub(crate) fn abort_idle(&self, txn: TxnId) {
        self.transactions.end(txn, TxnOutcome::Aborted("it was idle for 30000 ms".to_owned()));
    }

    fn run(&self, op: KeyOp) -> Result<KeyResult, Error> {
        if let Some(error) = lock(&self.failure).clone() {
            return Err(error);
        }
        let mut map = lock(&self.map);
        Ok(match op {
            KeyOp::Get { key, .. } => KeyResult::Value(map.get(&key).cloned()),
            KeyOp::Exists { key } => KeyResult::Exists(map.get(&key).map(|found| found.version)),
            KeyOp::Write(Write { key, value, condition }) => {
                let current = map.get(&key).map(|found| found.version);
                let holds = match condition {
                    Condition::Any => true,
                    Condition::Absent => current.is_none(),
                    Condition::Present => current.is_some(),
                    Condition::Version(version) => current == Some(version),
                };
                if !holds {
                    return Ok(KeyResult::Write(WriteOutcome::ConditionFailed { current }));
                }
                let newest = map.values().map(|found| found.version).max().unwrap_or(Timestamp(100));
                let version = newest.plus(1);
                match value {
                    Some(value) => map.insert(key, Versioned { value, version }),
                    None => map.remove(&key),
                };
                KeyResult::Write(WriteOutcome::Done { version, previous: current })
            }
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Backend for FakeDatabase {
    fn keyspace(&self, name: Option<&str>) -> Result<KeyspaceId, Error> {
        match name {
            None | Some("default") => Ok(KeyspaceId::DEFAULT),
            Some("other") => Ok(KeyspaceId(2)),
            Some("panic") => panic!("asked to"),
            Some(name) => Err(Error::not_found(format!("no keyspace {name:?}"))),
        }
    }

    fn execute(&self, ops: Vec<KeyOp>, context: RequestContext) -> BoxFuture<'static, Vec<OpReply>> {
        let this = self.clone();
        Box::pin(async move {
            assert!(context.deadline > tokio::time::Instant::now(), "the deadline is over before it begins");
            *lock(&this.last_trace) = context.trace;
            this.calls.send_modify(|calls| *calls += 1);
            this.gate.subscribe().wait_for(|open| *open).await.expect("the sender lives");
            ops.into_iter().map(|op| OpReply { result: this.run(op), forwarded: false }).collect()
        })
    }

    fn scan(&self, scan: ScanRequest, _context: RequestContext) -> BoxFuture<'static, Result<Page, Error>> {
        let map = lock(&self.map);
        let after = scan.cursor.unwrap_or_default();
        let mut entries = map
            .iter()
            .map(|(key, found)| (key.user_key(), found))
            .filter(|(key, _)| key.starts_with(&scan.prefix) && *key > after)
            .map(|(key, found)| Entry { key, value: found.value.clone(), version: found.version });
        let page: Vec<Entry> = entries.by_ref().take(scan.limit as usize).collect();
        let cursor = entries.next().and_then(|_| page.last().map(|entry| entry.key.clone()));
        Box::pin(std::future::ready(Ok(Page { entries: page, cursor, at: Timestamp(7) })))
    }

    fn txn(
        &self,
        request: TxnRequest,
        context: RequestContext,
    ) -> BoxFuture<'static, Result<TxnResponse, Error>> {
        let this = self.clone();
        Box::pin(async move {
            *lock(&this.last_trace) = context.trace;
            this.calls.send_modify(|calls| *calls += 1);
            this.gate.subscribe().wait_for(|open| *open).await.expect("the sender lives");
            if let Some(error) = lock(&this.failure).clone() {
                return Err(error);
            }
            this.transactions.run(&this.map, request, context.deadline).await
        })
    }

    fn leave(&self, txns: Vec<TxnId>) {
        lock(&self.left).extend(txns);
    }

    fn checkpoint(&self, _context: RequestContext) -> BoxFuture<'static, Result<CheckpointReport, Error>> {
        let at = |node, reached| (PartitionId(1), NodeId(node), reached);
        let replicas = vec![at(1, Ok(7)), at(2, Err("down".to_owned()))];
        Box::pin(std::future::ready(Ok(CheckpointReport { complete: false, replicas })))
    }

    fn verify(&self, _context: RequestContext) -> BoxFuture<'static, Result<VerifyReport, Error>> {
        let partition = VerifiedPartition {
            id: PartitionId(1),
            applied: 9,
            replicas: vec![(NodeId(1), Ok("00ff".to_owned())), (NodeId(2), Err("down".to_owned()))],
            keys: 3,
            identical: false,
        };
        Box::pin(std::future::ready(Ok(VerifyReport { identical: false, partitions: vec![partition] })))
    }

    fn topology(&self) -> Topology {
        Topology { epoch: Epoch(4), ..Topology::default() }
    }

    fn cluster_view(&self) -> ClusterView {
        let node = NodeView {
            id: NodeId(1),
            state: "up".to_owned(),
            peer: "127.0.0.1:7401".to_owned(),
            http: "127.0.0.1:7402".to_owned(),
            native: "127.0.0.1:7400".to_owned(),
            leads: 17,
        };
        ClusterView { cluster_id: Some(ClusterId(10)), nodes: vec![node], ..ClusterView::default() }
    }

    fn readiness(&self) -> Readiness {
        let failure = lock(&self.failure);
        Readiness {
            ready: failure.is_none(),
            reasons: failure.iter().map(|error| error.message.clone()).collect(),
            details: vec!["all is made up".to_owned()],
        }
    }

    fn node(&self) -> NodeId {
        NodeId(1)
    }

    fn cluster_id(&self) -> Option<ClusterId> {
        Some(ClusterId(10))
    }
}

/// A key or value of so many bytes.
pub(crate) fn filled(bytes: usize) -> Bytes {
    Bytes::from(vec![b'x'; bytes])
}
