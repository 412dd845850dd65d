//! A node, from its data directory to its open doors and back.
//!
//! ```text
//! lock the directory ─▶ recover the log ─▶ bind all doors ─▶ who am I? ─▶ actors ─▶ serve
//!                                                             │ known: go on
//!                                                             │ no seeds: found a cluster of one
//!                                                             └ seeds: ask them, found or join
//! ```
//!
//! Every resource is taken before anything is promised: a port or directory in use is refused with its own
//! exit code, and nothing is left behind.

mod error;
mod forming;
mod handover;
#[cfg(test)]
mod leftover_tests;
mod members;
mod options;
mod room;
#[cfg(test)]
mod room_tests;
mod root;
mod storage;

use handover::hand_over;

pub use error::{Fatal, StartError};
pub use options::{Doors, NodeOptions, StorageDoor};

use crate::alarms::Alarms;
use crate::context::NodeContext;
use crate::database::Database;
use crate::gateway::{GatewayOptions, HttpOptions, serve_http, serve_native};
use crate::gauges::Gauges;
use crate::large::{self, LargeWrites};
use crate::memory::{self, Memory};
use crate::replica::SystemMachine;
use crate::router::Routes;
use arc_swap::ArcSwap;
use forming::{Formed, Receptionist};
use ractor::ActorRef;
use root::{RootArguments, RootMessage};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use storage::Storage;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trandb_cluster::forming::normalize;
use trandb_cluster::system::{NodeAddresses, NodeInfo};
use trandb_cluster::{InstanceId, NodeId};
use trandb_runtime::net::Listener;
use trandb_runtime::peer::{PeerHub, PeerOptions};
use trandb_runtime::raft::Heartbeats;

/// Where a node's doors are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Native protocol.
    pub native: String,
    /// Peers.
    pub peer: String,
    /// HTTP.
    pub http: String,
}

/// A node that serves.
pub struct RunningNode {
    context: Arc<NodeContext>,
    database: Database,
    addresses: Addresses,
    root: ActorRef<RootMessage>,
    failed: watch::Receiver<Option<Fatal>>,
    doors: Vec<JoinHandle<()>>,
    chores: Vec<JoinHandle<()>>,
    closing: CancellationToken,
    // Held for its lock; the last thing to go.
    _storage: Storage,
}

/// Starts a node; it is listening on all doors when this returns, and a member of its cluster, which may take
/// as long as its seeds take to be started.
///
/// # Errors
/// See [`StartError`]; nothing of the node is left running.
pub async fn start(options: NodeOptions) -> Result<RunningNode, StartError> {
    let started = Instant::now();
    let config = Arc::new(options.config);
    let memory_bytes = config.memory.limit.of(options.memory_bytes);
    let mut storage =
        Storage::open(&config, options.storage, options.conversion, &options.random, memory_bytes).await?;
    let native = bind(&*options.net, "native", &config.native.addr).await?;
    let peer = bind(&*options.net, "peer", &config.peer.addr).await?;
    let http = bind(&*options.net, "http", &config.http.addr).await?;
    let addresses = Addresses {
        native: reachable(&config.node.advertise, &*native)?,
        peer: reachable(&config.node.advertise, &*peer)?,
        http: reachable(&config.node.advertise, &*http)?,
    };

    let identity = *storage.identity();
    let instance = identity.instance;
    let seeds = normalize(&config.node.seeds);
    let receptionist = Arc::new(Receptionist::default());
    let hub = {
        let (receptionist, seeds) = (receptionist.clone(), seeds.clone());
        PeerHub::start(PeerOptions {
            net: options.net.clone(),
            listener: peer,
            random: options.random.clone(),
            node: None,
            cluster: storage.identity().cluster,
            instance,
            secret: config.peer.secret.expose().as_bytes().to_vec(),
            park_port: options.park_port,
            heartbeat_ms: config.peer.heartbeat_ms,
            heartbeats_missed: config.peer.heartbeats_missed,
            calls_in_flight: config.peer.calls_in_flight as usize,
            bytes_in_flight: config.peer.bytes_in_flight as usize,
            ask: Arc::new(move |ask| {
                let (receptionist, seeds) = (receptionist.clone(), seeds.clone());
                Box::pin(async move { receptionist.answer(identity, seeds, ask).await })
            }),
        })
        .await?
    };
    let place = Place::find(&mut storage, &hub, &seeds, instance, &addresses).await?;
    hub.identify(place.me).await?;

    let memory = Memory::new(memory_bytes);
    let writer = storage.take_writer();
    let (log_failed, log_full) = (writer.failed(), writer.full());
    let (wal_actor, sink) = root::start_wal(writer).await?;
    let context = Arc::new(NodeContext {
        node: place.me,
        instance,
        hub: hub.clone(),
        heartbeats: Heartbeats::new(hub.clone()),
        clock: options.clock,
        random: options.random,
        engine: storage.engine(),
        log: Arc::new(sink),
        log_reader: storage.reader(),
        log_full,
        started,
        checkpoint_turn: Semaphore::new(1),
        large_writes: LargeWrites::new(large::at_once(config.node.threads as usize)),
        memory,
        gauges: Gauges,
        alarms: Alarms::default(),
        failed: watch::Sender::new(None),
        stopping: AtomicBool::new(false),
        system: watch::Sender::new(Arc::default()),
        routes: watch::Sender::new(Arc::new(Routes::default())),
        local: ArcSwap::default(),
        system_raft: ArcSwap::default(),
        system_group: ArcSwap::default(),
        oracle: ArcSwap::default(),
        router: ArcSwap::default(),
        coordinators: ArcSwap::default(),
        transactions: crate::txn::Transactions::default(),
        config: config.clone(),
    });
    let system = SystemMachine::load(context.engine.clone(), context.system.clone())
        .await
        .map_err(StartError::Checkpoint)?;
    hub.set_peers(place.peers.clone());
    let failed = context.failed.subscribe();
    let root = root::start(RootArguments {
        context: context.clone(),
        wal: wal_actor.clone(),
        system: system.clone(),
        founders: place.founders.as_ref().map(|nodes| nodes.keys().copied().collect()),
        recovered: storage.take_recovered(),
        log_failed,
    })
    .await
    // What an actor died of says more than that it did.
    .map_err(|error| context.failed.borrow().clone().map_or(error, StartError::Failed))?;
    receptionist.hand_over(&context);

    let mut chores = vec![
        tokio::spawn(crate::replica::checkpoint_loop(context.clone(), system.clone())),
        tokio::spawn(crate::retention::keep_log_short(context.clone(), system, wal_actor)),
        tokio::spawn(room::watch_log(context.clone())),
        tokio::spawn(memory::watch(context.clone(), options.meter)),
        tokio::spawn(members::report(
            context.clone(),
            NodeAddresses {
                peer: addresses.peer.clone(),
                http: addresses.http.clone(),
                native: addresses.native.clone(),
            },
        )),
    ];
    if let Some(directory) = storage.directory() {
        chores.push(tokio::spawn(room::watch_engine(context.clone(), directory.to_owned())));
    }
    if let Some(nodes) = place.founders {
        chores.push(tokio::spawn(members::found(context.clone(), nodes)));
    }
    let cluster = wait_for_cluster(&context, &failed).await?;
    storage.remember(place.me, cluster)?;
    hub.set_cluster(cluster);

    let database = Database::new(context.clone());
    let closing = CancellationToken::new();
    let gateway = gateway_options(&config);
    let doors = vec![
        tokio::spawn(serve_native(native, database.clone(), gateway.clone(), closing.clone())),
        tokio::spawn(serve_http(
            http,
            database.clone(),
            HttpOptions {
                gateway,
                metrics: options.doors.metrics,
                version: options.doors.version,
                commit: options.doors.commit,
            },
            closing.clone(),
        )),
    ];
    tracing::info!(node = %place.me, %cluster, native = addresses.native, http = addresses.http,
        peer = addresses.peer, "the node serves");
    Ok(RunningNode { context, database, addresses, root, failed, doors, chores, closing, _storage: storage })
}

impl RunningNode {
    /// Where its doors are.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The node's id.
    pub fn node(&self) -> NodeId {
        self.context.node
    }

    /// The database, for whoever lives in this process.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Waits until the node has failed and can go on no more, and says why.
    pub async fn failed(&self) -> Fatal {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await {
            Ok(why) => why.clone().expect("waited for"),
            Err(_) => Fatal::actor("the node's root actor has stopped".into()),
        }
    }

    /// Stops in order: not ready, leadership handed over, requests in flight answered, everything synced.
    pub async fn shutdown(self) {
        self.context.begin_stopping();
        hand_over(&self.context).await;
        self.closing.cancel();
        for door in self.doors {
            // A door that panicked has nothing left to drain.
            let _ = door.await;
        }
        for chore in &self.chores {
            chore.abort();
        }
        root::stop(self.root).await;
        self.context.hub.shutdown().await;
        // Whoever still holds the context must not keep the engine's files from the next to open them.
        self.context.engine.stop().await;
    }
}

/// Which node this is, and with whom it begins.
struct Place {
    me: NodeId,
    /// Peers to begin with, until the system group says more.
    peers: BTreeMap<NodeId, String>,
    /// The members that the cluster is founded with, where this node is one of them and it may not be yet.
    founders: Option<BTreeMap<NodeId, NodeInfo>>,
}

impl Place {
    async fn find(
        storage: &mut Storage,
        hub: &PeerHub,
        seeds: &[String],
        instance: InstanceId,
        addresses: &Addresses,
    ) -> Result<Self, StartError> {
        let own = NodeAddresses {
            peer: addresses.peer.clone(),
            http: addresses.http.clone(),
            native: addresses.native.clone(),
        };
        let identity = *storage.identity();
        if let (Some(me), Some(cluster)) = (identity.node, identity.cluster) {
            forming::check_seeds(hub, seeds, cluster).await?;
            return Ok(Self { me, peers: BTreeMap::new(), founders: None });
        }
        let formed = match (identity.node, seeds.is_empty()) {
            // Stopped while it was founding: it may have voted already, so it stays who it was.
            (Some(me), _) if storage.knows_system_group() => {
                let mut nodes = founders(seeds);
                nodes.insert(me, NodeInfo { instance, addresses: own, removed: false });
                Formed::Founder { me, nodes }
            }
            (_, true) if identity.rejoins.is_none() => {
                let me = NodeId(1);
                let info = NodeInfo { instance, addresses: own, removed: false };
                Formed::Founder { me, nodes: BTreeMap::from([(me, info)]) }
            }
            _ => forming::form(hub, instance, identity.rejoins, seeds, &own).await,
        };
        match formed {
            Formed::Founder { me, nodes } => {
                storage.remember_founder(me)?;
                let peers = nodes.iter().map(|(&id, info)| (id, info.addresses.peer.clone())).collect();
                Ok(Self { me, peers, founders: Some(nodes) })
            }
            Formed::Member { me, cluster, members } => {
                storage.remember(me, cluster)?;
                let peers = members.into_iter().map(|(id, addresses)| (id, addresses.peer)).collect();
                Ok(Self { me, peers, founders: None })
            }
        }
    }
}

fn founders(seeds: &[String]) -> BTreeMap<NodeId, NodeInfo> {
    let node = |peer: &String| NodeInfo {
        instance: InstanceId(0),
        addresses: NodeAddresses { peer: peer.clone(), ..NodeAddresses::default() },
        removed: false,
    };
    (1..).map(NodeId).zip(seeds.iter().map(node)).collect()
}

async fn wait_for_cluster(
    context: &NodeContext,
    failed: &watch::Receiver<Option<Fatal>>,
) -> Result<trandb_cluster::ClusterId, StartError> {
    let mut system = context.system.subscribe();
    let mut failed = failed.clone();
    tokio::select! {
        biased;
        why = failed.wait_for(Option::is_some) => {
            let stopped = || Fatal::actor("the node's root actor has stopped".into());
            Err(StartError::Failed(why.ok().and_then(|why| why.clone()).unwrap_or_else(stopped)))
        }
        state = system.wait_for(|state| state.cluster_id.is_some()) => match state {
            Ok(state) => Ok(state.cluster_id.expect("just seen")),
            Err(_) => Err(StartError::Failed(Fatal::actor("the system group has stopped".into()))),
        },
    }
}

async fn bind(
    net: &dyn trandb_runtime::net::Net,
    door: &'static str,
    addr: &str,
) -> Result<Box<dyn Listener>, StartError> {
    net.bind(addr).await.map_err(|error| StartError::Bind { door, addr: addr.to_owned(), error })
}

/// The address under which others reach a door: the advertised host, else the one bound to.
fn reachable(advertise: &str, listener: &dyn Listener) -> Result<String, StartError> {
    let local = listener.local_addr().map_err(|error| StartError::Bind {
        door: "bound",
        addr: String::new(),
        error,
    })?;
    if advertise.is_empty() {
        return Ok(local.to_string());
    }
    Ok(format!("{advertise}:{}", local.port()))
}

fn gateway_options(config: &trandb_runtime::config::Config) -> GatewayOptions {
    GatewayOptions {
        connections_max: config.limits.connections as usize,
        in_flight_max: config.limits.in_flight_per_connection,
        request_timeout_ms: config.limits.request_timeout_ms as u32,
        drain_ms: config.shutdown.drain_ms,
        ..GatewayOptions::default()
    }
}
