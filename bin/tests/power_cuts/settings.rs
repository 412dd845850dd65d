//! What the environment sets about a run, and how its nodes are set up.

use std::path::Path;
use std::time::Duration;
use trandb_runtime::config::{Config, EngineKind};

/// A number from the environment.
///
/// # Panics
/// When it is set and is none.
fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}: {text:?} is no number")),
        Err(_) => default,
    }
}

/// Cuts of each recording.
pub(crate) fn cuts() -> usize {
    number("TRANDB_POWER_CUTS", 50) as usize
}

/// For how long the load runs.
pub(crate) fn load_time() -> Duration {
    Duration::from_millis(number("TRANDB_POWER_CUT_MS", 2500))
}

/// What all random choices of this run follow from.
pub(crate) fn seed() -> u64 {
    let seed = number("TRANDB_POWER_CUT_SEED", rand::random());
    println!("TRANDB_POWER_CUT_SEED={seed}");
    seed
}

/// Checkpoints, purges and new segments happen all the time; what is set for nodes of this process is set for others, too.
const CHECKPOINT_INTERVAL_MS: u64 = 100;
const KEPT_ENTRIES: u64 = 16;
const HISTORY_MS: u64 = 1000;
const PARTITIONS: u32 = 3;

/// The smallest that may be configured.
const SEGMENT_BYTES: u64 = 16 << 20;

/// A node alone, on free ports, with its data in `dir`.
pub(crate) fn config(dir: &Path) -> Config {
    let mut config = Config::default();
    config.node.data_dir = dir.to_owned();
    config.node.partitions = PARTITIONS;
    config.node.threads = 2;
    config.native.addr = "127.0.0.1:0".into();
    config.peer.addr = "127.0.0.1:0".into();
    config.http.addr = "127.0.0.1:0".into();
    config.raft.kept_entries = KEPT_ENTRIES;
    config.storage.checkpoint_interval_ms = CHECKPOINT_INTERVAL_MS;
    config.storage.checkpoint_log_bytes = SEGMENT_BYTES;
    config.storage.wal_segment_bytes = SEGMENT_BYTES;
    config.storage.history_ms = HISTORY_MS;
    config.shutdown.drain_ms = 0;
    config
}

/// The same for a node that is judged: it is read in pages, which must not come too late for what they began with.
pub(crate) fn judged(mut config: Config) -> Config {
    config.storage.history_ms = Config::default().storage.history_ms;
    config
}

/// The same for a process, with that engine.
pub(crate) fn environment(engine: EngineKind) -> Vec<(&'static str, String)> {
    vec![
        ("TRANDB_STORAGE__ENGINE", engine.to_string()),
        ("TRANDB_NODE__PARTITIONS", PARTITIONS.to_string()),
        ("TRANDB_RAFT__KEPT_ENTRIES", KEPT_ENTRIES.to_string()),
        ("TRANDB_STORAGE__CHECKPOINT_INTERVAL_MS", CHECKPOINT_INTERVAL_MS.to_string()),
        ("TRANDB_STORAGE__CHECKPOINT_LOG_BYTES", SEGMENT_BYTES.to_string()),
        ("TRANDB_STORAGE__WAL_SEGMENT_BYTES", SEGMENT_BYTES.to_string()),
        ("TRANDB_STORAGE__HISTORY_MS", HISTORY_MS.to_string()),
    ]
}
