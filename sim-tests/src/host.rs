//! A simulated machine: what of a node outlives a crash of it, and how it boots.

use crate::clock::SimClock;
use crate::net::SimNet;
use crate::plan::Plan;
use crate::settings::Settings;
use crate::weather::Weather;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use trandb_actors::node::{self, DiskWork, Doors, NodeOptions, StorageDoor};
use trandb_cluster::memory::Usage;
use trandb_cluster::{ClusterId, InstanceId, NodeId};
use trandb_runtime::config::Config;
use trandb_runtime::datadir::Identity;
use trandb_runtime::disk::SimDisk;
use trandb_runtime::engine::MemoryEngine;
use trandb_runtime::memory::Meter;
use trandb_runtime::random::Random;

/// Where a node's native door is.
pub const NATIVE_PORT: u16 = 7400;
/// Where a node's HTTP door is.
const HTTP_PORT: u16 = 7402;
/// Where its peer door is in the beginning. It may move up from there.
const PEER_PORT: u16 = 7410;

/// Memory of a simulated machine.
const MEMORY_BYTES: u64 = 1 << 30;

/// How full a simulated machine's memory is: the process is of all machines, so what it uses says nothing of one.
#[derive(Debug, Clone, Default)]
pub struct SimMemory(Arc<AtomicBool>);

impl SimMemory {
    /// From now on, or not any more, all of it is used.
    pub fn fill(&self, full: bool) {
        self.0.store(full, Ordering::Relaxed);
    }
}

impl Meter for SimMemory {
    fn usage(&self) -> Option<Usage> {
        let resident = if self.0.load(Ordering::Relaxed) { MEMORY_BYTES } else { 0 };
        Some(Usage { allocated: None, resident })
    }
}

/// Where the peer doors of all nodes are, by index. Clones are the same.
#[derive(Clone)]
pub struct PeerDoors(Arc<Vec<(String, AtomicU16)>>);

impl PeerDoors {
    /// Of the machines of these names.
    pub fn new(names: &[String]) -> Self {
        Self(Arc::new(names.iter().map(|name| (name.clone(), AtomicU16::new(PEER_PORT))).collect()))
    }

    fn of(&self, index: usize) -> String {
        let (name, port) = &self.0[index];
        format!("{name}:{}", port.load(Ordering::Relaxed))
    }

    fn first_of(&self, index: usize) -> String {
        format!("{}:{PEER_PORT}", self.0[index].0)
    }
}

/// What a node's data directory is on.
#[derive(Clone)]
struct Media {
    disk: SimDisk,
    engine: MemoryEngine,
    identity: Arc<Mutex<Identity>>,
}

impl Media {
    /// Empty, but for the cluster that the node is to be taken in by again, if any.
    fn blank(instance: u64, rejoins: Option<ClusterId>) -> Self {
        let identity = Identity { rejoins, ..Identity::fresh(InstanceId(instance)) };
        Self { disk: SimDisk::new(), engine: MemoryEngine::new(), identity: Arc::new(Mutex::new(identity)) }
    }

    fn identity(&self) -> Identity {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was on a machine's disk at some time.
pub struct DiskCopy(Media);

/// A simulated machine with a node on it.
pub struct Host {
    name: String,
    index: usize,
    doors: PeerDoors,
    founders: usize,
    partitions: u32,
    replication: u32,
    work: DiskWork,
    weather: Weather,
    settings: Vec<Settings>,
    clock: SimClock,
    seed: u64,
    /// See [`NodeOptions::park`].
    park: SocketAddr,
    boots: AtomicU64,
    /// Replaced as one.
    media: Mutex<Media>,
    memory: SimMemory,
    /// Panics that were asked for since it was started.
    panics: AtomicU64,
    /// Whether a fault is under way that a node must not survive.
    may_fail: AtomicBool,
    /// Whether it has not.
    failed: AtomicBool,
    /// Whether it is there: a node that joins later starts when it is.
    there: watch::Sender<bool>,
    /// See [`Plan::keeps_seeds`].
    keeps_seeds: bool,
    may_move: bool,
    /// Tells the clocks that move by themselves how far; each is of the boot that listens.
    leaps: watch::Sender<Duration>,
}

impl Host {
    /// The machine in that place of the plan, with an empty disk. `doors` are those of all; its node waits for [`Host::arrive`] if
    /// it is none of the first members.
    pub fn new(plan: &Plan, index: usize, doors: PeerDoors, weather: &Weather, park: SocketAddr) -> Self {
        let seed = plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(index as u32 * 8);
        Self {
            name: doors.0[index].0.clone(),
            index,
            doors,
            founders: plan.founders(),
            partitions: plan.partitions,
            replication: plan.replication,
            work: match plan.sync_max {
                Duration::ZERO => DiskWork::Callers,
                most => {
                    let weather = weather.clone();
                    DiskWork::Slow(Arc::new(move || weather.sync(most)))
                }
            },
            weather: weather.clone(),
            settings: plan.settings.clone(),
            clock: SimClock::ahead(plan.clocks_ms[index]),
            seed,
            park,
            boots: AtomicU64::new(0),
            keeps_seeds: plan.keeps_seeds,
            may_move: plan.may_move(index),
            media: Mutex::new(Media::blank(seed | 1, None)),
            memory: SimMemory::default(),
            panics: AtomicU64::new(0),
            may_fail: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            there: watch::Sender::new(index < plan.founders()),
            leaps: watch::Sender::new(Duration::ZERO),
        }
    }

    /// The host's name on the simulated network.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The machine's disk.
    pub fn disk(&self) -> SimDisk {
        self.media().disk.clone()
    }

    /// The member that its node is, if it is one.
    pub fn member(&self) -> Option<NodeId> {
        self.media().identity().node
    }

    /// Puts an empty disk in the place of the machine's, which is off. `repaired`: as `trandb-node --repair` leaves it, which knows
    /// the cluster that it was in.
    pub fn replace_disk(&self, repaired: bool) {
        let boot = self.boots.load(Ordering::Relaxed);
        let mut media = self.media();
        let was = media.identity();
        let rejoins = was.cluster.or(was.rejoins).filter(|_| repaired);
        *media = Media::blank(self.seed.rotate_left(29) ^ (boot << 1) | 1, rejoins);
    }

    /// What is on the machine's disk now, be it that its node runs.
    pub fn copy_disk(&self) -> DiskCopy {
        let media = self.media();
        let disk = media.disk.copy(self.seed.rotate_left(23));
        let identity = Arc::new(Mutex::new(media.identity()));
        DiskCopy(Media { disk, engine: media.engine.copy(), identity })
    }

    /// Puts a disk with this on it in the place of the machine's, which is off.
    pub fn put_back(&self, DiskCopy(media): DiskCopy) {
        tracing::info!(host = self.name, "an older copy of the disk is put back");
        *self.media() = media;
    }

    fn media(&self) -> MutexGuard<'_, Media> {
        self.media.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine's memory.
    pub fn memory(&self) -> &SimMemory {
        &self.memory
    }

    /// The machine's wall clock.
    pub fn clock(&self) -> &SimClock {
        &self.clock
    }

    /// From now on, or not any more, the node may fail. It is then as good as dead until its machine is crashed.
    pub fn may_fail(&self, may_fail: bool) {
        self.may_fail.store(may_fail, Ordering::Relaxed);
        self.failed.store(false, Ordering::Relaxed);
    }

    /// Counts a panic that the node is asked for: the number of them since it was started.
    pub fn count_panic(&self) -> u64 {
        self.panics.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether the node has failed since it may.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Lets that much time pass for the node at once, on top of the time of everybody else: its timers of that time
    /// all fire. Its wall clock stays as it is.
    pub fn leap(&self, by: Duration) {
        self.leaps.send_modify(|total| *total += by);
    }

    /// How long a lease of the node's groups is.
    pub fn lease(&self) -> Duration {
        let boot = self.boots.load(Ordering::Relaxed).saturating_sub(1);
        Duration::from_millis(self.config(boot).raft.election_max_ms)
    }

    /// Moves the monotonic clock of this boot.
    async fn keep_time(self: Arc<Self>) {
        let mut leaps = self.leaps.subscribe();
        let mut there = *leaps.borrow_and_update();
        while leaps.changed().await.is_ok() {
            let to = *leaps.borrow_and_update();
            tokio::time::advance(to.saturating_sub(there)).await;
            there = to;
        }
    }

    /// From its next boot on, the node's peer door is at another port. Nodes that boot after that have it among their seeds, unless
    /// they keep theirs.
    pub fn move_peer_door(&self) {
        self.doors.0[self.index].1.fetch_add(1, Ordering::Relaxed);
    }

    /// Where the node's peer door is from its next boot on, if not yet.
    pub fn peer_door(&self) -> String {
        self.doors.of(self.index)
    }

    /// Whether its peer door may be somewhere else: one seed at least has to be right, and a machine that has lost its disk is known by
    /// where it was.
    pub fn may_move(&self) -> bool {
        self.may_move
    }

    /// Has the node start, if it was not there from the beginning.
    pub fn arrive(&self) {
        self.there.send_replace(true);
    }

    /// Boots the node and runs it until it fails.
    ///
    /// # Errors
    /// Why it did not start, or failed, unless it may: neither is otherwise expected of a simulated node.
    pub async fn run(self: Arc<Self>) -> turmoil::Result {
        let boot = self.boots.fetch_add(1, Ordering::Relaxed);
        self.panics.store(0, Ordering::Relaxed);
        tokio::task::spawn_local(self.clone().keep_time());
        // The sender is this host's.
        let _ = self.there.subscribe().wait_for(|there| *there).await;
        let why = match node::start(self.options(boot)).await {
            Ok(node) => {
                tracing::info!(host = self.name, boot, node = %node.node(), "booted");
                node.failed().await.message
            }
            Err(error) => error.to_string(),
        };
        if self.may_fail.load(Ordering::Relaxed) {
            tracing::info!(host = self.name, why, "the node failed, as it must");
            self.failed.store(true, Ordering::Relaxed);
            return std::future::pending().await;
        }
        Err(format!("{}: {why}", self.name).into())
    }

    /// What the power cut does to the disk: what was not synced is lost, kept or torn.
    pub fn lose_power(&self) {
        let boot = self.boots.load(Ordering::Relaxed);
        let media = self.media();
        media.disk.crash(self.seed.rotate_left(17) ^ boot);
        media.engine.crash();
    }

    fn options(&self, boot: u64) -> NodeOptions {
        let Media { disk, engine, identity } = self.media().clone();
        NodeOptions {
            config: self.config(boot),
            net: Arc::new(SimNet { weather: self.weather.clone() }),
            clock: Arc::new(self.clock.clone()),
            random: Random::seeded(self.seed.wrapping_add(boot)),
            meter: Arc::new(self.memory.clone()),
            memory_bytes: Some(MEMORY_BYTES),
            storage: StorageDoor::Given {
                disk: Arc::new(disk),
                engine: Arc::new(engine),
                identity,
                work: self.work.clone(),
            },
            conversion: Arc::new(|_| ()),
            park: self.park,
            doors: Doors {
                metrics: Arc::new(String::new),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                commit: "simulated".to_owned(),
            },
        }
    }

    fn config(&self, boot: u64) -> Config {
        let mut config = Config::default();
        let seed = |index| if self.keeps_seeds { self.doors.first_of(index) } else { self.doors.of(index) };
        config.node.seeds = (0..self.founders).map(seed).collect();
        config.node.partitions = self.partitions;
        config.node.advertise = self.name.clone();
        config.node.insecure = true;
        // Else what a node does at once would depend on the machine's cores.
        config.node.threads = 1;
        config.native.addr = format!("{}:{NATIVE_PORT}", self.name);
        config.peer.addr = self.doors.of(self.index);
        config.http.addr = format!("{}:{HTTP_PORT}", self.name);
        config.node.replication = self.replication;
        self.settings[(self.index + boot as usize) % self.settings.len()].apply(&mut config);
        config
    }
}
