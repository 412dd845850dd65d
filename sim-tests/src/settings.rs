//! The settings that a seed draws for all nodes. Each is also drawn small, so that what is rare with defaults
//! (full budgets, checkpoints, segments that end, history that is gone) is common here.

use rand::RngExt;
use rand::rngs::StdRng;
use std::fmt;
use trandb_runtime::config::Config;

/// Settings that a seed draws.
#[derive(Debug, Clone)]
pub struct Settings {
    checkpoint_interval_ms: u64,
    checkpoint_log_bytes: u64,
    wal_segment_bytes: u64,
    wal_lz4_bytes: u64,
    history_ms: u64,
    peer_heartbeat_ms: u64,
    calls_in_flight: u32,
    leader_wait_ms: u64,
    in_flight_per_connection: u32,
    /// Heartbeat, and shortest and longest election timeout.
    raft_ms: (u64, u64, u64),
    kept_entries: u64,
}

impl Default for Settings {
    /// Those of the nodes, but with segments and checkpoints that a simulation gets to see several of.
    fn default() -> Self {
        let config = Config::default();
        Self {
            checkpoint_interval_ms: 2_000,
            checkpoint_log_bytes: config.storage.checkpoint_log_bytes,
            wal_segment_bytes: 1 << 20,
            wal_lz4_bytes: 0,
            history_ms: config.storage.history_ms,
            peer_heartbeat_ms: config.peer.heartbeat_ms,
            calls_in_flight: config.peer.calls_in_flight,
            leader_wait_ms: config.limits.leader_wait_ms,
            in_flight_per_connection: config.limits.in_flight_per_connection,
            raft_ms: (config.raft.heartbeat_ms, config.raft.election_min_ms, config.raft.election_max_ms),
            kept_entries: config.raft.kept_entries,
        }
    }
}

impl Settings {
    /// The default ones, but for heartbeats and elections: shortest and longest timeout.
    pub fn with_raft(raft_ms: (u64, u64, u64)) -> Self {
        Self { raft_ms, ..Self::default() }
    }

    /// The same, but for how often links between nodes beat.
    pub fn with_peer_heartbeat_ms(self, peer_heartbeat_ms: u64) -> Self {
        Self { peer_heartbeat_ms, ..self }
    }

    /// What the seed wants.
    pub fn draw(random: &mut StdRng) -> Self {
        let default = Self::default();
        Self {
            checkpoint_interval_ms: pick(random, &[300, 1_000, 2_000, 30_000]),
            checkpoint_log_bytes: pick(random, &[64 << 10, 1 << 20, default.checkpoint_log_bytes]),
            wal_segment_bytes: pick(random, &[2 << 20, 4 << 20, 16 << 20]),
            history_ms: pick(random, &[1_000, 5_000, default.history_ms]),
            peer_heartbeat_ms: pick(random, &[50, 100, 200]),
            // Each group has calls of its own under way, so fewer would not carry Raft itself.
            calls_in_flight: pick(random, &[64, default.calls_in_flight]),
            leader_wait_ms: pick(random, &[200, default.leader_wait_ms]),
            in_flight_per_connection: pick(random, &[1, 4, default.in_flight_per_connection]),
            raft_ms: pick(random, &[(100, 300, 400), default.raft_ms, (100, 1_200, 1_500)]),
            kept_entries: pick(random, &[0, 0, 20, default.kept_entries]),
            wal_lz4_bytes: pick(random, &[default.wal_lz4_bytes, 64, 4096]),
        }
    }

    /// Calls that a node may have under way to one other.
    pub fn calls_in_flight(&self) -> u32 {
        self.calls_in_flight
    }

    /// Writes them into a node's configuration.
    pub fn apply(&self, config: &mut Config) {
        config.storage.checkpoint_interval_ms = self.checkpoint_interval_ms;
        config.storage.checkpoint_log_bytes = self.checkpoint_log_bytes;
        config.storage.wal_segment_bytes = self.wal_segment_bytes;
        config.storage.wal_lz4_bytes = self.wal_lz4_bytes;
        config.storage.history_ms = self.history_ms;
        config.peer.heartbeat_ms = self.peer_heartbeat_ms;
        config.peer.calls_in_flight = self.calls_in_flight;
        config.limits.leader_wait_ms = self.leader_wait_ms;
        config.limits.in_flight_per_connection = self.in_flight_per_connection;
        (config.raft.heartbeat_ms, config.raft.election_min_ms, config.raft.election_max_ms) = self.raft_ms;
        config.raft.kept_entries = self.kept_entries;
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { checkpoint_interval_ms, checkpoint_log_bytes, wal_segment_bytes, history_ms, .. } = self;
        let Self { peer_heartbeat_ms, calls_in_flight, leader_wait_ms, in_flight_per_connection, .. } = self;
        let (heartbeat, election_min, election_max) = self.raft_ms;
        let Self { kept_entries, wal_lz4_bytes, .. } = self;
        write!(
            f,
            "checkpoints every {checkpoint_interval_ms} ms or {checkpoint_log_bytes} bytes, segments of \
             {wal_segment_bytes} bytes, history of {history_ms} ms, links beat each {peer_heartbeat_ms} ms, \
             {calls_in_flight} calls to a peer, {in_flight_per_connection} requests of a client, leaders \
             waited for {leader_wait_ms} ms, raft {heartbeat}/{election_min}/{election_max} ms, \
             {kept_entries} entries kept, compressed from {wal_lz4_bytes} bytes"
        )
    }
}

/// One of these, all equally likely.
pub fn pick<T: Copy>(random: &mut StdRng, from: &[T]) -> T {
    from[random.random_range(0..from.len())]
}
