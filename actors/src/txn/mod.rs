//! Coordinators: one actor per open transaction, on the node where it began, and the supervisor that other nodes reach
//! them through.
//!
//! A coordinator is not replicated. What it holds are reads and buffered writes, which die with it; what counts once the
//! commit has begun lies in the partitions' logs, where anyone can finish or abort it. A transaction that has ended is
//! remembered for a while, so that its end can be asked for again; later the partitions know.

mod batch;
mod commit;
mod left;
mod locks;
mod ops;
mod outcome;
mod session;
mod trace;

use crate::context::NodeContext;
use crate::database::{Database, RequestContext};
pub(crate) use left::Used;
pub use locks::DeadlockCall;
pub(crate) use locks::find_deadlocks;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use serde::{Deserialize, Serialize};
pub(crate) use session::{SessionMessage, begin};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::txn::{Names, TxnOutcome, TxnRequest, TxnResponse};
use trandb_cluster::wire::TraceContext;
use trandb_cluster::{Error, Timestamp, TxnId};
use trandb_runtime::pace::pace;
use trandb_runtime::rpc::Reply;

/// Under which name a node's coordinators are reached by others.
pub(crate) const NAME: &str = "txn";

/// Ended transactions that a node remembers, about 100 bytes each; the oldest go first.
const ENDED_MAX: usize = 65_536;

/// How often idle transactions are looked for.
const TICK: Duration = Duration::from_millis(500);

/// Requests of other nodes that may be under way at once; beyond it `overloaded`.
const FROM_PEERS_MAX: usize = 16_384;

/// What the supervisor is sent. The first comes from other nodes.
#[derive(Debug)]
pub enum CoordinatorsMessage {
    /// A request about a transaction that began on this node.
    Ask(TxnAsk, Reply<Result<TxnResponse, Error>>),
    /// The clients of these transactions of this node are gone, as far as another node knows.
    Left(Vec<TxnId>, Reply<()>),
    /// What another node says about waits for locks.
    Deadlock(DeadlockCall, Reply<()>),
    /// Look for idle transactions, and keep the locks of the others alive.
    Tick,
}

trandb_runtime::wire_message! {
    CoordinatorsMessage {
        call Ask(TxnAsk);
        call Left(Vec<TxnId>);
        call Deadlock(DeadlockCall);
    }
}

/// A request that another node took in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TxnAsk {
    /// What is asked. Shared, since it may be sent again.
    pub request: Arc<TxnRequest>,
    /// How long its client waits.
    pub within_ms: u64,
    /// The span that asked.
    #[serde(default)]
    pub trace: Option<TraceContext>,
}

/// A transaction that is open here.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(crate) actor: ActorRef<SessionMessage>,
    pub(crate) idle: Arc<left::Idle>,
}

/// The transactions of this node: those that are open, and the last that have ended.
#[derive(Debug, Default)]
pub struct Transactions {
    state: Mutex<State>,
    locking: Mutex<locks::Locking>,
    names: Mutex<Names>,
    from_peers: std::sync::atomic::AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    open: BTreeMap<TxnId, Handle>,
    /// Begun, and not in `open` yet.
    beginning: usize,
    /// Named batches that run. Their requests are bounded where they come in.
    batches: BTreeSet<TxnId>,
    ended: BTreeMap<TxnId, TxnOutcome>,
    /// In the order in which they ended.
    order: VecDeque<TxnId>,
    /// The youngest of those that had to make room.
    forgotten: Timestamp,
    /// Some point in time since which this list has been kept.
    since: Option<Timestamp>,
}

/// What a node knows of one of its transactions.
pub(crate) enum Known {
    Open(Handle),
    /// It is a batch that runs.
    Batch,
    Ended(TxnOutcome),
    Nothing,
}

impl Transactions {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    /// Names for those that read nothing.
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().expect("no holder of the lock panics")
    }

    pub(crate) fn find(&self, txn: TxnId) -> Known {
        let state = self.lock();
        if let Some(handle) = state.open.get(&txn) {
            return Known::Open(handle.clone());
        }
        if state.batches.contains(&txn) {
            return Known::Batch;
        }
        state.ended.get(&txn).map_or(Known::Nothing, |outcome| Known::Ended(outcome.clone()))
    }

    /// Puts a named batch on the list of what runs; unless it has ended, then answers how.
    fn enter(&self, txn: TxnId) -> Result<Option<TxnOutcome>, Error> {
        let mut state = self.lock();
        if state.open.contains_key(&txn) {
            return Err(Error::invalid(format!("{txn} is an open transaction, and no name for a batch")));
        }
        if let Some(outcome) = state.ended.get(&txn) {
            return Ok(Some(outcome.clone()));
        }
        if !state.batches.insert(txn) {
            return Err(Error::unknown(format!("the batch {txn} is being done")));
        }
        Ok(None)
    }

    /// Whether a named batch that is on no list may have run here all the same, before the node was restarted or so
    /// many others ended; it is `now` now.
    fn may_have_run(&self, txn: TxnId, now: Timestamp) -> bool {
        let mut state = self.lock();
        let since = *state.since.get_or_insert(now);
        txn.begin <= since.max(state.forgotten)
    }

    /// Takes it off.
    fn leave(&self, txn: TxnId) {
        self.lock().batches.remove(&txn);
    }

    /// Makes room for one more.
    fn reserve(&self, max: usize) -> Result<(), Error> {
        let mut state = self.lock();
        if state.open.len() + state.beginning >= max {
            return Err(Error::overloaded(format!("{max} transactions are open on this node, the limit")));
        }
        state.beginning += 1;
        Ok(())
    }

    /// The room that was made is used, or not.
    fn begun(&self, txn: Option<(TxnId, Handle)>) {
        let mut state = self.lock();
        state.beginning -= 1;
        state.open.extend(txn);
        metrics::gauge!("trandb_txn_open").set(state.open.len() as f64);
    }

    fn end(&self, txn: TxnId, outcome: Option<TxnOutcome>) {
        let mut state = self.lock();
        state.open.remove(&txn);
        metrics::gauge!("trandb_txn_open").set(state.open.len() as f64);
        let Some(outcome) = outcome else { return };
        if state.ended.insert(txn, outcome).is_none() {
            state.order.push_back(txn);
            if state.order.len() > ENDED_MAX
                && let Some(oldest) = state.order.pop_front()
            {
                state.ended.remove(&oldest);
                state.forgotten = state.forgotten.max(oldest.begin);
            }
        }
    }

    fn idle(&self, now_ms: u64) -> Vec<Handle> {
        let state = self.lock();
        state.open.values().filter(|handle| handle.idle.over(now_ms).is_some()).cloned().collect()
    }

    /// The clients of these are gone, unless more is heard of them.
    fn leave_alone(&self, txns: &[TxnId], now_ms: u64) {
        let state = self.lock();
        for handle in txns.iter().filter_map(|txn| state.open.get(txn)) {
            handle.idle.leave(now_ms);
        }
    }
}

/// The supervisor of a node's coordinators. See the module.
pub struct CoordinatorsActor;

impl Actor for CoordinatorsActor {
    type Msg = CoordinatorsMessage;
    type State = Arc<NodeContext>;
    type Arguments = Arc<NodeContext>;

    async fn pre_start(
        &self,
        me: ActorRef<CoordinatorsMessage>,
        context: Arc<NodeContext>,
    ) -> Result<Arc<NodeContext>, ActorProcessingErr> {
        me.send_interval(TICK, || CoordinatorsMessage::Tick);
        Ok(context)
    }

    async fn handle(
        &self,
        _me: ActorRef<CoordinatorsMessage>,
        message: CoordinatorsMessage,
        context: &mut Arc<NodeContext>,
    ) -> Result<(), ActorProcessingErr> {
        pace(context.node, "coordinators").await;
        match message {
            CoordinatorsMessage::Ask(ask, reply) => answer_peer(context.clone(), ask, reply),
            CoordinatorsMessage::Left(txns, reply) => {
                context.transactions.leave_alone(&txns, context.uptime_ms());
                reply.send(());
            }
            CoordinatorsMessage::Deadlock(call, reply) => {
                find_deadlocks(context, call);
                reply.send(());
            }
            CoordinatorsMessage::Tick => {
                locks::keep_locks(context);
                for handle in context.transactions.idle(context.uptime_ms()) {
                    // One that has just ended needs no more.
                    let _ = handle.actor.cast(SessionMessage::Idle);
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _me: ActorRef<CoordinatorsMessage>,
        event: SupervisionEvent,
        _context: &mut Arc<NodeContext>,
    ) -> Result<(), ActorProcessingErr> {
        // One that panicked has left the list with what it owned: what it had prepared is aborted by whoever meets it.
        if let SupervisionEvent::ActorFailed(_, error) = event {
            tracing::error!(%error, "a transaction's coordinator died");
        }
        Ok(())
    }
}

/// Answers a request of another node beside the mailbox, which must not wait for it.
fn answer_peer(context: Arc<NodeContext>, ask: TxnAsk, reply: Reply<Result<TxnResponse, Error>>) {
    let under_way = &context.transactions.from_peers;
    if under_way.fetch_add(1, Ordering::Relaxed) >= FROM_PEERS_MAX {
        under_way.fetch_sub(1, Ordering::Relaxed);
        reply.send(Err(Error::overloaded(format!("{FROM_PEERS_MAX} requests of peers, the limit"))));
        return;
    }
    tokio::spawn(async move {
        let deadline = Instant::now() + Duration::from_millis(ask.within_ms);
        let request = RequestContext { deadline, trace: ask.trace };
        let answer = Database::new(context.clone()).txn_here(&ask.request, &request).await;
        context.transactions.from_peers.fetch_sub(1, Ordering::Relaxed);
        reply.send(answer);
    });
}
