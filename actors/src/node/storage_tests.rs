//! Storage whose engine holds less than the log was purged to, and what a directory remembers of promises.

use super::*;
use crate::partition::{checkpoint_meta, make_valid};
use crate::replica::system_checkpoint_meta;
use bytes::Bytes;
use trandb_runtime::wal::{Record, RecordKind};

const PURGED: u64 = 7;
const P: PartitionId = PartitionId(3);

/// A log of which `group` has purged all up to [`PURGED`].
fn purged_log(group: PartitionId) -> SimDisk {
    let disk = SimDisk::new();
    let options = WalOptions { segment_bytes: 64 << 10, salt: 5 };
    let (mut log, _) = Wal::open(Arc::new(disk.clone()), Path::new("wal"), options).expect("opens");
    let record =
        |kind, index| Record { group, kind, term: 1, index, payload: Bytes::from_static(b"payload") };
    log.write(&[record(RecordKind::Entry, PURGED), record(RecordKind::PurgedTo, PURGED)]).expect("writes");
    log.write(&[record(RecordKind::Entry, PURGED + 1)]).expect("writes");
    disk
}

async fn open(disk: &SimDisk, engine: &MemoryEngine) -> Result<Storage, StartError> {
    let identity = Arc::new(Mutex::new(Identity::fresh(trandb_cluster::InstanceId(5))));
    let door = StorageDoor::Given {
        disk: Arc::new(disk.clone()),
        engine: Arc::new(engine.clone()),
        identity,
        work: DiskWork::Callers,
    };
    Storage::open(&Config::default(), door, Arc::new(|_| ()), &Random::seeded(1), None).await
}

/// Why it is refused; none when it opens.
async fn refusal(disk: &SimDisk, engine: &MemoryEngine) -> Option<(String, u8)> {
    open(disk, engine).await.err().map(|error| (error.to_string(), error.exit_code()))
}

#[tokio::test]
async fn a_checkpoint_below_what_was_purged_is_refused() {
    let disk = purged_log(P);
    let engine = MemoryEngine::new();
    let none = "the storage engine lost a checkpoint of p3: none is left, and the log begins after index 7";
    assert_eq!(refusal(&disk, &engine).await, Some((none.to_owned(), 65)));

    let place = PartitionId(P.0 | 1 << 16);
    engine.commit(place, &checkpoint_meta(PURGED - 1)).expect("commits");
    let older = "the storage engine lost a checkpoint of p3: the one that is left reaches to index 6, \
                 and the log begins after index 7";
    assert_eq!(refusal(&disk, &engine).await, Some((older.to_owned(), 65)));

    for enough in [PURGED, PURGED + 1] {
        engine.commit(place, &checkpoint_meta(enough)).expect("commits");
        assert_eq!(refusal(&disk, &engine).await, None, "a checkpoint to {enough}");
    }
}

#[tokio::test]
async fn only_the_valid_generation_counts() {
    let disk = purged_log(P);
    let engine = MemoryEngine::new();
    engine.commit(PartitionId(P.0 | 2 << 16), &checkpoint_meta(PURGED)).expect("commits");
    assert!(refusal(&disk, &engine).await.is_some(), "generation 1 is the valid one and is not there");
    make_valid(&engine, P, 1, 2).expect("commits");
    assert_eq!(refusal(&disk, &engine).await, None);
}

#[tokio::test]
async fn the_system_group_is_held_to_it_too() {
    let disk = purged_log(PartitionId::SYSTEM);
    let engine = MemoryEngine::new();
    for (index, refused) in [(None, true), (Some(PURGED - 1), true), (Some(PURGED), false)] {
        if let Some(index) = index {
            engine.commit(PartitionId::SYSTEM, &system_checkpoint_meta(index)).expect("commits");
        }
        let refusal = refusal(&disk, &engine).await;
        assert_eq!(refusal.as_ref().map(|(_, code)| *code), refused.then_some(65), "{index:?}: {refusal:?}");
    }
}

#[tokio::test]
async fn a_checkpoint_that_cannot_be_decoded_is_corrupt() {
    let disk = purged_log(P);
    let engine = MemoryEngine::new();
    engine.commit(PartitionId(P.0 | 1 << 16), b"\xc1 is never valid").expect("commits");
    let (message, code) = refusal(&disk, &engine).await.expect("is refused");
    assert_eq!(code, 65, "{message}");
    assert!(message.contains("p3"), "{message}");
}

#[tokio::test]
async fn what_the_log_says_of_the_cluster_is_known_without_a_checkpoint() {
    let disk = SimDisk::new();
    let node = crate::node::start(crate::testing::options(&disk, |_| ())).await.expect("starts");
    crate::testing::wait_ready(&node).await;
    let (cluster, peer) = (node.database().context().system().cluster_id, node.addresses().peer.clone());
    node.shutdown().await;

    let storage = open(&disk, &MemoryEngine::new()).await.expect("nothing was purged");
    let expected = storage.expected_system().await.expect("is what was written").expect("something was");
    assert!(cluster.is_some());
    assert_eq!(expected.state.cluster_id, cluster);
    assert_eq!(expected.state.nodes[&NodeId(1)].addresses.peer, peer);

    let nothing = open(&SimDisk::new(), &MemoryEngine::new()).await.expect("opens");
    assert!(nothing.expected_system().await.expect("can be read").is_none());
}

#[tokio::test]
async fn the_longest_lease_is_owed_until_all_are_over() {
    let identity = Arc::new(Mutex::new(Identity::fresh(trandb_cluster::InstanceId(5))));
    let start = async || {
        let door = StorageDoor::Given {
            disk: Arc::new(SimDisk::new()),
            engine: Arc::new(MemoryEngine::new()),
            identity: identity.clone(),
            work: DiskWork::Callers,
        };
        let opened =
            Storage::open(&Config::default(), door, Arc::new(|_| ()), &Random::seeded(1), None).await;
        opened.unwrap_or_else(|error| panic!("{error}"))
    };
    assert_eq!(start().await.promise(1_500).ok(), Some(1_500));
    // Killed twice, with shorter settings: the first promise may not be over.
    assert_eq!(start().await.promise(400).ok(), Some(1_500));
    let mut storage = start().await;
    assert_eq!(storage.promise(400).ok(), Some(1_500));
    storage.promise_no_longer(400).expect("is noted");
    assert_eq!(start().await.promise(400).ok(), Some(400));
}
