//! Copying checkpoints from one engine to another.

use super::home::HomeError;
use super::{Engine, EngineError};
use crate::config::EngineKind;
use trandb_cluster::PartitionId;
use trandb_cluster::mvcc::StoredVersion;
use xxhash_rust::xxh3::Xxh3;

/// Bytes of keys and values that are put at once.
const CHUNK_BYTES: usize = 1 << 20;

/// How far a conversion is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversion {
    /// Where checkpoints are copied from.
    pub from: EngineKind,
    /// Where to.
    pub to: EngineKind,
    /// How many partitions there are.
    pub partitions: usize,
    /// How many of them are copied.
    pub copied: usize,
    /// Versions of keys that are copied.
    pub versions: u64,
}

impl Conversion {
    pub(super) fn new(from: EngineKind, to: EngineKind, partitions: usize) -> Self {
        Self { from, to, partitions, copied: 0, versions: 0 }
    }
}

/// What a partition's checkpoint amounts to, in whatever order it is read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    meta: Option<bytes::Bytes>,
    versions: u64,
    hashes: u64,
}

impl Sum {
    fn add(&mut self, StoredVersion { key, version }: &StoredVersion) {
        let mut hash = Xxh3::new();
        hash.update(&(key.as_bytes().len() as u64).to_be_bytes());
        hash.update(key.as_bytes());
        hash.update(&version.timestamp.0.to_be_bytes());
        hash.update(&version.index.to_be_bytes());
        hash.update(&[u8::from(version.value.is_some())]);
        hash.update(version.value.as_deref().unwrap_or_default());
        self.versions += 1;
        self.hashes = self.hashes.wrapping_add(hash.digest());
    }
}

/// What a partition's checkpoint in `engine` amounts to.
pub(super) fn sum(engine: &dyn Engine, partition: PartitionId) -> Result<Sum, EngineError> {
    let mut sum = Sum { meta: engine.meta(partition)?, ..Sum::default() };
    engine.load(partition, &mut |version| sum.add(&version))?;
    Ok(sum)
}

/// Copies a partition's checkpoint; what it amounts to. One that was never committed is none.
pub(super) fn copy(
    from: &dyn Engine,
    to: &dyn Engine,
    partition: PartitionId,
    conversion: &mut Conversion,
    told: &dyn Fn(&Conversion),
) -> Result<Sum, HomeError> {
    let mut sum = Sum { meta: from.meta(partition)?, ..Sum::default() };
    if let Some(meta) = &sum.meta.clone() {
        let mut chunk = Vec::new();
        let mut bytes = 0;
        let mut put = Ok(());
        let mut hand_on = |chunk: &mut Vec<StoredVersion>| {
            to.put(partition, chunk)?;
            conversion.versions += chunk.len() as u64;
            told(conversion);
            chunk.clear();
            Ok(())
        };
        from.load(partition, &mut |version| {
            if put.is_err() {
                return;
            }
            sum.add(&version);
            bytes +=
                version.key.as_bytes().len() + version.version.value.as_ref().map_or(0, bytes::Bytes::len);
            chunk.push(version);
            if bytes >= CHUNK_BYTES {
                bytes = 0;
                put = hand_on(&mut chunk);
            }
        })?;
        put.and_then(|()| hand_on(&mut chunk)).map_err(HomeError::Engine)?;
        to.commit(partition, meta)?;
    }
    conversion.copied += 1;
    told(conversion);
    Ok(sum)
}
