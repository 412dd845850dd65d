//! Transactions over the map, small but honest: snapshots, read-your-writes, validation at commit, key locks, and
//! outcomes.

use super::lock;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use trandb_cluster::command::Condition;
use trandb_cluster::limits::TXN_BATCH_RESULT_BYTES_MAX;
use trandb_cluster::txn::{
    Isolation, TxnBatch, TxnId, TxnKey, TxnOp, TxnOutcome, TxnRequest, TxnResponse, TxnWrite,
};
use trandb_cluster::wire::{Entry, Page, ScanRequest, Versioned};
use trandb_cluster::{EncodedKey, Error, KeyspaceId, NodeId, Timestamp};

type Map = BTreeMap<EncodedKey, Versioned>;

#[derive(Clone)]
pub(super) struct Transactions {
    state: Arc<Mutex<State>>,
    /// Moves whenever locks are given back.
    released: Arc<watch::Sender<u64>>,
}

impl Default for Transactions {
    fn default() -> Self {
        Self { state: Arc::default(), released: Arc::new(watch::Sender::new(0)) }
    }
}

#[derive(Default)]
struct State {
    begun: u64,
    open: BTreeMap<TxnId, Open>,
    ended: BTreeMap<TxnId, TxnOutcome>,
    locks: BTreeMap<EncodedKey, TxnId>,
}

struct Open {
    isolation: Isolation,
    read_only: bool,
    snapshot: Map,
    read_at: Timestamp,
    reads: BTreeSet<EncodedKey>,
    /// Ranges read, as prefixes.
    ranges: Vec<EncodedKey>,
    writes: BTreeMap<EncodedKey, Option<Bytes>>,
}

impl Transactions {
    pub(super) async fn run(
        &self,
        map: &Mutex<Map>,
        request: TxnRequest,
        deadline: Instant,
    ) -> Result<TxnResponse, Error> {
        match request {
            TxnRequest::Begin { isolation, read_only, .. } => {
                let (txn, read_at) = self.begin(map, isolation, read_only);
                Ok(TxnResponse::Begun { txn, read_at })
            }
            TxnRequest::Op { txn, op } => self.op(map, txn, op, deadline).await,
            TxnRequest::Commit { txn } => Ok(TxnResponse::Outcome(self.commit(map, txn)?)),
            TxnRequest::Abort { txn } => {
                if lock(&self.state).open.contains_key(&txn) {
                    self.end(txn, TxnOutcome::Aborted("the client asked for it".to_owned()));
                }
                Ok(TxnResponse::Outcome(self.outcome(txn)))
            }
            TxnRequest::Outcome { txn } => Ok(TxnResponse::Outcome(self.outcome(txn))),
            TxnRequest::Names { count } => {
                let mut state = lock(&self.state);
                state.begun += u64::from(count);
                let begin = Timestamp(1001 + state.begun - u64::from(count));
                Ok(TxnResponse::Names { first: TxnId { begin, node: NodeId(1) }, count })
            }
            TxnRequest::Batch(TxnBatch { id: Some(txn), .. })
                if lock(&self.state).ended.contains_key(&txn) =>
            {
                Ok(TxnResponse::Outcome(self.outcome(txn)))
            }
            TxnRequest::Batch(TxnBatch { id, isolation, ops, .. }) => {
                let (txn, _) = self.begin_as(map, id, isolation, false);
                let (mut results, mut bytes) = (Vec::new(), 0);
                for op in ops {
                    let result = self.op(map, txn, op, deadline).await.and_then(|result| {
                        bytes += result.weight();
                        match bytes > TXN_BATCH_RESULT_BYTES_MAX {
                            true => Err(Error::too_large("the batch's results take too many bytes")),
                            false => Ok(result),
                        }
                    });
                    match result {
                        Ok(result) => results.push(result),
                        Err(error) => {
                            self.end(txn, TxnOutcome::Aborted(error.to_string()));
                            return Err(error);
                        }
                    }
                }
                match self.commit(map, txn)? {
                    TxnOutcome::Committed(committed) => Ok(TxnResponse::Batch { txn, committed, results }),
                    other => Err(Error::internal(format!("a commit came out as {other:?}"))),
                }
            }
        }
    }

    fn begin(&self, map: &Mutex<Map>, isolation: Isolation, read_only: bool) -> (TxnId, Timestamp) {
        self.begin_as(map, None, isolation, read_only)
    }

    fn begin_as(
        &self,
        map: &Mutex<Map>,
        id: Option<TxnId>,
        isolation: Isolation,
        read_only: bool,
    ) -> (TxnId, Timestamp) {
        let mut state = lock(&self.state);
        state.begun += 1;
        let txn = id.unwrap_or(TxnId { begin: Timestamp(1000 + state.begun), node: NodeId(1) });
        let snapshot = lock(map).clone();
        let open = Open {
            isolation,
            read_only,
            snapshot,
            read_at: txn.begin,
            reads: BTreeSet::new(),
            ranges: Vec::new(),
            writes: BTreeMap::new(),
        };
        state.open.insert(txn, open);
        (txn, txn.begin)
    }

    async fn op(
        &self,
        map: &Mutex<Map>,
        txn: TxnId,
        op: TxnOp,
        deadline: Instant,
    ) -> Result<TxnResponse, Error> {
        let locked = match &op {
            TxnOp::GetForUpdate(key) | TxnOp::Lock(key) => Some(encoded(key)),
            TxnOp::Get(_) | TxnOp::Write(_) | TxnOp::Scan(_) => None,
        };
        if let Some(key) = &locked {
            self.lock(txn, key, deadline).await?;
        }
        let mut state = lock(&self.state);
        let outcome = state.ended.get(&txn).cloned();
        let Some(open) = state.open.get_mut(&txn) else { return Err(ended(txn, outcome)) };
        if locked.is_some() || open.isolation == Isolation::ReadCommitted {
            open.snapshot = lock(map).clone();
        }
        match op {
            TxnOp::Get(key) | TxnOp::GetForUpdate(key) => {
                let key = encoded(&key);
                open.reads.insert(key.clone());
                Ok(TxnResponse::Value(open.get(&key)))
            }
            TxnOp::Lock(_) => Ok(TxnResponse::Done),
            TxnOp::Write(TxnWrite { key, value, condition }) => {
                if open.read_only {
                    return Err(Error::invalid("the transaction is read-only"));
                }
                let key = encoded(&key);
                let current = open.get(&key).map(|found| found.version);
                let holds = match condition {
                    Condition::Any => true,
                    Condition::Absent => current.is_none(),
                    Condition::Present => current.is_some(),
                    Condition::Version(version) => current == Some(version),
                };
                if !holds {
                    return Err(super::super::rules::condition_failed(current));
                }
                open.writes.insert(key, value);
                Ok(TxnResponse::Done)
            }
            TxnOp::Scan(scan) => Ok(TxnResponse::Page(open.scan(&scan))),
        }
    }

    async fn lock(&self, txn: TxnId, key: &EncodedKey, deadline: Instant) -> Result<(), Error> {
        let mut released = self.released.subscribe();
        loop {
            released.borrow_and_update();
            {
                let mut state = lock(&self.state);
                if !state.open.contains_key(&txn) {
                    return Err(ended(txn, state.ended.get(&txn).cloned()));
                }
                if *state.locks.entry(key.clone()).or_insert(txn) == txn {
                    return Ok(());
                }
            }
            if timeout_at(deadline, released.changed()).await.is_err() {
                return Err(Error::unavailable("the key is locked by another transaction"));
            }
        }
    }

    fn commit(&self, map: &Mutex<Map>, txn: TxnId) -> Result<TxnOutcome, Error> {
        {
            let state = lock(&self.state);
            let Some(open) = state.open.get(&txn) else {
                return match state.ended.get(&txn) {
                    Some(committed @ TxnOutcome::Committed(_)) => Ok(committed.clone()),
                    other => Err(ended(txn, other.cloned())),
                };
            };
            let mut map = lock(map);
            if let Some(reason) = open.stale(&map) {
                drop((map, state));
                self.end(txn, TxnOutcome::Aborted(reason.clone()));
                return Err(Error::conflict(reason));
            }
            let newest = map.values().map(|found| found.version).max().unwrap_or(txn.begin);
            let version = newest.max(txn.begin).plus(1000);
            for (key, value) in &open.writes {
                match value.clone() {
                    Some(value) => map.insert(key.clone(), Versioned { value, version }),
                    None => map.remove(key),
                };
            }
            drop((map, state));
            self.end(txn, TxnOutcome::Committed(version));
        }
        Ok(self.outcome(txn))
    }

    pub(super) fn end(&self, txn: TxnId, outcome: TxnOutcome) {
        {
            let mut state = lock(&self.state);
            state.open.remove(&txn);
            state.ended.insert(txn, outcome);
            state.locks.retain(|_, holder| *holder != txn);
        }
        self.released.send_modify(|count| *count += 1);
    }

    fn outcome(&self, txn: TxnId) -> TxnOutcome {
        let mut state = lock(&self.state);
        if state.open.contains_key(&txn) {
            return TxnOutcome::Open;
        }
        let never = || TxnOutcome::Aborted("nobody has heard of it".to_owned());
        state.ended.entry(txn).or_insert_with(never).clone()
    }
}

impl Open {
    fn get(&self, key: &EncodedKey) -> Option<Versioned> {
        match self.writes.get(key) {
            Some(value) => value.clone().map(|value| Versioned { value, version: Timestamp::ZERO }),
            None => self.snapshot.get(key).cloned(),
        }
    }

    fn scan(&mut self, scan: &ScanRequest) -> Page {
        let keyspace = keyspace(scan.keyspace.as_deref());
        let prefix = EncodedKey::from_parts(keyspace, &scan.prefix);
        self.ranges.push(prefix.clone());
        let after = scan.cursor.clone().unwrap_or_default();
        let keys: BTreeSet<&EncodedKey> = self.snapshot.keys().chain(self.writes.keys()).collect();
        let mut entries = keys
            .into_iter()
            .filter(|key| key.as_bytes().starts_with(prefix.as_bytes()) && key.user_key() > after)
            .filter_map(|key| {
                let Versioned { value, version } = self.get(key)?;
                Some(Entry { key: key.user_key(), value, version })
            });
        let limit = if scan.limit == 0 { 100 } else { scan.limit };
        let page: Vec<Entry> = entries.by_ref().take(limit as usize).collect();
        let cursor = entries.next().and_then(|_| page.last().map(|entry| entry.key.clone()));
        Page { entries: page, cursor, at: self.read_at }
    }

    /// Why it may not commit: what it wrote, or for serializable also what it read, has changed.
    fn stale(&self, map: &Map) -> Option<String> {
        let changed = |key: &EncodedKey| {
            map.get(key).map(|found| found.version) != self.snapshot.get(key).map(|found| found.version)
        };
        if self.read_only || self.isolation == Isolation::ReadCommitted {
            return None;
        }
        if self.writes.keys().any(changed) {
            return Some("a key that it wrote was changed".to_owned());
        }
        let in_ranges =
            |key: &EncodedKey| self.ranges.iter().any(|prefix| key.as_bytes().starts_with(prefix.as_bytes()));
        let scanned = || map.keys().chain(self.snapshot.keys()).filter(|key| in_ranges(key));
        let read_changed = self.reads.iter().any(changed) || scanned().any(changed);
        (self.isolation == Isolation::Serializable && read_changed)
            .then(|| "a key that it read was changed".to_owned())
    }
}

fn ended(txn: TxnId, outcome: Option<TxnOutcome>) -> Error {
    match outcome {
        Some(TxnOutcome::Aborted(reason)) => {
            Error::conflict(format!("transaction {txn} was aborted: {reason}"))
        }
        Some(_) => Error::invalid(format!("transaction {txn} has ended")),
        None => Error::not_found(format!("no transaction {txn}")),
    }
}

fn keyspace(name: Option<&str>) -> KeyspaceId {
    if name == Some("other") { KeyspaceId(2) } else { KeyspaceId::DEFAULT }
}

fn encoded(key: &TxnKey) -> EncodedKey {
    EncodedKey::from_parts(keyspace(key.keyspace.as_deref()), &key.key)
}
