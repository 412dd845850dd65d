//! The second half of a start: from resources that are taken to a node that serves.

use super::forming::{self, Formed, Receptionist};
use super::parts::Parts;
use super::root::{self, RootArguments};
use super::storage::Storage;
use super::{Addresses, Doors, Fatal, StartError, gateway_options, http_options, members, room};
use crate::alarms::Alarms;
use crate::context::NodeContext;
use crate::database::Database;
use crate::gateway::{serve_http, serve_native};
use crate::gauges::Gauges;
use crate::large::{self, LargeWrites};
use crate::memory::{self, Memory};
use crate::replica::{ExpectedSystem, SystemMachine};
use crate::router::Routes;
use arc_swap::{ArcSwap, ArcSwapOption};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trandb_cluster::system::{NodeAddresses, NodeInfo};
use trandb_cluster::{InstanceId, NodeId};
use trandb_runtime::clock::Clock;
use trandb_runtime::config::Config;
use trandb_runtime::memory::Meter;
use trandb_runtime::net::Listener;
use trandb_runtime::peer::PeerHub;
use trandb_runtime::planted::{Planted, is_planted};
use trandb_runtime::raft::{GivenAway, Heartbeats, Snapshots};
use trandb_runtime::random::Random;

/// A node that has taken its resources.
pub(super) struct Beginning {
    pub(super) started: Instant,
    pub(super) config: Arc<Config>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) owed_lease: Duration,
    pub(super) storage: Storage,
    pub(super) seeds: Vec<String>,
    pub(super) addresses: Addresses,
    pub(super) native: Box<dyn Listener>,
    pub(super) http: Box<dyn Listener>,
    pub(super) receptionist: Arc<Receptionist>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Random,
    pub(super) meter: Arc<dyn Meter>,
    pub(super) doors: Doors,
}

/// What it has become, beside its parts.
pub(super) struct Serving {
    pub(super) context: Arc<NodeContext>,
    pub(super) database: Database,
    pub(super) addresses: Addresses,
    pub(super) failed: watch::Receiver<Option<Fatal>>,
    pub(super) doors: Vec<JoinHandle<()>>,
    pub(super) closing: CancellationToken,
    pub(super) storage: Storage,
}

impl Beginning {
    /// Finds out which node this is and starts its actors, which are among the `parts` from then on, be it that what comes
    /// next fails.
    pub(super) async fn go_on(self, parts: &mut Parts) -> Result<Serving, StartError> {
        let Self { started, config, mut storage, addresses, .. } = self;
        let (hub, instance) = (parts.hub.clone(), storage.identity().instance);
        let place = Place::find(&mut storage, &hub, &self.seeds, instance, &addresses).await?;
        hub.identify(place.me).await?;

        let memory = Memory::new(self.memory_bytes);
        let writer = storage.take_writer();
        let (log_failed, log_full) = (writer.failed(), writer.full());
        let (wal_actor, sink) = root::start_wal(writer).await?;
        parts.wal = Some(wal_actor.clone());
        let context = Arc::new(NodeContext {
            node: place.me,
            instance,
            hub: hub.clone(),
            heartbeats: Heartbeats::new(hub.clone()),
            snapshots: Snapshots::new(),
            clock: self.clock,
            random: self.random,
            engine: storage.engine(),
            log: Arc::new(sink),
            log_reader: storage.reader(),
            log_full,
            started,
            owed_lease: self.owed_lease,
            checkpoint_turn: Semaphore::new(1),
            large_writes: LargeWrites::new(large::at_once(config.node.threads as usize)),
            memory,
            gauges: Gauges,
            alarms: Alarms::default(),
            failed: watch::Sender::new(None),
            stopping: AtomicBool::new(false),
            system: watch::Sender::new(Arc::default()),
            expected_system: Arc::new(ArcSwapOption::new(place.expected)),
            routes: watch::Sender::new(Arc::new(Routes::default())),
            local: ArcSwap::default(),
            system_raft: ArcSwap::default(),
            system_given_away: GivenAway::default(),
            system_group: ArcSwap::default(),
            oracle: ArcSwap::default(),
            router: ArcSwap::default(),
            coordinators: ArcSwap::default(),
            transactions: crate::txn::Transactions::default(),
            config: config.clone(),
        });
        let (engine, published) = (context.engine.clone(), context.system.clone());
        let system = SystemMachine::load(engine, published, context.expected_system.clone())
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
        self.receptionist.hand_over(&context);

        parts.root = Some(root);
        let own = addresses.as_member();
        parts.chores = vec![
            tokio::spawn(crate::replica::checkpoint_loop(context.clone(), system.clone())),
            tokio::spawn(crate::retention::keep_log_short(context.clone(), system, wal_actor)),
            tokio::spawn(room::watch_log(context.clone())),
            tokio::spawn(members::heed_reverted(context.clone())),
            tokio::spawn(members::catch_up(context.clone())),
            tokio::spawn(memory::watch(context.clone(), self.meter)),
            tokio::spawn(members::report(context.clone(), own.clone())),
            tokio::spawn(members::knock(context.clone(), own)),
        ];
        if let Some(directory) = storage.directory() {
            parts.chores.push(tokio::spawn(room::watch_engine(context.clone(), directory.to_owned())));
        }
        if let Some(nodes) = place.founders {
            parts.chores.push(tokio::spawn(members::found(context.clone(), nodes)));
        }
        let cluster = wait_for_cluster(&context, &failed).await?;
        storage.remember(place.me, cluster)?;
        hub.set_cluster(cluster);

        let database = Database::new(context.clone());
        let closing = CancellationToken::new();
        let gateway = gateway_options(&config);
        let doors = vec![
            tokio::spawn(serve_native(self.native, database.clone(), gateway.clone(), closing.clone())),
            tokio::spawn(serve_http(
                self.http,
                database.clone(),
                http_options(&config, self.doors),
                closing.clone(),
            )),
        ];
        tracing::info!(node = %place.me, %cluster, native = addresses.native, http = addresses.http,
            peer = addresses.peer, "the node serves");
        Ok(Serving { context, database, addresses, failed, doors, closing, storage })
    }
}

/// Which node this is, and with whom it begins.
struct Place {
    me: NodeId,
    /// Peers to begin with, until the system group says more.
    peers: BTreeMap<NodeId, String>,
    /// The members that the cluster is founded with, where this node is one of them and it may not be yet.
    founders: Option<BTreeMap<NodeId, NodeInfo>>,
    /// What its log says of the cluster.
    expected: Option<Arc<ExpectedSystem>>,
}

impl Place {
    async fn find(
        storage: &mut Storage,
        hub: &PeerHub,
        seeds: &[String],
        instance: InstanceId,
        addresses: &Addresses,
    ) -> Result<Self, StartError> {
        let own = addresses.as_member();
        let identity = *storage.identity();
        if let (Some(me), Some(cluster)) = (identity.node, identity.cluster) {
            forming::check_seeds(hub, seeds, cluster).await?;
            if is_planted(Planted::PeersForgotten) {
                return Ok(Self { me, peers: BTreeMap::new(), founders: None, expected: None });
            }
            let expected = storage.expected_system().await?;
            if let Some(expected) = expected.filter(|expected| expected.state.cluster_id.is_some()) {
                let system = &expected.state;
                hub.set_instances(system.instances());
                let peers = forming::peers(system).into_iter().map(|(id, at)| (id, at.peer)).collect();
                return Ok(Self { me, peers, founders: None, expected: Some(Arc::new(expected)) });
            }
        }
        // A member that was told nothing before it ended is taken in once more, as the same one.
        let belongs_to = identity.rejoins.or(identity.cluster);
        let formed = match (identity.node, seeds.is_empty()) {
            // Stopped while it was founding: it may have voted already, so it stays who it was.
            (Some(me), _) if belongs_to.is_none() && storage.knows_system_group() => {
                let mut nodes = founders(seeds);
                nodes.insert(me, NodeInfo { instance, addresses: own, removed: false });
                Formed::Founder { me, nodes }
            }
            (_, true) if belongs_to.is_none() => {
                let me = NodeId(1);
                let info = NodeInfo { instance, addresses: own, removed: false };
                Formed::Founder { me, nodes: BTreeMap::from([(me, info)]) }
            }
            _ => forming::form(hub, instance, belongs_to, seeds, &own).await,
        };
        match formed {
            Formed::Founder { me, nodes } => {
                storage.remember_founder(me)?;
                let peers = nodes.iter().map(|(&id, info)| (id, info.addresses.peer.clone())).collect();
                Ok(Self { me, peers, founders: Some(nodes), expected: None })
            }
            Formed::Member { me, cluster, members } => {
                storage.remember(me, cluster)?;
                let peers = members.into_iter().map(|(id, addresses)| (id, addresses.peer)).collect();
                Ok(Self { me, peers, founders: None, expected: None })
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
