//! What every actor of a node may use. Nothing in here is global: several nodes live in one process in the
//! simulation.

use crate::alarms::Alarms;
use crate::gauges::Gauges;
use crate::large::LargeWrites;
use crate::memory::Memory;
use crate::node::Fatal;
use crate::oracle::OracleMessage;
use crate::partition::{PartitionMessage, ReplicaState};
use crate::replica::ExpectedSystem;
use crate::router::{RouterMessage, Routes};
use crate::txn::{CoordinatorsMessage, Transactions};
use arc_swap::{ArcSwap, ArcSwapOption};
use ractor::ActorRef;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use trandb_cluster::system::SystemState;
use trandb_cluster::{Error, InstanceId, NodeId, PartitionId};
use trandb_runtime::clock::Clock;
use trandb_runtime::config::Config;
use trandb_runtime::engine;
use trandb_runtime::peer::PeerHub;
use trandb_runtime::planted::{Planted, is_planted};
use trandb_runtime::raft::{GivenAway, Heartbeats, LogSink, Raft, RaftMessage, Snapshots};
use trandb_runtime::random::Random;
use trandb_runtime::wal::{WalError, WalReader};

/// A node's parts and settings.
pub struct NodeContext {
    /// This node.
    pub node: NodeId,
    /// Its data directory's own number.
    pub instance: InstanceId,
    /// Its settings.
    pub config: Arc<Config>,
    /// Its links to other nodes.
    pub hub: PeerHub,
    /// Its groups' heartbeats to them.
    pub heartbeats: Heartbeats,
    /// The states that its groups send to them.
    pub snapshots: Snapshots,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Random numbers.
    pub random: Random,
    /// The storage engine, on its own thread.
    pub engine: engine::Worker,
    /// The write-ahead log's actor.
    pub log: Arc<dyn LogSink>,
    /// Reads from the write-ahead log.
    pub log_reader: WalReader,
    /// Why the write-ahead log waits for room on its disk, as long as it does.
    pub log_full: watch::Receiver<Option<WalError>>,
    /// When the process started.
    pub started: Instant,
    /// How long after that it votes for nobody, since it may have promised so before.
    pub owed_lease: Duration,
    /// Held by the one checkpoint that is being written.
    pub checkpoint_turn: Semaphore,
    /// Turns and pace of large values that are written through this node.
    pub large_writes: LargeWrites,
    /// What may be put here yet.
    pub memory: Memory,
    /// The transactions that began here.
    pub transactions: Transactions,
    /// Gauges and counters.
    pub gauges: Gauges,
    /// What is wrong with replicas.
    pub alarms: Alarms,
    /// Why the node can go on no more, once that is so.
    pub(crate) failed: watch::Sender<Option<Fatal>>,
    pub(crate) stopping: AtomicBool,
    /// The system group's state as applied here.
    pub(crate) system: watch::Sender<Arc<SystemState>>,
    /// The same as the log had it when the node started, until it shows what became of that.
    pub(crate) expected_system: Arc<ArcSwapOption<ExpectedSystem>>,
    /// Where keys live, as the router last published it.
    pub(crate) routes: watch::Sender<Arc<Routes>>,
    /// The partitions that have a replica here.
    pub(crate) local: ArcSwap<BTreeMap<PartitionId, Arc<ReplicaState>>>,
    pub(crate) system_raft: ArcSwap<Option<Raft>>,
    /// Whether the system group was handed over in the term that it is led in here.
    pub(crate) system_given_away: GivenAway,
    pub(crate) system_group: ArcSwap<Option<ActorRef<RaftMessage>>>,
    pub(crate) oracle: ArcSwap<Option<ActorRef<OracleMessage>>>,
    pub(crate) router: ArcSwap<Option<ActorRef<RouterMessage>>>,
    pub(crate) coordinators: ArcSwap<Option<ActorRef<CoordinatorsMessage>>>,
}

impl NodeContext {
    /// For how long after it heard from a leader this node votes for nobody else, and how long what has to do with that takes.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.config.raft.election_max_ms)
    }

    /// How long this node's own lease lasts where it leads: as long as all others keep to it. Their settings may be others.
    pub fn granted_lease(&self) -> Duration {
        if is_planted(Planted::LeaseOfOwn) { self.lease() } else { self.hub.shortest_lease() }
    }

    /// Milliseconds since the node started.
    pub(crate) fn uptime_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Whether this node is handing over and will stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Why this node can write nothing now; nothing is promised that is not written.
    pub(crate) fn no_room(&self) -> Option<Error> {
        let full = self.log_full.borrow();
        full.as_ref().map(|why| Error::unavailable(format!("{} takes no writes: {why}", self.node)))
    }

    /// Whether leaders are in good hands here.
    pub(crate) fn may_lead(&self) -> bool {
        !self.is_stopping() && self.log_full.borrow().is_none()
    }

    /// Says why the node can go on no more. The first reason is the one that counts: those after it are its consequences.
    pub(crate) fn give_up(&self, why: Fatal) {
        self.failed.send_if_modified(|first| {
            let news = first.is_none();
            first.get_or_insert(why);
            news
        });
    }

    /// From now on this node is not ready, and nobody hands it anything.
    pub fn begin_stopping(&self) {
        self.stopping.store(true, Ordering::Release);
        self.tell_router(RouterMessage::Publish);
    }

    /// The system group's state as applied here.
    pub fn system(&self) -> Arc<SystemState> {
        self.system.borrow().clone()
    }

    /// By which peers are looked for: that state, or what is to be expected of this node's log while that is newer. The state
    /// begins with the last checkpoint and is led on by the group's leader, who may be where only the log says.
    pub(crate) fn system_to_reach(&self) -> Arc<SystemState> {
        let system = self.system();
        match &*self.expected_system.load() {
            Some(expected) if expected.state.epoch > system.epoch && !is_planted(Planted::LogOverlooked) => {
                Arc::new(expected.state.clone())
            }
            _ => system,
        }
    }

    /// The system group's Raft, once it runs.
    pub fn system_raft(&self) -> Option<Raft> {
        (**self.system_raft.load()).clone()
    }

    /// The Raft of a group with a replica here.
    pub(crate) fn raft(&self, id: PartitionId) -> Option<Raft> {
        if id.is_system() {
            return self.system_raft();
        }
        self.local.load().get(&id)?.raft()
    }

    /// Who leads a group, as far as this node has heard.
    pub fn leader(&self, group: PartitionId) -> Option<NodeId> {
        self.routes.borrow().leader(group)
    }

    /// The actor of a partition with a replica here.
    pub fn partition(&self, id: PartitionId) -> Option<ActorRef<PartitionMessage>> {
        self.local.load().get(&id)?.actor()
    }

    /// This node's replica of a partition.
    pub(crate) fn replica(&self, id: PartitionId) -> Option<Arc<ReplicaState>> {
        self.local.load().get(&id).cloned()
    }

    /// The actor of a group with a replica here.
    pub fn group(&self, id: PartitionId) -> Option<ActorRef<RaftMessage>> {
        if id.is_system() {
            return self.system_group.load().as_ref().clone();
        }
        self.local.load().get(&id)?.group()
    }

    /// Sends to this node's oracle.
    ///
    /// # Errors
    /// `unavailable` while the node starts or stops.
    pub fn oracle(&self, message: OracleMessage) -> Result<(), Error> {
        let stopped = || Error::unavailable("the node's oracle is not running");
        let oracle = self.oracle.load();
        oracle.as_ref().as_ref().ok_or_else(stopped)?.cast(message).map_err(|_| stopped())
    }

    /// Sends to this node's router. One that has died learns everything anew when it starts.
    pub fn tell_router(&self, message: RouterMessage) {
        if let Some(router) = self.router.load().as_ref() {
            let _ = router.cast(message);
        }
    }

    /// The full name of an actor of this node; remotable ones are found by it.
    pub fn actor_name(&self, short: &str) -> String {
        format!("{}/{short}", self.node)
    }
}
