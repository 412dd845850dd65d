//! A node alone on a disk that fills up, or that fails to sync.

use super::{DiskWork, NodeOptions, RunningNode, StartError, StorageDoor, start};
use crate::database::RequestContext;
use crate::testing::{self, write};
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::mvcc::StoredVersion;
use trandb_cluster::wire::{KeyOp, KeyResult};
use trandb_cluster::{EncodedKey, Error, ErrorCode, KeyspaceId, PartitionId, Timestamp};
use trandb_runtime::disk::{Full, SimDisk};
use trandb_runtime::engine::{Engine, EngineError, MemoryEngine};

/// On threads, as in production: they wait for room.
fn options(disk: &SimDisk) -> NodeOptions {
    let mut options = testing::options(disk, |_| ());
    if let StorageDoor::Given { work, .. } = &mut options.storage {
        *work = DiskWork::Threads;
    }
    options
}

async fn execute(node: &RunningNode, op: KeyOp, within: Duration) -> Result<KeyResult, Error> {
    let context = RequestContext { deadline: Instant::now() + within, trace: None };
    node.database().execute(vec![op], &context).await.remove(0).result
}

async fn put(node: &RunningNode, key: &str) -> Result<KeyResult, Error> {
    execute(node, write(key, 100), Duration::from_secs(20)).await
}

async fn is_there(node: &RunningNode, key: &str) -> bool {
    let key = EncodedKey::from_parts(KeyspaceId::DEFAULT, key.as_bytes());
    let found = execute(node, KeyOp::Get { key, at: None }, Duration::from_secs(20)).await;
    matches!(found.unwrap_or_else(|error| panic!("{error}")), KeyResult::Value(Some(_)))
}

async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !is() {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn reasons(node: &RunningNode) -> String {
    node.database().readiness().reasons.join(", ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_writes_with_the_reason_and_nothing_else() {
    let disk = SimDisk::new();
    let node = start(options(&disk)).await.unwrap_or_else(|error| panic!("{error}"));
    testing::wait_ready(&node).await;
    put(&node, "before").await.unwrap();

    disk.fill(Some(Full::ToChange));
    // Nobody knows of it before something is to be written. That is never answered as done or as failed.
    let meeting = execute(&node, write("meeting", 100), Duration::from_millis(1500)).await.unwrap_err();
    assert_eq!(meeting.code, ErrorCode::Unknown, "{meeting}");
    eventually("the node says that it is full", || reasons(&node).contains("no room on the disk")).await;
    for _ in 0..3 {
        let refused = put(&node, "while full").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Unavailable);
        assert!(refused.message.contains("no room on the disk"), "{refused}");
        assert!(is_there(&node, "before").await);
    }

    disk.fill(None);
    eventually("the node is ready again", || node.database().readiness().ready).await;
    put(&node, "after").await.unwrap();
    assert!(!is_there(&node, "while full").await);
    // What waited for room was written when there was some.
    assert!(is_there(&node, "meeting").await);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_ends_the_node_which_is_to_be_rebuilt_from_its_disk() {
    let disk = SimDisk::new();
    let options = options(&disk);
    let StorageDoor::Given { disk: door, engine, identity, .. } = &options.storage else { unreachable!() };
    let storage = || StorageDoor::Given {
        disk: door.clone(),
        engine: engine.clone(),
        identity: identity.clone(),
        work: DiskWork::Threads,
    };
    let again = NodeOptions { storage: storage(), ..testing::options(&disk, |_| ()) };
    let node = start(NodeOptions { storage: storage(), ..testing::options(&disk, |_| ()) })
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    testing::wait_ready(&node).await;
    put(&node, "before").await.unwrap();
    disk.fail_next_sync();
    let lost = put(&node, "lost").await.unwrap_err();
    assert_ne!(lost.code, ErrorCode::Internal, "{lost}");
    let why = node.failed().await;
    assert!(why.rebuild && why.exit_code == 74, "{why:?}");
    node.shutdown().await;

    let node = start(again).await.unwrap_or_else(|error| panic!("{error}"));
    testing::wait_ready(&node).await;
    assert!(is_there(&node, "before").await);
    put(&node, "after").await.unwrap();
    node.shutdown().await;
}

/// An engine that reads nothing while its disk is full, but for the system group.
struct Tight {
    engine: MemoryEngine,
    full: AtomicBool,
}

impl Engine for Tight {
    fn partitions(&self) -> Result<Vec<PartitionId>, EngineError> {
        self.engine.partitions()
    }

    fn meta(&self, partition: PartitionId) -> Result<Option<Bytes>, EngineError> {
        if self.full.load(Ordering::Relaxed) && !partition.is_system() {
            let error = io::ErrorKind::StorageFull.into();
            return Err(EngineError::Io { action: "read a partition", error });
        }
        self.engine.meta(partition)
    }

    fn load(&self, partition: PartitionId, sink: &mut dyn FnMut(StoredVersion)) -> Result<(), EngineError> {
        self.engine.load(partition, sink)
    }

    fn put(&self, partition: PartitionId, versions: &[StoredVersion]) -> Result<(), EngineError> {
        self.engine.put(partition, versions)
    }

    fn commit(&self, partition: PartitionId, meta: &[u8]) -> Result<(), EngineError> {
        self.engine.commit(partition, meta)
    }

    fn remove(
        &self,
        partition: PartitionId,
        versions: &[(EncodedKey, Timestamp)],
    ) -> Result<(), EngineError> {
        self.engine.remove(partition, versions)
    }

    fn drop_partition(&self, partition: PartitionId) -> Result<(), EngineError> {
        self.engine.drop_partition(partition)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_without_room_while_partitions_load_is_to_be_opened_anew() {
    let disk = SimDisk::new();
    let engine = Arc::new(Tight { engine: MemoryEngine::new(), full: AtomicBool::new(false) });
    let StorageDoor::Given { disk: door, identity, .. } = options(&disk).storage else { unreachable!() };
    let begin = || {
        let storage = StorageDoor::Given {
            disk: door.clone(),
            engine: engine.clone(),
            identity: identity.clone(),
            work: DiskWork::Threads,
        };
        start(NodeOptions { storage, ..testing::options(&disk, |_| ()) })
    };
    let node = begin().await.unwrap_or_else(|error| panic!("{error}"));
    testing::wait_ready(&node).await;
    put(&node, "before").await.unwrap();
    node.shutdown().await;

    engine.full.store(true, Ordering::Relaxed);
    // The map may be known before the node serves or after.
    let why = match begin().await {
        Err(StartError::Failed(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(node) => {
            let why = node.failed().await;
            node.shutdown().await;
            why
        }
    };
    assert!(why.rebuild && why.exit_code == 74, "{why:?}");
    assert!(why.message.contains("could not read a partition"), "{why:?}");
    // Nothing of it holds the engine or goes on writing to the log.
    assert_eq!(Arc::strong_count(&engine), 1);

    engine.full.store(false, Ordering::Relaxed);
    let node = begin().await.unwrap_or_else(|error| panic!("{error}"));
    testing::wait_ready(&node).await;
    assert!(is_there(&node, "before").await);
    put(&node, "after").await.unwrap();
    node.shutdown().await;
}
