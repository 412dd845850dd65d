//! The deterministic state machine of one data partition.
//!
//! Every replica applies the same log to the same state and answers the same. The state is an ordered map from
//! key to its versions ([`crate::mvcc`]), owned by one actor, so there are no locks.
//!
//! # One order
//! The timestamps of entries grow strictly with the log index; one that would break that is refused
//! whole ([`crate::command::Applied::StaleTimestamp`]). A write is committed at its entry's timestamp. A transaction over
//! several partitions is committed at one that was given out after all of them had prepared; until it is resolved, nobody
//! else writes its keys and whoever reads them asks what became of it. So *per key* timestamps grow with the log index, and
//! the state at a log index, which is what a checkpoint or snapshot of that index holds, is a prefix of every key's
//! versions together with what is held by transactions that are undecided.
//!
//! # From memory to disk and to other replicas
//!
//! ```text
//!   apply ──▶ versions in memory ──▶ checkpoint_puts ──▶ engine          (each version once)
//!                   │                                       │
//!                   │ prune                                 │ restore_from_checkpoint
//!                   └─────▶ checkpoint_removes ──▶ engine   ▼
//!             pin_snapshot, snapshot_chunk ──▶ other replica: restore_from_snapshot
//! ```
//!
//! Checkpoints and snapshots freeze nothing: they are the versions with an index up to theirs, which later
//! writes do not touch, and pruning keeps until they are through.
//!
//! # What is forgotten
//! A version goes once a newer one of its key is (1) at or below the GC floor, so that no read that is still
//! allowed can tell, (2) within every pinned snapshot, and (3) within the last committed checkpoint. One that came after
//! the last checkpoint began needs (1) alone while no snapshot is pinned: the engine has nothing of it. A
//! tombstone that is its key's only version goes when it is at or below the floor and checkpointed, and
//! no snapshot is pinned. When that happens is each replica's own affair; no read and no digest shows it.
//!
//! # Caveats
//! - Whether a read lies below the GC floor is the caller's to check: here it would see too few versions.
//! - A scan steps over keys that have no value at its timestamp without counting them against a limit, so
//!   a range of a million tombstones, until they are forgotten, costs a page a million steps.
//! - What was superseded out of the order of its log (a transaction over several partitions is committed below what its
//!   entries carry) may be looked at a few times in vain before a checkpoint has it.

mod apply;
mod check;
mod checkpoint;
mod counters;
mod gc;
mod history;
mod read;
mod restore;
mod snapshot;
mod txn;

pub use check::Checked;
pub use history::DIGEST_HISTORY_MAX;
pub use restore::PartitionRestore;
pub use snapshot::SnapshotCursor;

use crate::digest::Digest;
use crate::key::EncodedKey;
use crate::mvcc::Chain;
use crate::timestamp::Timestamp;
use checkpoint::Checkpoints;
use counters::Counters;
use gc::Garbage;
use history::History;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use txn::Holdings;

/// What a checkpoint or snapshot says about itself. With the versions up to its index it is the whole state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct PartitionHeader {
    /// The last log index that it holds.
    pub index: u64,
    /// The highest commit timestamp that the log had used up to there.
    pub last_timestamp: Timestamp,
    /// Reads below this are not answered truthfully any more.
    pub gc_floor: Timestamp,
    /// The digest of its live data.
    pub digest: Digest,
    /// Its live keys.
    pub live_keys: u64,
    /// Of transactions that began at or before this, commits may be forgotten.
    #[serde(default)]
    pub commit_floor: Timestamp,
}

/// The state of one data partition on one replica. See the [module](self) for how it works.
#[derive(Debug, Default)]
pub struct PartitionState {
    keys: BTreeMap<EncodedKey, Chain>,
    applied: u64,
    last_timestamp: Timestamp,
    gc_floor: Timestamp,
    counters: Counters,
    history: History,
    checkpoints: Checkpoints,
    /// Pinned snapshots by log index.
    pins: BTreeMap<u64, snapshot::Pin>,
    holdings: Holdings,
    commit_floor: Timestamp,
    /// Outcomes of transactions among the keys.
    outcomes: usize,
    garbage: Garbage,
}

impl PartitionState {
    /// The empty state, before the first log entry.
    pub fn new() -> Self {
        Self::default()
    }

    /// The index of the last log entry that was applied or skipped; zero before the first.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The highest commit timestamp that the log has used.
    pub fn last_timestamp(&self) -> Timestamp {
        self.last_timestamp
    }

    /// Reads below this are not answered truthfully any more.
    pub fn gc_floor(&self) -> Timestamp {
        self.gc_floor
    }

    /// The digest of the live data.
    pub fn digest(&self) -> Digest {
        let mut digest = self.counters.digest;
        digest.add(self.holdings.digest());
        digest
    }

    /// The digest and number of live keys right after log index `index`; an index between two known ones
    /// answers as the one before it. None for the future, and for what is further back than
    /// [`DIGEST_HISTORY_MAX`] entries.
    pub fn digest_at(&self, index: u64) -> Option<(Digest, u64)> {
        if index > self.applied { None } else { self.history.at(index) }
    }

    /// The digest computed anew from all data: a check on the incremental one. Walks every key and value.
    pub fn recompute_digest(&self) -> Digest {
        let mut digest = self.holdings.digest();
        for (key, chain) in &self.keys {
            let newest = chain.newest();
            if let Some(value) = &newest.value {
                digest.add(Digest::of(key, newest.timestamp, value));
            }
        }
        digest
    }

    /// Keys that have a value now.
    pub fn live_keys(&self) -> u64 {
        self.counters.live_keys
    }

    /// Bytes of keys that have a value now and of those values, and of what is kept about transactions among them: what
    /// there is without history and overheads.
    pub fn live_bytes(&self) -> u64 {
        self.counters.live_bytes
    }

    /// Versions in memory, tombstones and old ones too.
    pub fn versions(&self) -> u64 {
        self.counters.versions
    }

    /// About how many bytes of memory the data takes: keys, values, and per key and version the overheads
    /// [`crate::mvcc::KEY_OVERHEAD_BYTES`] and [`crate::mvcc::VERSION_OVERHEAD_BYTES`].
    pub fn bytes(&self) -> u64 {
        self.counters.bytes + self.holdings.bytes()
    }

    fn header(&self) -> PartitionHeader {
        PartitionHeader {
            index: self.applied,
            last_timestamp: self.last_timestamp,
            gc_floor: self.gc_floor,
            digest: self.digest(),
            live_keys: self.counters.live_keys,
            commit_floor: self.commit_floor,
        }
    }
}
