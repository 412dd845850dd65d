//! The rules that values must keep, each with its own error.

use super::sections::{Config, LogFormat};
use super::size::MemorySize;
use crate::wal::RECORD_BYTES_MAX;
use std::net::IpAddr;
use std::path::PathBuf;
use trandb_cluster::limits::{
    CLIENT_FRAME_BYTES_MAX, NODES_MAX, PARTITIONS_MAX, REPLICATION_MAX, TXN_LIFE_MS_MAX, VALUE_BYTES_MAX,
};

/// Longest time that may be set, but for history: a day. A longer wait is a slip of units.
const TIME_MS_MAX: u64 = 24 * 3_600_000;

/// Longest default deadline of a request: longer ones only hold memory for clients that have given up.
const REQUEST_TIMEOUT_MS_MAX: u64 = 60_000;

/// Longest history: a year of versions in memory is more than anybody can mean.
const HISTORY_MS_MAX: u64 = 366 * 24 * 3_600_000;

/// Shortest interval of a heartbeat: below it the beats themselves load an idle node.
const HEARTBEAT_MS_MIN: u64 = 10;

/// Smallest log segment: the largest record and room for others beside it.
const SEGMENT_BYTES_MIN: u64 = 4 * VALUE_BYTES_MAX as u64;

/// Largest log segment: it is allocated ahead and freed as a whole.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Upper bound of byte and count bounds: what no machine that this runs on has.
const BYTES_MAX: u64 = 1 << 40;

/// Least memory that a node may be given: an empty one takes some 80 MiB, and a third is kept in reserve.
const MEMORY_BYTES_MIN: u64 = 128 << 20;

/// Upper bound of connections and calls: the file descriptors and tasks that a process can have.
const COUNT_MAX: u64 = 1 << 20;

/// Most worker threads.
const THREADS_MAX: u64 = 1024;

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A number is too small or too large.
    #[error("{key} is {value}, it must be from {min} to {max}")]
    OutOfRange {
        /// The dotted key.
        key: &'static str,
        /// Its value.
        value: u64,
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
    },
    /// An even number of replicas survives no more failures than one fewer, and costs one more.
    #[error("node.replication is {replication}, it must be odd")]
    ReplicationEven {
        /// The value.
        replication: u32,
    },
    /// A follower would stand for election between two heartbeats of a healthy leader.
    #[error(
        "raft.heartbeat_ms is {heartbeat_ms}, it must be at most half of raft.election_min_ms, {election_min_ms}"
    )]
    HeartbeatNotBelowElection {
        /// The leader's interval.
        heartbeat_ms: u64,
        /// The follower's patience.
        election_min_ms: u64,
    },
    /// Without a range to draw from, followers stand for election together and split the vote.
    #[error("raft.election_min_ms is {min_ms}, it must be below raft.election_max_ms, {max_ms}")]
    ElectionRangeEmpty {
        /// Lower end.
        min_ms: u64,
        /// Upper end.
        max_ms: u64,
    },
    /// A checkpoint would be forced before a single segment can be freed.
    #[error(
        "storage.checkpoint_log_bytes is {log_bytes}, it must be at least storage.wal_segment_bytes, {segment_bytes}"
    )]
    CheckpointBelowSegment {
        /// Log bytes that force a checkpoint.
        log_bytes: u64,
        /// Size of a segment.
        segment_bytes: u64,
    },
    /// An address is not `host:port`.
    #[error("{key}: \"{addr}\" is not host:port")]
    AddressInvalid {
        /// The dotted key.
        key: &'static str,
        /// Its value.
        addr: String,
    },
    /// The host for others is not a bare host.
    #[error("node.advertise: \"{host}\" is not a host without a port")]
    AdvertiseInvalid {
        /// Its value.
        host: String,
    },
    /// Others cannot reach "every address of this machine".
    #[error("{key} is {addr}: node.advertise (--advertise) must say under which host others reach this node")]
    AdvertiseMissing {
        /// The dotted key.
        key: &'static str,
        /// Its value.
        addr: String,
    },
    /// Two doors on one address.
    #[error("{first} and {second} are both {addr}")]
    AddressTwice {
        /// One dotted key.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// Their value.
        addr: String,
    },
    /// The same seed is named twice.
    #[error("node.seeds names {seed} twice")]
    SeedTwice {
        /// The seed.
        seed: String,
    },
    /// More seeds than a cluster may have nodes.
    #[error("node.seeds names {seeds} nodes, a cluster has at most {max}")]
    SeedsTooMany {
        /// How many are named.
        seeds: usize,
        /// The limit.
        max: usize,
    },
    /// Anyone who reaches the address could read and write.
    #[error("{key} is {addr}, which others can reach, and nobody is authenticated there: {remedy}")]
    Exposed {
        /// The dotted key.
        key: &'static str,
        /// Its value.
        addr: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The Redis protocol is asked for.
    #[error("resp.addr is {addr}: the Redis protocol is not built yet")]
    RespNotBuilt {
        /// Its value.
        addr: String,
    },
    /// There is nowhere to put the data.
    #[error("node.data_dir is empty")]
    DataDirEmpty,
    /// A secret is given both ways in one place.
    #[error("peer.secret and peer.secret_file ({path}) are both set", path = path.display())]
    SecretTwice {
        /// The secret's file.
        path: PathBuf,
    },
    /// A secret's file holds none.
    #[error("peer.secret_file: {path} is empty", path = path.display())]
    SecretFileEmpty {
        /// The secret's file.
        path: PathBuf,
    },
}

impl Config {
    /// Checks every rule, in the order of the sections.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), Violation> {
        self.validate_ranges()?;
        if self.node.replication.is_multiple_of(2) {
            return Err(Violation::ReplicationEven { replication: self.node.replication });
        }
        if self.node.data_dir.as_os_str().is_empty() && !self.node.ephemeral {
            return Err(Violation::DataDirEmpty);
        }
        let raft = &self.raft;
        if raft.heartbeat_ms.saturating_mul(2) > raft.election_min_ms {
            return Err(Violation::HeartbeatNotBelowElection {
                heartbeat_ms: raft.heartbeat_ms,
                election_min_ms: raft.election_min_ms,
            });
        }
        if raft.election_min_ms >= raft.election_max_ms {
            return Err(Violation::ElectionRangeEmpty {
                min_ms: raft.election_min_ms,
                max_ms: raft.election_max_ms,
            });
        }
        let storage = &self.storage;
        if storage.checkpoint_log_bytes < storage.wal_segment_bytes {
            return Err(Violation::CheckpointBelowSegment {
                log_bytes: storage.checkpoint_log_bytes,
                segment_bytes: storage.wal_segment_bytes,
            });
        }
        self.validate_addresses()?;
        self.validate_seeds()
    }

    fn validate_ranges(&self) -> Result<(), Violation> {
        let Self { node, peer, raft, storage, memory, limits, txn, shutdown, .. } = self;
        // A call must be able to carry the largest value, or it could never be made.
        let call_bytes_min = CLIENT_FRAME_BYTES_MAX as u64;
        // A share was checked when it was read; what it comes to is the machine's affair.
        let memory_bytes = match memory.limit {
            MemorySize::Bytes(bytes) => bytes,
            MemorySize::Percent(_) => MEMORY_BYTES_MIN,
        };
        for (key, value, min, max) in [
            ("node.partitions", node.partitions.into(), 1, PARTITIONS_MAX.into()),
            ("node.replication", node.replication.into(), 1, REPLICATION_MAX as u64),
            ("node.threads", node.threads.into(), 0, THREADS_MAX),
            ("peer.heartbeat_ms", peer.heartbeat_ms, HEARTBEAT_MS_MIN, TIME_MS_MAX),
            ("peer.heartbeats_missed", peer.heartbeats_missed.into(), 2, 100),
            ("peer.calls_in_flight", peer.calls_in_flight.into(), 1, COUNT_MAX),
            ("peer.bytes_in_flight", peer.bytes_in_flight, call_bytes_min, BYTES_MAX),
            ("raft.heartbeat_ms", raft.heartbeat_ms, HEARTBEAT_MS_MIN, TIME_MS_MAX),
            ("raft.election_min_ms", raft.election_min_ms, HEARTBEAT_MS_MIN, TIME_MS_MAX),
            ("raft.election_max_ms", raft.election_max_ms, HEARTBEAT_MS_MIN, TIME_MS_MAX),
            ("raft.kept_entries", raft.kept_entries, 0, COUNT_MAX),
            ("storage.checkpoint_interval_ms", storage.checkpoint_interval_ms, 100, TIME_MS_MAX),
            ("storage.checkpoint_log_bytes", storage.checkpoint_log_bytes, SEGMENT_BYTES_MIN, BYTES_MAX),
            ("storage.wal_segment_bytes", storage.wal_segment_bytes, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX),
            ("storage.wal_lz4_bytes", storage.wal_lz4_bytes, 0, RECORD_BYTES_MAX as u64),
            ("storage.history_ms", storage.history_ms, 1000, HISTORY_MS_MAX),
            ("memory.limit", memory_bytes, MEMORY_BYTES_MIN, BYTES_MAX),
            ("limits.connections", limits.connections.into(), 1, COUNT_MAX),
            ("limits.in_flight_per_connection", limits.in_flight_per_connection.into(), 1, COUNT_MAX),
            ("limits.leader_wait_ms", limits.leader_wait_ms, 0, REQUEST_TIMEOUT_MS_MAX),
            ("limits.request_timeout_ms", limits.request_timeout_ms, 1, REQUEST_TIMEOUT_MS_MAX),
            ("txn.idle_timeout_ms", txn.idle_timeout_ms, 100, TXN_LIFE_MS_MAX),
            ("txn.open_max", txn.open_max.into(), 1, COUNT_MAX),
            ("shutdown.drain_ms", shutdown.drain_ms, 0, TIME_MS_MAX),
        ] {
            if value < min || value > max {
                return Err(Violation::OutOfRange { key, value, min, max });
            }
        }
        Ok(())
    }

    fn validate_addresses(&self) -> Result<(), Violation> {
        let doors = [
            ("native.addr", &self.native.addr),
            ("peer.addr", &self.peer.addr),
            ("http.addr", &self.http.addr),
        ];
        let advertise = &self.node.advertise;
        if !advertise.is_empty() && !is_host(advertise) {
            return Err(Violation::AdvertiseInvalid { host: advertise.clone() });
        }
        for (at, (key, addr)) in doors.into_iter().enumerate() {
            let Some((host, port)) = split_address(addr) else {
                return Err(Violation::AddressInvalid { key, addr: addr.clone() });
            };
            if let Some((first, _)) = doors[..at].iter().find(|(_, other)| *other == addr && port != 0) {
                return Err(Violation::AddressTwice { first, second: key, addr: addr.clone() });
            }
            if !is_loopback(host) && !self.node.insecure {
                let by_secret = key == "peer.addr";
                if !by_secret || self.peer.secret.is_empty() {
                    let remedy = if by_secret {
                        "set peer.secret (--peer-secret-file), or allow it with --insecure"
                    } else {
                        "bind it to loopback, or allow it with --insecure"
                    };
                    return Err(Violation::Exposed { key, addr: addr.clone(), remedy });
                }
            }
            if advertise.is_empty() && host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified()) {
                return Err(Violation::AdvertiseMissing { key, addr: addr.clone() });
            }
        }
        if !self.resp.addr.is_empty() {
            return Err(Violation::RespNotBuilt { addr: self.resp.addr.clone() });
        }
        Ok(())
    }

    fn validate_seeds(&self) -> Result<(), Violation> {
        let seeds = &self.node.seeds;
        if seeds.len() > NODES_MAX {
            return Err(Violation::SeedsTooMany { seeds: seeds.len(), max: NODES_MAX });
        }
        for (at, seed) in seeds.iter().enumerate() {
            if split_address(seed).is_none_or(|(_, port)| port == 0) {
                return Err(Violation::AddressInvalid { key: "node.seeds", addr: seed.clone() });
            }
            if seeds[..at].contains(seed) {
                return Err(Violation::SeedTwice { seed: seed.clone() });
            }
        }
        Ok(())
    }

    /// Turns `auto` into what suits the stream that logs go to.
    pub fn log_format(&self, on_terminal: bool) -> LogFormat {
        match self.node.log_format {
            LogFormat::Auto if on_terminal => LogFormat::Human,
            LogFormat::Auto => LogFormat::Json,
            chosen => chosen,
        }
    }

    /// How others reach a door that is bound to `bound` (`host:port`, the port as it really is).
    pub fn advertised(&self, bound: &str) -> String {
        if self.node.advertise.is_empty() {
            return bound.to_string();
        }
        let port = bound.rsplit_once(':').map_or("", |(_, port)| port);
        format!("{}:{port}", self.node.advertise)
    }
}

/// Host (without an IPv6 address's brackets) and port of `host:port`.
fn split_address(addr: &str) -> Option<(&str, u16)> {
    let (host, port) = addr.rsplit_once(':')?;
    is_host(host).then_some(())?;
    Some((host.trim_start_matches('[').trim_end_matches(']'), port.parse().ok()?))
}

/// A name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[') {
        return inner.strip_suffix(']').is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok());
    }
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}
