//! The sections and their defaults. Units stand last in names; zero means nothing special unless said so.

use super::secret::Secret;
use super::size::MemorySize;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// Everything that can be set about a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The node itself.
    pub node: NodeConfig,
    /// The native MessagePack protocol.
    pub native: NativeConfig,
    /// Links to the other nodes.
    pub peer: PeerConfig,
    /// Data, admin and metrics over HTTP.
    pub http: HttpConfig,
    /// The Redis protocol.
    pub resp: RespConfig,
    /// Consensus.
    pub raft: RaftConfig,
    /// Log, checkpoints and history.
    pub storage: StorageConfig,
    /// Memory as a budget.
    pub memory: MemoryConfig,
    /// Bounds of what clients may ask for.
    pub limits: LimitsConfig,
    /// Transactions.
    pub txn: TxnConfig,
    /// The end of a node's life.
    pub shutdown: ShutdownConfig,
}

/// The node itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// Directory of the log, the checkpoints and the node's identity.
    pub data_dir: PathBuf,
    /// Keep everything in memory: what a node alone holds is gone when it stops.
    pub ephemeral: bool,
    /// Peer addresses of the first members. Empty: bootstrap a cluster of one.
    pub seeds: Vec<String>,
    /// Data partitions, fixed when a cluster is bootstrapped.
    pub partitions: u32,
    /// Replicas of each partition, or as many as there are nodes if those are fewer.
    pub replication: u32,
    /// Host under which others reach this node. Empty: the host that each door is bound to.
    pub advertise: String,
    /// Serve addresses beyond this machine although nobody is authenticated.
    pub insecure: bool,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Worker threads; zero: one per core.
    pub threads: u32,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("trandb-data"),
            ephemeral: false,
            seeds: Vec::new(),
            partitions: 16,
            replication: 3,
            advertise: String::new(),
            insecure: false,
            log_format: LogFormat::Auto,
            threads: 0,
        }
    }
}

/// How log lines look.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

/// The native MessagePack protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NativeConfig {
    /// `host:port`; port 0 takes a free one.
    pub addr: String,
}

impl Default for NativeConfig {
    fn default() -> Self {
        Self { addr: "127.0.0.1:7400".into() }
    }
}

/// Links to the other nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeerConfig {
    /// `host:port`; port 0 takes a free one.
    pub addr: String,
    /// Known to all nodes of a cluster; proves that a peer belongs to it. Empty: none, loopback only.
    pub secret: Secret,
    /// File that holds the secret, instead of `secret`. A line end after it is cut off.
    pub secret_file: PathBuf,
    /// Between two heartbeats of a link, in both directions.
    pub heartbeat_ms: u64,
    /// Heartbeats in a row that may stay away before the peer is suspected and its link is cut.
    pub heartbeats_missed: u32,
    /// Calls in flight to one peer; beyond it a call is refused as overloaded.
    pub calls_in_flight: u32,
    /// Bytes of calls in flight to one peer; beyond it a call is refused as overloaded.
    pub bytes_in_flight: u64,
}

impl Default for PeerConfig {
    fn default() -> Self {
        Self {
            addr: "127.0.0.1:7401".into(),
            secret: Secret::default(),
            secret_file: PathBuf::new(),
            heartbeat_ms: 100,
            heartbeats_missed: 3,
            calls_in_flight: 4096,
            bytes_in_flight: 64 << 20,
        }
    }
}

/// Data, admin and metrics over HTTP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// `host:port`; port 0 takes a free one.
    pub addr: String,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { addr: "127.0.0.1:7402".into() }
    }
}

/// The Redis protocol, which is not built yet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RespConfig {
    /// `host:port`. Anything but empty is refused until the protocol is built.
    pub addr: String,
}

/// Consensus.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RaftConfig {
    /// Between two heartbeats of a leader.
    pub heartbeat_ms: u64,
    /// Silence of the leader after which a follower may stand for election, at the least.
    pub election_min_ms: u64,
    /// The same at the most; each follower draws between the two.
    pub election_max_ms: u64,
    /// Log entries kept beyond a checkpoint for replicas that lag; one that needs older ones gets a snapshot.
    pub kept_entries: u64,
}

impl Default for RaftConfig {
    fn default() -> Self {
        Self { heartbeat_ms: 250, election_min_ms: 500, election_max_ms: 600, kept_entries: 4096 }
    }
}

/// Log, checkpoints and history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    /// What holds the checkpoints; where it names another engine on disk than the directory has, they are copied at
    /// the start. An ephemeral node always uses memory.
    pub engine: EngineChoice,
    /// Between two checkpoints of a partition that changed.
    pub checkpoint_interval_ms: u64,
    /// Log bytes of a partition after which its checkpoint does not wait for the interval, at the most: it is due sooner
    /// where an eighth of the partition's live data is less, but not below 1 MiB. The log holds a quarter of the node's
    /// live data, 32 MiB at the least and four times this at the most.
    pub checkpoint_log_bytes: u64,
    /// Size of a log segment, allocated ahead.
    pub wal_segment_bytes: u64,
    /// Commands of so many bytes and more are compressed with LZ4 in the log, where that saves something; 0 compresses none.
    pub wal_lz4_bytes: u64,
    /// How far back reads of the past go; older versions are dropped.
    pub history_ms: u64,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            engine: EngineChoice::Auto,
            checkpoint_interval_ms: 30_000,
            checkpoint_log_bytes: 256 << 20,
            wal_segment_bytes: 16 << 20,
            wal_lz4_bytes: 0,
            history_ms: 3_600_000,
        }
    }
}

/// Memory as a budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryConfig {
    /// What the process may use. Near it no more values are put; reads, deletes and replication go on. A share is of the
    /// machine's memory, or of the control group's if that is less.
    pub limit: MemorySize,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { limit: MemorySize::Percent(70) }
    }
}

/// A storage engine for checkpoints.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// sled, on disk.
    Sled,
    /// fjall, on disk: what a new data directory gets.
    #[default]
    Fjall,
    /// Memory: nothing survives the process but what the log still holds.
    Memory,
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sled => "sled",
            Self::Fjall => "fjall",
            Self::Memory => "memory",
        })
    }
}

/// Which engine a node is to have.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineChoice {
    /// The one that the data directory has, and [`EngineKind::default`] where there is none yet.
    #[default]
    Auto,
    /// [`EngineKind::Sled`].
    Sled,
    /// [`EngineKind::Fjall`].
    Fjall,
    /// [`EngineKind::Memory`].
    Memory,
}

impl EngineChoice {
    /// The engine that is named; none if the data directory decides.
    pub fn named(self) -> Option<EngineKind> {
        match self {
            Self::Auto => None,
            Self::Sled => Some(EngineKind::Sled),
            Self::Fjall => Some(EngineKind::Fjall),
            Self::Memory => Some(EngineKind::Memory),
        }
    }
}

impl From<EngineKind> for EngineChoice {
    fn from(kind: EngineKind) -> Self {
        match kind {
            EngineKind::Sled => Self::Sled,
            EngineKind::Fjall => Self::Fjall,
            EngineKind::Memory => Self::Memory,
        }
    }
}

/// Bounds of what clients may ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Client connections per door; the next one is refused with the reason.
    pub connections: u32,
    /// Requests in flight on one native connection; beyond it the node stops reading from it.
    pub in_flight_per_connection: u32,
    /// How long an operation waits for its partition to have a leader before it is refused.
    pub leader_wait_ms: u64,
    /// How long a request may take when its client names no deadline.
    pub request_timeout_ms: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections: 10_000,
            in_flight_per_connection: 1024,
            leader_wait_ms: 1000,
            request_timeout_ms: 10_000,
        }
    }
}

/// Transactions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TxnConfig {
    /// An open transaction of which nothing is asked for this long is aborted.
    pub idle_timeout_ms: u64,
    /// Transactions that may be open on one node; the next one is refused.
    pub open_max: u32,
}

impl Default for TxnConfig {
    fn default() -> Self {
        Self { idle_timeout_ms: 30_000, open_max: 10_000 }
    }
}

/// The end of a node's life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownConfig {
    /// How long requests in flight may take to end after the first signal.
    pub drain_ms: u64,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { drain_ms: 30_000 }
    }
}
