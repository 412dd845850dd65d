//! Storage engines: where checkpoints lie.
//!
//! An engine is written in the background and read at start only; what answers requests is in memory, and
//! what makes a write durable is the log. For each partition it holds a set of records, which are versions of
//! keys, and one meta record that says up to where they are complete:
//!
//! ```text
//! put, put, …      records of the next checkpoint; they may or may not survive a crash
//! commit(meta)     all puts before it and the meta are durable; a crash leaves the old meta or the new one
//! remove, …        records that the committed checkpoint no longer needs; durable with the next commit
//! ```
//!
//! After a crash an engine may hold records of a checkpoint that was never committed: whoever loads them drops
//! what is later than the meta says. It never lacks one that was committed and not removed.
//!
//! # Caveats
//! One engine serves all partitions of a node and one thread ([`Worker`]) drives it, so checkpoints of
//! different partitions queue behind each other.

mod conversion;
mod error;
mod files;
mod fjall;
mod fjall_journal;
#[cfg(test)]
mod fjall_tests;
mod fjall_tree;
mod guard;
mod home;
#[cfg(test)]
mod home_tests;
#[cfg(test)]
mod kill_tests;
mod memory;
mod record;
#[cfg(test)]
mod rot_tests;
mod sled;
#[cfg(test)]
mod sled_tests;
#[cfg(target_os = "linux")]
mod sync_range;
#[cfg(test)]
mod tests;
mod worker;

pub use self::conversion::Conversion;
pub use self::error::EngineError;
pub use self::fjall::{FjallEngine, FjallOptions};
pub use self::home::{HomeError, Told, open, open_aside};
pub use self::memory::MemoryEngine;
pub use self::sled::{SledEngine, SledOptions};
pub use self::worker::Worker;

use bytes::Bytes;
use trandb_cluster::mvcc::StoredVersion;
use trandb_cluster::{EncodedKey, PartitionId, Timestamp};

/// Bytes of a partition's meta at the most: a checkpoint's header, a log id and the group's members, of which
/// there are few. At the limit: [`EngineError::Failed`].
pub const META_BYTES_MAX: usize = 1 << 20;

/// A store of checkpoints. All calls block, and calls for one partition come one after the other; partition
/// numbers are opaque.
pub trait Engine: Send + Sync + 'static {
    /// The partitions of which it holds anything, in ascending order.
    ///
    /// # Errors
    /// As [`EngineError`] says, here as in all other calls.
    fn partitions(&self) -> Result<Vec<PartitionId>, EngineError>;

    /// What the partition's last commit said; none if there was none.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`] for a meta that is not whole.
    fn meta(&self, partition: PartitionId) -> Result<Option<Bytes>, EngineError>;

    /// Hands every record of the partition to `sink`, in any order, those of a checkpoint that was never
    /// committed among them.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`] for a record that is not whole.
    fn load(&self, partition: PartitionId, sink: &mut dyn FnMut(StoredVersion)) -> Result<(), EngineError>;

    /// Writes records. Key and timestamp name a record; one that is there already is replaced.
    ///
    /// # Errors
    /// When it fails, any of them may have been written.
    fn put(&self, partition: PartitionId, versions: &[StoredVersion]) -> Result<(), EngineError>;

    /// Makes the partition's puts and removals so far durable, and `meta` with them.
    ///
    /// # Errors
    /// When it fails, the partition's meta after a restart is this one or the one before.
    fn commit(&self, partition: PartitionId, meta: &[u8]) -> Result<(), EngineError>;

    /// Removes records; one that is not there is no error. May be undone by a crash until the next commit.
    ///
    /// # Errors
    /// When it fails, any of them may be gone.
    fn remove(&self, partition: PartitionId, versions: &[(EncodedKey, Timestamp)])
    -> Result<(), EngineError>;

    /// Removes the partition's records and its meta, durably. A partition that is not there is no error.
    ///
    /// # Errors
    /// When it fails, the partition may be there whole or not at all.
    fn drop_partition(&self, partition: PartitionId) -> Result<(), EngineError>;

    /// Whether all calls fail from now on, until it is opened anew.
    fn has_failed(&self) -> bool {
        false
    }
}
