//! The dumb twin of a partition's state: the log itself, searched from the start for every answer.

use bytes::Bytes;
use std::collections::BTreeSet;
use trandb_cluster::command::{Applied, Command, Condition, Write, WriteBatch, WriteOutcome};
use trandb_cluster::digest::Digest;
use trandb_cluster::partition::PartitionState;
use trandb_cluster::wire::Versioned;
use trandb_cluster::{EncodedKey, Timestamp};

/// A write that was done: log index, timestamp, key, value.
type Done = (u64, Timestamp, EncodedKey, Option<Bytes>);

#[derive(Default)]
pub(crate) struct Twin {
    /// The log from index 1 on; none for blank entries.
    log: Vec<Option<WriteBatch>>,
    done: Vec<Done>,
    pub(crate) last_timestamp: Timestamp,
    pub(crate) gc_floor: Timestamp,
}

impl Twin {
    pub(crate) fn index(&self) -> u64 {
        self.log.len() as u64
    }

    pub(crate) fn skip(&mut self) {
        self.log.push(None);
    }

    pub(crate) fn apply(&mut self, batch: WriteBatch) -> Applied {
        self.log.push(Some(batch.clone()));
        if batch.timestamp <= self.last_timestamp {
            return Applied::StaleTimestamp(self.last_timestamp);
        }
        self.gc_floor = self.gc_floor.max(batch.gc_floor);
        let mut outcomes = Vec::new();
        for (i, Write { key, value, condition }) in batch.writes.iter().enumerate() {
            let version = batch.timestamp.plus(i as u64);
            let current = self.get(key, Timestamp::MAX).map(|found| found.version);
            let holds = match condition {
                Condition::Any => true,
                Condition::Absent => current.is_none(),
                Condition::Present => current.is_some(),
                Condition::Version(wanted) => current == Some(*wanted),
            };
            outcomes.push(if holds {
                self.done.push((self.index(), version, key.clone(), value.clone()));
                WriteOutcome::Done { version, previous: current }
            } else {
                WriteOutcome::ConditionFailed { current }
            });
            self.last_timestamp = version;
        }
        self.last_timestamp = self.last_timestamp.max(batch.timestamp);
        Applied::Writes(outcomes)
    }

    /// Brings a state that is behind up to date, as the log does after a restart.
    pub(crate) fn replay(&self, state: &mut PartitionState) {
        for index in state.applied() + 1..=self.index() {
            match &self.log[index as usize - 1] {
                Some(batch) => drop(state.apply(index, Command::Write(batch.clone()))),
                None => state.skip(index),
            }
        }
    }

    pub(crate) fn get(&self, key: &EncodedKey, at: Timestamp) -> Option<Versioned> {
        let (_, version, _, value) =
            self.done.iter().rev().find(|(_, timestamp, of, _)| of == key && *timestamp <= at)?;
        Some(Versioned { value: value.clone()?, version: *version })
    }

    /// Every key with a value at `at`, in order.
    pub(crate) fn live(&self, at: Timestamp) -> Vec<(EncodedKey, Versioned)> {
        let keys: BTreeSet<_> = self.done.iter().map(|(_, _, key, _)| key).collect();
        keys.into_iter().filter_map(|key| Some((key.clone(), self.get(key, at)?))).collect()
    }

    /// Digest and live keys right after a log index.
    pub(crate) fn digest_at(&self, index: u64) -> (Digest, u64) {
        let last =
            self.done.iter().rev().find(|(of, ..)| *of <= index).map_or(Timestamp::ZERO, |done| done.1);
        let mut digest = Digest::default();
        let live = self.live(last);
        for (key, found) in &live {
            digest.add(Digest::of(key, found.version, &found.value));
        }
        (digest, live.len() as u64)
    }
}
