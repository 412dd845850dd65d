//! Building a replica's state from a checkpoint or a snapshot.

use super::checkpoint::Checkpoints;
use super::counters::Counters;
use super::gc::Garbage;
use super::history::History;
use super::txn::{Holdings, is_outcome, records};
use super::{PartitionHeader, PartitionState};
use crate::error::Error;
use crate::ids::KeyspaceId;
use crate::key::EncodedKey;
use crate::mvcc::{Chain, StoredVersion};
use crate::timestamp::Timestamp;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Where the versions come from, which decides what the next checkpoint must put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The engine: it holds all of them.
    Checkpoint,
    /// Another replica: the engine holds none of them.
    Snapshot,
}

/// A state in the making. Versions come in any order and may come twice.
#[derive(Debug)]
pub struct PartitionRestore {
    header: PartitionHeader,
    origin: Origin,
    keys: BTreeMap<EncodedKey, Chain>,
    counters: Counters,
    /// The highest log index of any version that was there.
    begun: u64,
    /// All keys, for a snapshot.
    dirty: Vec<EncodedKey>,
    holdings: Holdings,
    /// Records of holdings as of other checkpoints, to be removed.
    garbage: Vec<(EncodedKey, Timestamp)>,
    /// Records of holdings as of this one.
    held_records: Vec<(EncodedKey, Timestamp)>,
    unreadable: Option<Error>,
}

impl PartitionState {
    /// Starts from the committed checkpoint `header` of this replica's own engine.
    pub fn restore_from_checkpoint(header: PartitionHeader) -> PartitionRestore {
        PartitionRestore::new(header, Origin::Checkpoint)
    }

    /// Starts from another replica's snapshot `header`. The engine must hold nothing for this partition: the
    /// next checkpoint puts everything.
    pub fn restore_from_snapshot(header: PartitionHeader) -> PartitionRestore {
        PartitionRestore::new(header, Origin::Snapshot)
    }
}

impl PartitionRestore {
    fn new(header: PartitionHeader, origin: Origin) -> Self {
        Self {
            header,
            origin,
            keys: BTreeMap::new(),
            counters: Counters::default(),
            begun: 0,
            dirty: Vec::new(),
            holdings: Holdings::default(),
            garbage: Vec::new(),
            held_records: Vec::new(),
            unreadable: None,
        }
    }

    /// Takes one version. One that is later than the header is ignored: a checkpoint that was never committed
    /// left it, and the log holds its entry.
    pub fn add(&mut self, stored: StoredVersion) {
        if records::is_holding(&stored.key) {
            self.add_holding(&stored);
            return;
        }
        let StoredVersion { key, version } = stored;
        self.begun = self.begun.max(version.index);
        if version.index > self.header.index {
            return;
        }
        match self.keys.entry(key) {
            Entry::Vacant(vacant) => {
                self.counters.key_added(vacant.key());
                self.counters.version_added(&version);
                self.counters.newest_changed(vacant.key(), None, &version);
                if self.origin == Origin::Snapshot {
                    self.dirty.push(vacant.key().clone());
                }
                vacant.insert(Chain::One(version));
            }
            Entry::Occupied(mut occupied) => {
                let newest = occupied.get().newest();
                let becomes_newest = version.timestamp > newest.timestamp;
                let (old, new) = (newest.clone(), version.clone());
                if occupied.get_mut().insert(version) {
                    self.counters.version_added(&new);
                    if becomes_newest {
                        self.counters.newest_changed(occupied.key(), Some(&old), &new);
                    }
                }
            }
        }
    }

    fn add_holding(&mut self, stored: &StoredVersion) {
        let name = (stored.key.clone(), stored.version.timestamp);
        if stored.version.index != self.header.index {
            self.garbage.push(name);
            return;
        }
        self.held_records.push(name);
        if let Err(error) = records::restore(&mut self.holdings, stored) {
            self.unreadable = Some(error);
        }
    }

    /// The state at the header's index.
    ///
    /// # Errors
    /// `internal` when the versions are not those that the header was written for: something was lost or
    /// damaged, and the replica must be rebuilt from another one.
    pub fn finish(self) -> Result<PartitionState, Error> {
        let Self {
            header,
            origin,
            keys,
            counters,
            begun,
            dirty,
            holdings,
            garbage,
            held_records,
            unreadable,
        } = self;
        if let Some(error) = unreadable {
            return Err(error);
        }
        let mut digest = counters.digest;
        digest.add(holdings.digest());
        if digest != header.digest || counters.live_keys != header.live_keys {
            return Err(Error::internal(format!(
                "restored data does not match its header at index {}: digest {digest} of {} keys, expected {} of {}",
                header.index, counters.live_keys, header.digest, header.live_keys,
            )));
        }
        let live = |(key, chain): &(&EncodedKey, &Chain)| is_outcome(key) && chain.newest().value.is_some();
        let internal = EncodedKey::from_parts(KeyspaceId::INTERNAL, b"");
        let outcomes = keys.range(internal..).filter(live).count();
        Ok(PartitionState {
            garbage: Garbage::of(&keys),
            keys,
            applied: header.index,
            last_timestamp: header.last_timestamp,
            gc_floor: header.gc_floor,
            history: History::starting_at(header.index, header.digest, header.live_keys),
            checkpoints: match origin {
                Origin::Checkpoint => Checkpoints::committed_at(header.index, begun, held_records, garbage),
                Origin::Snapshot => Checkpoints::all_dirty(dirty),
            },
            counters,
            pins: BTreeMap::new(),
            holdings,
            commit_floor: header.commit_floor,
            outcomes,
        })
    }
}
