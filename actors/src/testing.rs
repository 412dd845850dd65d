//! A node alone on a simulated disk, for tests that need a whole one.

use crate::node::{DiskWork, Doors, NodeOptions, RunningNode, StorageDoor};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::command::{Condition, Write};
use trandb_cluster::wire::KeyOp;
use trandb_cluster::{EncodedKey, InstanceId, KeyspaceId};
use trandb_runtime::config::Config;
use trandb_runtime::datadir::Identity;
use trandb_runtime::disk::SimDisk;
use trandb_runtime::engine::MemoryEngine;
use trandb_runtime::memory::NoMeter;

/// A node with few partitions, on free ports, and what `set` changes of its settings.
pub(crate) fn options(disk: &SimDisk, set: impl FnOnce(&mut Config)) -> NodeOptions {
    let mut config = Config::default();
    config.node.partitions = 4;
    config.native.addr = "127.0.0.1:0".into();
    config.peer.addr = "127.0.0.1:0".into();
    config.http.addr = "127.0.0.1:0".into();
    set(&mut config);
    let doors =
        Doors { metrics: Arc::new(String::new), version: "test".to_owned(), commit: "test".to_owned() };
    let identity = Identity::fresh(InstanceId(5));
    NodeOptions {
        meter: Arc::new(NoMeter),
        storage: StorageDoor::Given {
            disk: Arc::new(disk.clone()),
            engine: Arc::new(MemoryEngine::new()),
            identity: Arc::new(Mutex::new(identity)),
            work: DiskWork::Callers,
        },
        ..NodeOptions::real(config, doors)
    }
}

/// Waits until the node serves.
pub(crate) async fn wait_ready(node: &RunningNode) {
    let founded = Instant::now() + Duration::from_secs(30);
    while !node.database().readiness().ready {
        assert!(Instant::now() < founded, "{:?}", node.database().readiness());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Writes so many bytes.
pub(crate) fn write(key: &str, bytes: usize) -> KeyOp {
    let key = EncodedKey::from_parts(KeyspaceId::DEFAULT, key.as_bytes());
    KeyOp::Write(Write { key, value: Some(vec![b'v'; bytes].into()), condition: Condition::Any })
}
