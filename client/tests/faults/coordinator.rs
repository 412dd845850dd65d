//! Transactions as a node answers them, over a map: enough to tell what was done once, twice, or not at all.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use trandb_client::{Entry, Error, NodeId, Page, Request, Response, Timestamp, TxnId, TxnOutcome, Versioned};
use trandb_cluster::txn::{TxnOp, TxnRequest, TxnResponse};

/// A clone is the same one.
#[derive(Clone)]
pub(crate) struct Coordinator {
    node: NodeId,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    clock: u64,
    data: BTreeMap<Bytes, Versioned>,
    open: BTreeMap<TxnId, Open>,
    ended: BTreeMap<TxnId, TxnOutcome>,
}

#[derive(Default)]
struct Open {
    /// The version that was read of each key; 0 is none.
    reads: BTreeMap<Bytes, Timestamp>,
    writes: BTreeMap<Bytes, Option<Bytes>>,
}

impl State {
    fn tick(&mut self) -> Timestamp {
        self.clock += 1;
        Timestamp(self.clock)
    }

    fn read(&mut self, txn: TxnId, key: Bytes) -> Option<Versioned> {
        let open = self.open.get_mut(&txn)?;
        if let Some(written) = open.writes.get(&key) {
            return written.clone().map(|value| Versioned { value, version: Timestamp::ZERO });
        }
        let found = self.data.get(&key).cloned();
        open.reads.insert(key, found.as_ref().map_or(Timestamp::ZERO, |found| found.version));
        found
    }
}

impl Coordinator {
    /// One on that node.
    pub(crate) fn new(node: u64) -> Self {
        Self { node: NodeId(node), state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test thread panics with it")
    }

    /// A committed value.
    pub(crate) fn value(&self, key: &str) -> Option<Bytes> {
        self.state().data.get(key.as_bytes()).map(|found| found.value.clone())
    }

    /// Transactions that have not ended.
    pub(crate) fn open(&self) -> usize {
        self.state().open.len()
    }

    /// Aborts all that are open, as a coordinator's death does.
    pub(crate) fn abort_all(&self) {
        let mut state = self.state();
        for txn in std::mem::take(&mut state.open).into_keys() {
            state.ended.insert(txn, TxnOutcome::Aborted("its coordinator was lost".to_owned()));
        }
    }

    /// Answers a request, if it is about transactions.
    pub(crate) fn answer(&self, request: &Request) -> Option<Result<Response, Error>> {
        let Request::Txn(request) = request else { return None };
        Some(self.run(request).map(Response::Txn))
    }

    fn run(&self, request: &TxnRequest) -> Result<TxnResponse, Error> {
        let mut state = self.state();
        match request {
            TxnRequest::Begin { .. } => {
                let txn = TxnId { begin: state.tick(), node: self.node };
                state.open.insert(txn, Open::default());
                Ok(TxnResponse::Begun { txn, read_at: txn.begin })
            }
            TxnRequest::Op { txn, op } => op_of(&mut state, *txn, op),
            TxnRequest::Commit { txn } => commit(&mut state, *txn),
            TxnRequest::Abort { txn } => {
                if state.open.remove(txn).is_some() {
                    state.ended.insert(*txn, TxnOutcome::Aborted("asked for".to_owned()));
                }
                Ok(TxnResponse::Outcome(outcome(&mut state, *txn)))
            }
            TxnRequest::Outcome { txn } => Ok(TxnResponse::Outcome(outcome(&mut state, *txn))),
            TxnRequest::Names { count } => {
                let first = TxnId { begin: state.tick(), node: self.node };
                state.clock += u64::from(*count) - 1;
                Ok(TxnResponse::Names { first, count: *count })
            }
            TxnRequest::Batch(batch) => {
                let txn = batch.id.unwrap_or(TxnId { begin: state.tick(), node: self.node });
                match state.ended.get(&txn) {
                    Some(TxnOutcome::Aborted(reason)) => return Err(Error::conflict(reason.clone())),
                    Some(ended) => return Ok(TxnResponse::Outcome(ended.clone())),
                    None => {}
                }
                state.open.insert(txn, Open::default());
                let results =
                    batch.ops.iter().map(|op| op_of(&mut state, txn, op)).collect::<Result<_, _>>()?;
                match commit(&mut state, txn)? {
                    TxnResponse::Outcome(TxnOutcome::Committed(committed)) => {
                        Ok(TxnResponse::Batch { txn, committed, results })
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

fn op_of(state: &mut State, txn: TxnId, op: &TxnOp) -> Result<TxnResponse, Error> {
    if !state.open.contains_key(&txn) {
        return Err(Error::conflict(format!("transaction {txn} has ended: {:?}", outcome(state, txn))));
    }
    match op {
        TxnOp::Get(key) | TxnOp::GetForUpdate(key) => {
            Ok(TxnResponse::Value(state.read(txn, key.key.clone())))
        }
        TxnOp::Lock(_) => Ok(TxnResponse::Done),
        TxnOp::Write(write) => {
            let open = state.open.get_mut(&txn).expect("looked at above");
            open.writes.insert(write.key.key.clone(), write.value.clone());
            Ok(TxnResponse::Done)
        }
        TxnOp::Scan(scan) => {
            // One key per page.
            let after = scan.cursor.clone().unwrap_or_default();
            let mut found = state.data.range(after.clone()..).filter(|(key, _)| **key > after);
            let entry = |(key, found): (&Bytes, &Versioned)| Entry {
                key: key.clone(),
                value: found.value.clone(),
                version: found.version,
            };
            let entries: Vec<Entry> = found.next().map(entry).into_iter().collect();
            let cursor = found.next().and_then(|_| entries.last().map(|entry| entry.key.clone()));
            Ok(TxnResponse::Page(Page { entries, cursor, at: txn.begin }))
        }
    }
}

fn commit(state: &mut State, txn: TxnId) -> Result<TxnResponse, Error> {
    let Some(open) = state.open.remove(&txn) else {
        return match outcome(state, txn) {
            TxnOutcome::Aborted(reason) => Err(Error::conflict(reason)),
            known => Ok(TxnResponse::Outcome(known)),
        };
    };
    let version = |key| state.data.get(key).map_or(Timestamp::ZERO, |found: &Versioned| found.version);
    if open.reads.iter().any(|(key, read)| version(key) != *read) {
        let reason = "a key that it read was changed".to_owned();
        state.ended.insert(txn, TxnOutcome::Aborted(reason.clone()));
        return Err(Error::conflict(reason));
    }
    let version = state.tick();
    for (key, value) in open.writes {
        match value {
            Some(value) => state.data.insert(key, Versioned { value, version }),
            None => state.data.remove(&key),
        };
    }
    state.ended.insert(txn, TxnOutcome::Committed(version));
    Ok(TxnResponse::Outcome(TxnOutcome::Committed(version)))
}

fn outcome(state: &mut State, txn: TxnId) -> TxnOutcome {
    if state.open.contains_key(&txn) {
        return TxnOutcome::Open;
    }
    let never = || TxnOutcome::Aborted("nobody has heard of it".to_owned());
    state.ended.entry(txn).or_insert_with(never).clone()
}
