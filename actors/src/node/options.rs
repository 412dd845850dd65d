//! What a node is started with: its settings, and the doors to the outside world.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use trandb_runtime::clock::{Clock, SystemClock};
use trandb_runtime::config::Config;
use trandb_runtime::disk::Disk;
use trandb_runtime::engine::{Engine, Told};
use trandb_runtime::memory::{Meter, SystemMeter, available};
use trandb_runtime::net::{Net, RealNet};
use trandb_runtime::random::Random;

/// What a node is started with.
pub struct NodeOptions {
    /// Its settings, validated.
    pub config: Config,
    /// Dials and listens.
    pub net: Arc<dyn Net>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Random numbers.
    pub random: Random,
    /// What the process uses of its memory. Of several nodes in one process none can know its own share: they take one
    /// that knows nothing.
    pub meter: Arc<dyn Meter>,
    /// The memory that there is for the process; none if that is not known.
    pub memory_bytes: Option<u64>,
    /// Where data lies.
    pub storage: StorageDoor,
    /// Hears how far checkpoints are copied to another storage engine, if that is needed.
    pub conversion: Told,
    /// Where ractor_cluster parks a listener that nothing connects to; port 0 takes any.
    pub park: SocketAddr,
    /// What the doors show of the process.
    pub doors: Doors,
}

/// Where data lies.
pub enum StorageDoor {
    /// In the configured directory, or in this process's memory for an ephemeral node.
    Configured,
    /// On a given disk and engine.
    Given {
        /// The disk; the log lies in `wal` on it.
        disk: Arc<dyn Disk>,
        /// Checkpoints.
        engine: Arc<dyn Engine>,
        /// Kept across restarts of the simulated node, as the identity file is.
        identity: Arc<std::sync::Mutex<trandb_runtime::datadir::Identity>>,
        /// Who works disk and engine.
        work: DiskWork,
    },
}

/// Who waits for a disk.
#[derive(Clone)]
pub enum DiskWork {
    /// Threads of their own, as in real nodes.
    Threads,
    /// Whoever calls, for whom it takes no time: the simulation has no threads.
    Callers,
    /// The same, but that each batch of the log takes as long as this says.
    Slow(Arc<dyn Fn() -> Duration + Send + Sync>),
}

/// What the doors show of the process.
#[derive(Clone)]
pub struct Doors {
    /// Renders `/metrics`.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// The program's version.
    pub version: String,
    /// The commit that it was built from.
    pub commit: String,
}

impl NodeOptions {
    /// A node in the real world.
    pub fn real(config: Config, doors: Doors) -> Self {
        Self {
            config,
            net: Arc::new(RealNet),
            clock: Arc::new(SystemClock),
            random: Random::from_entropy(),
            meter: Arc::new(SystemMeter),
            memory_bytes: available(),
            storage: StorageDoor::Configured,
            conversion: Arc::new(|_| ()),
            park: (Ipv4Addr::LOCALHOST, 0).into(),
            doors,
        }
    }
}
