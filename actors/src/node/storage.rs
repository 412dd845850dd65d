//! A node's storage, opened: its directory locked, its log recovered, its engine ready.

use super::StartError;
use super::options::{DiskWork, StorageDoor};
use crate::partition::checkpoint_index;
use crate::replica::{ExpectedSystem, expected_system, system_checkpoint_index};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use trandb_cluster::{ClusterId, NodeId, PartitionId};
use trandb_runtime::config::Config;
use trandb_runtime::datadir::{DataDir, Identity};
use trandb_runtime::disk::{Disk, RealDisk, SimDisk};
use trandb_runtime::engine::{self, Engine, EngineError, MemoryEngine, Told, Worker};
use trandb_runtime::raft::{decode_command, log_id};
use trandb_runtime::random::Random;
use trandb_runtime::wal::{
    Durable, RecoveredGroup, Wal, WalError, WalOptions, WalReader, Writer, WriterOptions,
};

/// The part of a node's memory that its engine may cache in, where that is less than the engine's default: data needs it
/// more than what is also on disk.
const CACHE_PART: u64 = 16;

/// Where the identity is kept.
enum Keeper {
    Directory(DataDir),
    Memory(Arc<Mutex<Identity>>),
}

/// A node's storage.
pub(super) struct Storage {
    keeper: Keeper,
    identity: Identity,
    engine: Worker,
    reader: WalReader,
    durable: Durable,
    writer: Option<Writer>,
    recovered: BTreeMap<PartitionId, RecoveredGroup>,
}

impl Storage {
    pub(super) async fn open(
        config: &Config,
        door: StorageDoor,
        conversion: Told,
        random: &Random,
        memory_bytes: Option<u64>,
    ) -> Result<Self, StartError> {
        match door {
            StorageDoor::Configured if config.node.ephemeral => {
                let disk = Arc::new(SimDisk::volatile());
                let identity = Arc::new(Mutex::new(fresh(random)));
                let engine = Arc::new(MemoryEngine::new());
                Self::on(
                    config,
                    Keeper::Memory(identity),
                    disk,
                    Path::new("wal"),
                    engine,
                    DiskWork::Threads,
                    random,
                )
            }
            StorageDoor::Configured => {
                let directory = DataDir::open(&config.node.data_dir, || random.next_u64())?;
                let cache_bytes = memory_bytes.map(|bytes| bytes / CACHE_PART);
                let (directory, engine) =
                    engine::open_aside(directory, config.storage.engine.named(), cache_bytes, conversion)
                        .await?;
                let wal = directory.wal_dir();
                Self::on(
                    config,
                    Keeper::Directory(directory),
                    Arc::new(RealDisk),
                    &wal,
                    engine,
                    DiskWork::Threads,
                    random,
                )
            }
            StorageDoor::Given { disk, engine, identity, work } => {
                Self::on(config, Keeper::Memory(identity), disk, Path::new("wal"), engine, work, random)
            }
        }
    }

    fn on(
        config: &Config,
        keeper: Keeper,
        disk: Arc<dyn Disk>,
        wal: &Path,
        engine: Arc<dyn Engine>,
        work: DiskWork,
        random: &Random,
    ) -> Result<Self, StartError> {
        let identity = match &keeper {
            Keeper::Directory(directory) => *directory.identity(),
            Keeper::Memory(identity) => *identity.lock().expect("no holder of the lock panics"),
        };
        if let Some(cluster) = identity.cluster {
            refuse_without_log(&*disk, wal, cluster)?;
        }
        let options = WalOptions { segment_bytes: config.storage.wal_segment_bytes, salt: random.next_u64() };
        let (log, recovered) = Wal::open(disk, wal, options)?;
        if let Some((segment, offset)) = recovered.torn_tail {
            tracing::info!(segment, offset, "the log ended in the middle of a write, which was cut off");
        }
        refuse_lost_checkpoints(&*engine, &recovered.groups)?;
        let reader = log.reader();
        let (writer, engine) = match work {
            DiskWork::Threads => (
                Writer::threaded(log, WriterOptions::default()).map_err(StartError::Thread)?,
                Worker::threaded(engine),
            ),
            DiskWork::Callers => (Writer::inline(log), Worker::inline(engine)),
            DiskWork::Slow(takes) => (Writer::slow(log, move || takes()), Worker::inline(engine)),
        };
        let (durable, recovered) = (writer.durable(), recovered.groups);
        Ok(Self { keeper, identity, engine, reader, durable, writer: Some(writer), recovered })
    }

    /// How far the log is durable.
    pub(super) fn durable(&self) -> Durable {
        self.durable.clone()
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What is known here of the cluster, if anything is: the system group's state if all of its log is committed, which it need
    /// not be.
    pub(super) async fn expected_system(&self) -> Result<Option<ExpectedSystem>, StartError> {
        let mut log = Vec::new();
        for (&index, &(term, location)) in
            self.recovered.get(&PartitionId::SYSTEM).iter().flat_map(|group| &group.entries)
        {
            let (at, payload) = (log_id(term, index), self.reader.read(location)?.payload);
            log.push((at, decode_command(at, &payload).map_err(StartError::Checkpoint)?));
        }
        let expected = self.engine.run(move |engine| Ok::<_, EngineError>(expected_system(engine, log)));
        expected.await.map_err(io::Error::other).flatten().map_err(StartError::Checkpoint)
    }

    /// Whether the system group's log holds anything.
    pub(super) fn knows_system_group(&self) -> bool {
        self.recovered.contains_key(&PartitionId::SYSTEM)
    }

    /// Where it lies, if that is a directory.
    pub(super) fn directory(&self) -> Option<&Path> {
        match &self.keeper {
            Keeper::Directory(directory) => Some(directory.path()),
            Keeper::Memory(_) => None,
        }
    }

    pub(super) fn engine(&self) -> Worker {
        self.engine.clone()
    }

    pub(super) fn reader(&self) -> WalReader {
        self.reader.clone()
    }

    pub(super) fn take_writer(&mut self) -> Writer {
        self.writer.take().expect("the log's actor is started once")
    }

    pub(super) fn take_recovered(&mut self) -> BTreeMap<PartitionId, RecoveredGroup> {
        std::mem::take(&mut self.recovered)
    }

    /// This directory belongs to a founder of a cluster that has no name yet.
    pub(super) fn remember_founder(&mut self, node: NodeId) -> Result<(), StartError> {
        self.set(Identity { node: Some(node), ..self.identity })
    }

    /// This directory belongs to this node of this cluster from now on.
    pub(super) fn remember(&mut self, node: NodeId, cluster: ClusterId) -> Result<(), StartError> {
        self.set(Identity { node: Some(node), cluster: Some(cluster), rejoins: None, ..self.identity })
    }

    /// From now on leases of this length are promised. Answers the longest one that may have been promised and not be over:
    /// settings can have been changed since, and the node killed several times.
    pub(super) fn promise(&mut self, lease_ms: u64) -> Result<u64, StartError> {
        let lease_ms = lease_ms.max(self.identity.lease_ms);
        self.set(Identity { lease_ms, ..self.identity })?;
        Ok(lease_ms)
    }

    /// All promises of leases longer than that are over.
    pub(super) fn promise_no_longer(&mut self, lease_ms: u64) -> Result<(), StartError> {
        self.set(Identity { lease_ms, ..self.identity })
    }

    fn set(&mut self, identity: Identity) -> Result<(), StartError> {
        if identity == self.identity {
            return Ok(());
        }
        match &mut self.keeper {
            Keeper::Directory(directory) => directory.set_identity(identity)?,
            Keeper::Memory(kept) => *kept.lock().expect("no holder of the lock panics") = identity,
        }
        self.identity = identity;
        Ok(())
    }
}

/// A member's log is made before it becomes one, so a directory without one has lost it: votes and entries that
/// others count on. Beginning an empty one would break promises instead of admitting it.
fn refuse_without_log(disk: &dyn Disk, wal: &Path, cluster: ClusterId) -> Result<(), StartError> {
    let unreadable = |error| WalError::Io { action: "list", file: wal.to_owned(), source: Arc::new(error) };
    let lost = !disk.exists(wal).map_err(unreadable)? || disk.read_dir(wal).map_err(unreadable)?.is_empty();
    if lost {
        let what = format!("no segment is left, though this node is a member of cluster {cluster}");
        return Err(WalError::Corrupt { file: wal.to_owned(), offset: 0, group: None, what }.into());
    }
    Ok(())
}

/// The log goes only up to what a durable checkpoint holds. An engine whose file rotted may open all the same, as an
/// older state of itself or an empty one: serving that would take writes back that were acknowledged.
fn refuse_lost_checkpoints(
    engine: &dyn Engine,
    recovered: &BTreeMap<PartitionId, RecoveredGroup>,
) -> Result<(), StartError> {
    for (&partition, group) in recovered {
        let Some((purged, _)) = group.purged else { continue };
        let checkpoint = if partition.is_system() {
            system_checkpoint_index(engine)
        } else {
            checkpoint_index(engine, partition)
        };
        let checkpoint = checkpoint.map_err(StartError::Checkpoint)?;
        if checkpoint < Some(purged) {
            return Err(StartError::CheckpointLost { partition, checkpoint, purged });
        }
    }
    Ok(())
}

fn fresh(random: &Random) -> Identity {
    Identity::fresh(trandb_cluster::InstanceId(random.next_u64()))
}

#[cfg(test)]
#[path = "storage_tests.rs"]
mod tests;
