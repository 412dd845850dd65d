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

mod beginning;
mod error;
mod forming;
mod handover;
#[cfg(test)]
mod leftover_tests;
mod members;
mod options;
mod parts;
mod room;
#[cfg(test)]
mod room_tests;
mod root;
mod storage;
mod waiting;

use handover::hand_over;

pub use error::{Fatal, StartError};
pub use options::{DiskWork, Doors, NodeOptions, StorageDoor};
pub use waiting::start_when_there_is_room;

use crate::context::NodeContext;
use crate::database::Database;
use crate::gateway::{GatewayOptions, HttpOptions};
use beginning::{Beginning, Serving};
use forming::Receptionist;
use parts::Parts;
use std::sync::Arc;
use std::time::Duration;
use storage::Storage;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trandb_cluster::NodeId;
use trandb_cluster::forming::normalize;
use trandb_cluster::system::NodeAddresses;
use trandb_runtime::net::Listener;
use trandb_runtime::peer::{PeerHub, PeerOptions};

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

impl Addresses {
    /// As the system group keeps them.
    fn as_member(&self) -> NodeAddresses {
        NodeAddresses { peer: self.peer.clone(), http: self.http.clone(), native: self.native.clone() }
    }
}

/// A node that serves.
pub struct RunningNode {
    context: Arc<NodeContext>,
    database: Database,
    addresses: Addresses,
    parts: Parts,
    failed: watch::Receiver<Option<Fatal>>,
    doors: Vec<JoinHandle<()>>,
    closing: CancellationToken,
    // Held for its lock; the last thing to go.
    storage: Storage,
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

    let owed_lease = Duration::from_millis(storage.promise(config.raft.election_max_ms)?);
    let identity = *storage.identity();
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
            instance: identity.instance,
            durable: storage.durable(),
            secret: config.peer.secret.expose().as_bytes().to_vec(),
            park: options.park,
            lease_ms: config.raft.election_max_ms,
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
    let mut parts = Parts::new(hub, storage.engine());
    let beginning = Beginning {
        started,
        config,
        memory_bytes,
        owed_lease,
        storage,
        seeds,
        addresses,
        native,
        http,
        receptionist,
        clock: options.clock,
        random: options.random,
        meter: options.meter,
        doors: options.doors,
    };
    match beginning.go_on(&mut parts).await {
        Ok(Serving { context, database, addresses, failed, doors, closing, storage }) => {
            Ok(RunningNode { context, database, addresses, parts, failed, doors, closing, storage })
        }
        Err(error) => {
            parts.end().await;
            Err(error)
        }
    }
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
    pub async fn shutdown(mut self) {
        self.context.begin_stopping();
        hand_over(&self.context).await;
        self.closing.cancel();
        for door in self.doors {
            // A door that panicked has nothing left to drain.
            let _ = door.await;
        }
        self.parts.end().await;
        if self.context.started.elapsed() > self.context.owed_lease
            && let Err(error) = self.storage.promise_no_longer(self.context.config.raft.election_max_ms)
        {
            tracing::warn!(%error, "leases that are over will be waited for at the next start");
        }
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

fn http_options(config: &trandb_runtime::config::Config, doors: Doors) -> HttpOptions {
    HttpOptions {
        gateway: gateway_options(config),
        metrics: doors.metrics,
        version: doors.version,
        commit: doors.commit,
    }
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
