//! A storage engine as far as a partition can tell, which forgets as much as power loss may make a real one
//! forget, and remembers what it should have removed.

use std::collections::BTreeMap;
use trandb_cluster::mvcc::{StoredVersion, Version};
use trandb_cluster::partition::{PartitionHeader, PartitionRestore, PartitionState};
use trandb_cluster::{EncodedKey, Timestamp};

type Record = (EncodedKey, Timestamp);

#[derive(Default)]
pub(crate) struct Engine {
    records: BTreeMap<Record, Version>,
    /// Put since the last commit.
    unsynced_puts: Vec<Record>,
    /// Removed since the last commit.
    unsynced_removes: BTreeMap<Record, Version>,
    /// The header of the last commit.
    header: Option<PartitionHeader>,
}

impl Engine {
    /// Whether the record was there already, which is a waste.
    pub(crate) fn put(&mut self, stored: StoredVersion) -> bool {
        let record = (stored.key, stored.version.timestamp);
        self.unsynced_puts.push(record.clone());
        let old = self.records.insert(record, stored.version.clone());
        assert!(old.is_none() || old.as_ref() == Some(&stored.version), "a record changed");
        old.is_some()
    }

    pub(crate) fn commit(&mut self, header: PartitionHeader) {
        self.unsynced_puts.clear();
        self.unsynced_removes.clear();
        self.header = Some(header);
    }

    pub(crate) fn remove(&mut self, records: Vec<Record>) {
        for record in records {
            let version = self.records.remove(&record).expect("it removes only what it put");
            self.unsynced_removes.insert(record, version);
        }
    }

    /// Power fails: of what was not synced, the bits of `luck` say what is as if it never happened. Answers the
    /// state to go on from, empty if nothing was committed.
    pub(crate) fn crash(&mut self, mut luck: u64) -> PartitionState {
        let mut lucky = || {
            luck = luck.rotate_left(1);
            luck & 1 == 1
        };
        for record in std::mem::take(&mut self.unsynced_puts) {
            if lucky() {
                self.records.remove(&record);
            }
        }
        for (record, version) in std::mem::take(&mut self.unsynced_removes) {
            if lucky() {
                self.records.insert(record, version);
            }
        }
        let Some(header) = self.header.clone() else {
            self.records.clear();
            return PartitionState::new();
        };
        let restore = PartitionState::restore_from_checkpoint(header);
        let stored: Vec<_> =
            self.records.iter().map(|((key, _), version)| (key.clone(), version.clone())).collect();
        if lucky() { add(restore, stored.into_iter()) } else { add(restore, stored.into_iter().rev()) }
    }
}

fn add(mut restore: PartitionRestore, stored: impl Iterator<Item = (EncodedKey, Version)>) -> PartitionState {
    stored.for_each(|(key, version)| restore.add(StoredVersion { key, version }));
    restore.finish().expect("nothing that was committed is lost")
}
