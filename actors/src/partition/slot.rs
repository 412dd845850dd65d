//! Which of a partition's checkpoints in the engine is the valid one.
//!
//! A received snapshot replaces a partition's state wholly. It is written beside the old one, under the next
//! generation, and one small durable write makes it the valid one; so a crash at any point leaves either the
//! old state or the new, never a mixture.
//!
//! In the engine a generation is a partition of its own, with the generation in the high bits of its number;
//! generation zero of a partition is where the number of the valid generation is kept.

use super::applier::StoredMeta;
use bytes::Bytes;
use std::io;
use trandb_cluster::limits::PARTITIONS_MAX;
use trandb_cluster::{PartitionId, wire};
use trandb_runtime::engine::{Engine, EngineError};

/// Bits of a number in the engine that name the partition.
const PARTITION_BITS: u32 = 16;

const _: () = assert!(PARTITIONS_MAX < 1 << PARTITION_BITS);

/// Where generation `generation` of a partition lies in the engine.
pub(super) fn slot(partition: PartitionId, generation: u16) -> PartitionId {
    PartitionId(partition.0 | u32::from(generation) << PARTITION_BITS)
}

/// The valid generation; 1 for a partition that was never replaced.
pub(super) fn valid_generation(engine: &dyn Engine, partition: PartitionId) -> Result<u16, EngineError> {
    Ok(match engine.meta(slot(partition, 0))? {
        Some(bytes) => wire::decode(&bytes).unwrap_or(1),
        None => 1,
    })
}

/// The generation after `generation`; never zero.
pub(super) fn next_generation(generation: u16) -> u16 {
    generation.checked_add(1).unwrap_or(1)
}

/// Makes `generation` the valid one and forgets the one before it.
pub(crate) fn make_valid(
    engine: &dyn Engine,
    partition: PartitionId,
    old: u16,
    generation: u16,
) -> Result<(), EngineError> {
    engine.commit(slot(partition, 0), &wire::encode(&generation))?;
    engine.drop_partition(slot(partition, old))
}

/// Forgets everything about a partition.
pub(crate) fn forget(engine: &dyn Engine, partition: PartitionId) -> Result<(), EngineError> {
    let generation = valid_generation(engine, partition)?;
    engine.drop_partition(slot(partition, generation))?;
    engine.drop_partition(slot(partition, next_generation(generation)))?;
    engine.drop_partition(slot(partition, 0))
}

/// The valid checkpoint's meta.
///
/// # Errors
/// When the engine fails.
pub(super) fn valid_meta(engine: &dyn Engine, partition: PartitionId) -> io::Result<(u16, Option<Bytes>)> {
    let generation = valid_generation(engine, partition).map_err(io::Error::other)?;
    // What a crash left of a replacement that never became valid.
    engine.drop_partition(slot(partition, next_generation(generation))).map_err(io::Error::other)?;
    let meta = engine.meta(slot(partition, generation)).map_err(io::Error::other)?;
    Ok((generation, meta))
}

/// The last log index that the valid checkpoint holds; none if there is no checkpoint.
///
/// # Errors
/// When the engine fails or the checkpoint cannot be decoded.
pub(crate) fn checkpoint_index(engine: &dyn Engine, partition: PartitionId) -> io::Result<Option<u64>> {
    let generation = valid_generation(engine, partition)?;
    let Some(meta) = engine.meta(slot(partition, generation))? else { return Ok(None) };
    let undecodable = |error| io::Error::new(io::ErrorKind::InvalidData, format!("{partition}: {error}"));
    let meta: StoredMeta = wire::decode(&meta).map_err(undecodable)?;
    Ok(meta.log_id.map(|log_id| log_id.index))
}

/// A checkpoint's meta that reaches to `index`.
#[cfg(test)]
pub(crate) fn checkpoint_meta(index: u64) -> Vec<u8> {
    wire::encode(&StoredMeta {
        log_id: Some(trandb_runtime::raft::log_id(1, index)),
        ..StoredMeta::default()
    })
}
