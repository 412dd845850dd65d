//! A simulated machine: what of a node outlives a crash of it, and how it boots.

use crate::clock::SimClock;
use crate::net::SimNet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use trandb_actors::node::{self, Doors, NodeOptions, StorageDoor};
use trandb_cluster::InstanceId;
use trandb_runtime::config::Config;
use trandb_runtime::datadir::Identity;
use trandb_runtime::disk::SimDisk;
use trandb_runtime::engine::MemoryEngine;
use trandb_runtime::random::Random;

/// Where a node's native door is.
pub const NATIVE_PORT: u16 = 7400;
/// Where a node's peer door is.
const PEER_PORT: u16 = 7401;
/// Where a node's HTTP door is.
const HTTP_PORT: u16 = 7402;

/// Small enough that a simulation fills several segments.
const WAL_SEGMENT_BYTES: u64 = 1 << 20;

/// Short enough that a simulation sees several checkpoints.
const CHECKPOINT_INTERVAL_MS: u64 = 2_000;

/// A simulated machine with a node on it.
pub struct Host {
    name: String,
    seeds: Vec<String>,
    partitions: u32,
    seed: u64,
    /// OS port on loopback that is parked on; see [`NodeOptions::park_port`].
    park_port: u16,
    boots: AtomicU64,
    disk: SimDisk,
    engine: MemoryEngine,
    identity: Arc<Mutex<Identity>>,
}

impl Host {
    /// A machine with an empty disk. `names` are all first members, this one among them.
    pub fn new(name: &str, names: &[String], partitions: u32, seed: u64, park_port: u16) -> Self {
        let identity = Identity { instance: InstanceId(seed | 1), node: None, cluster: None };
        Self {
            name: name.to_owned(),
            seeds: names.iter().map(|name| format!("{name}:{PEER_PORT}")).collect(),
            partitions,
            seed,
            park_port,
            boots: AtomicU64::new(0),
            disk: SimDisk::new(),
            engine: MemoryEngine::new(),
            identity: Arc::new(Mutex::new(identity)),
        }
    }

    /// The host's name on the simulated network.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Boots the node and runs it until it fails.
    ///
    /// # Errors
    /// Why it did not start, or failed: neither is ever expected of a simulated node.
    pub async fn run(self: Arc<Self>) -> turmoil::Result {
        let boot = self.boots.fetch_add(1, Ordering::Relaxed);
        let node =
            node::start(self.options(boot)).await.map_err(|error| format!("{}: {error}", self.name))?;
        tracing::info!(host = self.name, boot, node = %node.node(), "booted");
        Err(format!("{}: {}", self.name, node.failed().await.message).into())
    }

    /// What the power cut does to the disk: what was not synced is lost, kept or torn.
    pub fn lose_power(&self) {
        let boot = self.boots.load(Ordering::Relaxed);
        self.disk.crash(self.seed.rotate_left(17) ^ boot);
        self.engine.crash();
    }

    fn options(&self, boot: u64) -> NodeOptions {
        NodeOptions {
            config: self.config(),
            net: Arc::new(SimNet),
            clock: Arc::new(SimClock::default()),
            random: Random::seeded(self.seed.wrapping_add(boot)),
            storage: StorageDoor::Given {
                disk: Arc::new(self.disk.clone()),
                engine: Arc::new(self.engine.clone()),
                identity: self.identity.clone(),
            },
            park_port: self.park_port,
            doors: Doors {
                metrics: Arc::new(String::new),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                commit: "simulated".to_owned(),
            },
        }
    }

    fn config(&self) -> Config {
        let mut config = Config::default();
        config.node.seeds = self.seeds.clone();
        config.node.partitions = self.partitions;
        config.node.advertise = self.name.clone();
        config.node.insecure = true;
        config.native.addr = format!("{}:{NATIVE_PORT}", self.name);
        config.peer.addr = format!("{}:{PEER_PORT}", self.name);
        config.http.addr = format!("{}:{HTTP_PORT}", self.name);
        config.storage.wal_segment_bytes = WAL_SEGMENT_BYTES;
        config.storage.checkpoint_interval_ms = CHECKPOINT_INTERVAL_MS;
        config
    }
}
