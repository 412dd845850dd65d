//! What of the log is still needed: per group its small state and in which segments its entries lie.

use super::format::{Record, RecordKind, live_range};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use trandb_cluster::PartitionId;

/// A group that keeps old segments alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pinned {
    /// Which one.
    pub group: PartitionId,
    /// Its last entry in a segment that is too old: once all up to it are purged, the group pins nothing.
    pub upto: u64,
}

/// All groups that the log knows.
#[derive(Debug, Default)]
pub(super) struct Index {
    groups: BTreeMap<PartitionId, Group>,
}

#[derive(Debug, Default)]
struct Group {
    hard_state: Option<Bytes>,
    committed: Option<Bytes>,
    purged: Option<(u64, Bytes)>,
    /// Live entries, ascending in both segment and index.
    runs: VecDeque<Run>,
}

/// Entries of one group in one segment, `first` to `last` inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    segment: u64,
    first: u64,
    last: u64,
}

impl Index {
    /// Takes in one record written to `segment`; the payload is copied where it is kept.
    pub(super) fn note(
        &mut self,
        segment: u64,
        group: PartitionId,
        kind: RecordKind,
        index: u64,
        payload: &[u8],
    ) {
        if kind == RecordKind::Dropped {
            self.groups.remove(&group);
            return;
        }
        let group = self.groups.entry(group).or_default();
        match kind {
            RecordKind::Entry => group.append(segment, index),
            RecordKind::HardState => group.hard_state = Some(Bytes::copy_from_slice(payload)),
            RecordKind::Committed => group.committed = Some(Bytes::copy_from_slice(payload)),
            RecordKind::TruncateAfter => group.truncate_after(index),
            RecordKind::PurgedTo => group.purge(index, payload),
            // Says what the segments before this one hold, which is known from them or missed by recovery.
            RecordKind::Live | RecordKind::Dropped => {}
        }
    }

    /// The oldest segment with a live entry.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.groups.values().filter_map(Group::oldest).min()
    }

    /// Groups with a live entry in a segment older than `segment`, and the last such entry of each.
    pub(super) fn older_than(&self, segment: u64) -> Vec<Pinned> {
        let pinned = |(&group, state): (&PartitionId, &Group)| {
            let run = state.runs.iter().take_while(|run| run.segment < segment).last()?;
            Some(Pinned { group, upto: run.last })
        };
        self.groups.iter().filter_map(pinned).collect()
    }

    /// What a new segment must open with to be complete without those before it.
    pub(super) fn carry(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for (&group, state) in &self.groups {
            let mut push = |kind, index, payload: &Bytes| {
                records.push(Record { group, kind, term: 0, index, payload: payload.clone() });
            };
            if let Some((index, payload)) = &state.purged {
                push(RecordKind::PurgedTo, *index, payload);
            }
            if let Some(payload) = &state.hard_state {
                push(RecordKind::HardState, 0, payload);
            }
            if let Some(payload) = &state.committed {
                push(RecordKind::Committed, 0, payload);
            }
            for (first, last) in state.live() {
                push(RecordKind::Live, last, &live_range(first));
            }
        }
        records
    }
}

impl Group {
    fn oldest(&self) -> Option<u64> {
        self.runs.front().map(|run| run.segment)
    }

    /// The live entries as unbroken ranges, whatever segments they lie in.
    fn live(&self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for run in &self.runs {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == run.first => *last = run.last,
                _ => ranges.push((run.first, run.last)),
            }
        }
        ranges
    }

    fn append(&mut self, segment: u64, index: u64) {
        // An entry may follow its own purge when a segment is replayed that the purge had not let go yet.
        if self.purged.as_ref().is_some_and(|(purged, _)| index <= *purged) {
            return;
        }
        self.truncate_after(index.saturating_sub(1));
        match self.runs.back_mut() {
            Some(run) if run.segment == segment && run.last + 1 == index => run.last = index,
            _ => self.runs.push_back(Run { segment, first: index, last: index }),
        }
    }

    fn truncate_after(&mut self, index: u64) {
        while let Some(run) = self.runs.back_mut() {
            if run.first > index {
                self.runs.pop_back();
            } else {
                run.last = run.last.min(index);
                return;
            }
        }
    }

    fn purge(&mut self, index: u64, payload: &[u8]) {
        if self.purged.as_ref().is_some_and(|(purged, _)| *purged > index) {
            return;
        }
        self.purged = Some((index, Bytes::copy_from_slice(payload)));
        while let Some(run) = self.runs.front_mut() {
            if run.last <= index {
                self.runs.pop_front();
            } else {
                run.first = run.first.max(index + 1);
                return;
            }
        }
    }
}
