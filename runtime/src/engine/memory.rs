//! An engine in memory: for the simulation, which needs one that forgets on command, and for nodes that are
//! to leave nothing on disk.

use crate::engine::{Engine, EngineError, META_BYTES_MAX};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use trandb_cluster::mvcc::{StoredVersion, Version};
use trandb_cluster::{EncodedKey, PartitionId, Timestamp};

/// An engine that lives as long as the last clone of it. What was committed survives [`MemoryEngine::crash`],
/// so a clone is the disk of a simulated node.
#[derive(Debug, Default, Clone)]
pub struct MemoryEngine {
    partitions: Arc<Mutex<BTreeMap<PartitionId, Partition>>>,
}

type RecordName = (EncodedKey, Timestamp);

#[derive(Debug, Clone, Default)]
struct Partition {
    meta: Option<Bytes>,
    records: BTreeMap<RecordName, Version>,
    /// What the records changed since the last commit were before: keeping this instead of a second copy
    /// costs nothing while all is committed.
    undo: BTreeMap<RecordName, Option<Version>>,
}

impl Partition {
    fn replace(&mut self, name: RecordName, version: Option<Version>) {
        let before = match version {
            Some(version) => self.records.insert(name.clone(), version),
            None => self.records.remove(&name),
        };
        self.undo.entry(name).or_insert(before);
    }

    fn undo(&mut self) {
        for (name, before) in std::mem::take(&mut self.undo) {
            match before {
                Some(version) => self.records.insert(name, version),
                None => self.records.remove(&name),
            };
        }
    }
}

impl MemoryEngine {
    /// An empty engine.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another engine with what was committed in this one.
    pub fn copy(&self) -> Self {
        let copy = Self { partitions: Arc::new(Mutex::new(self.lock().clone())) };
        copy.crash();
        copy
    }

    /// Loses what was not committed, as a power cut may.
    pub fn crash(&self) {
        self.lock().retain(|_, partition| {
            partition.undo();
            partition.meta.is_some()
        });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PartitionId, Partition>> {
        // Nothing that holds the lock can panic half-way, short of running out of memory.
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for MemoryEngine {
    fn partitions(&self) -> Result<Vec<PartitionId>, EngineError> {
        let present = |partition: &Partition| partition.meta.is_some() || !partition.records.is_empty();
        let partitions = self.lock();
        Ok(partitions.iter().filter(|(_, partition)| present(partition)).map(|(id, _)| *id).collect())
    }

    fn meta(&self, partition: PartitionId) -> Result<Option<Bytes>, EngineError> {
        Ok(self.lock().get(&partition).and_then(|partition| partition.meta.clone()))
    }

    fn load(&self, partition: PartitionId, sink: &mut dyn FnMut(StoredVersion)) -> Result<(), EngineError> {
        if let Some(partition) = self.lock().get(&partition) {
            for ((key, _), version) in &partition.records {
                sink(StoredVersion { key: key.clone(), version: version.clone() });
            }
        }
        Ok(())
    }

    fn put(&self, partition: PartitionId, versions: &[StoredVersion]) -> Result<(), EngineError> {
        let mut partitions = self.lock();
        let partition = partitions.entry(partition).or_default();
        for StoredVersion { key, version } in versions {
            partition.replace((key.clone(), version.timestamp), Some(version.clone()));
        }
        Ok(())
    }

    fn commit(&self, partition: PartitionId, meta: &[u8]) -> Result<(), EngineError> {
        if meta.len() > META_BYTES_MAX {
            return Err(EngineError::failed(format!("a meta of {} bytes does not fit", meta.len())));
        }
        let mut partitions = self.lock();
        let partition = partitions.entry(partition).or_default();
        partition.meta = Some(Bytes::copy_from_slice(meta));
        partition.undo.clear();
        Ok(())
    }

    fn remove(
        &self,
        partition: PartitionId,
        versions: &[(EncodedKey, Timestamp)],
    ) -> Result<(), EngineError> {
        if let Some(partition) = self.lock().get_mut(&partition) {
            for name in versions {
                if partition.records.contains_key(name) {
                    partition.replace(name.clone(), None);
                }
            }
        }
        Ok(())
    }

    fn drop_partition(&self, partition: PartitionId) -> Result<(), EngineError> {
        self.lock().remove(&partition);
        Ok(())
    }
}
