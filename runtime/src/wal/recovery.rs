//! Replaying the log: what it holds, where it ends, and whether it is whole.

use super::error::WalError;
use super::format::{
    BATCH_ALIGN, BATCH_HEADER_BYTES, BatchHeader, FORMAT, Location, RecordKind, RecordView,
    SEGMENT_HEADER_BYTES, Seal, SegmentHeader, SegmentHeaderError, live_first,
};
use super::index::Index;
use super::reader::OpenSegments;
use super::segment::{Segment, Segments};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use trandb_cluster::PartitionId;

/// What the log held.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Every group that was not dropped.
    pub groups: BTreeMap<PartitionId, RecoveredGroup>,
    /// Segment and offset where a batch that was never acknowledged had been begun, and was cut.
    pub torn_tail: Option<(u64, u64)>,
}

/// What the log held of one group.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct RecoveredGroup {
    /// The last vote.
    pub hard_state: Option<Bytes>,
    /// The last commit point.
    pub committed: Option<Bytes>,
    /// Index and log id up to which entries were purged.
    pub purged: Option<(u64, Bytes)>,
    /// Term and place of every entry neither purged nor truncated, by index.
    pub entries: BTreeMap<u64, (u64, Location)>,
    /// Entries that a segment says are live before it and that were not seen: purged later, or lost.
    missing: Missing,
}

/// Where to go on writing.
pub(super) struct Tail {
    pub(super) current: Segment,
    pub(super) offset: u64,
    pub(super) next_batch: u64,
}

/// Reads all segments in order into `open` and `index`. No tail means that there was no log.
pub(super) fn replay(
    segments: &Segments,
    found: &[(u64, PathBuf)],
    open: &OpenSegments,
    index: &mut Index,
) -> Result<(Option<Tail>, Recovered), WalError> {
    let mut recovered = Recovered::default();
    let mut tail: Option<Tail> = None;
    let mut oldest = None;
    for (position, (sequence, path)) in found.iter().enumerate() {
        let (current, bytes) = load(segments, *sequence, path)?;
        let is_last = position + 1 == found.len();
        if let Some(before) = &tail {
            follows(before, &current)?;
        }
        let scan = Scan { seal: current.header.seal(), sequence: *sequence, bytes: &bytes };
        let mut at = Position { offset: SEGMENT_HEADER_BYTES, batch: current.header.first_batch };
        let mut last_batch = None;
        let bad = loop {
            match scan.batch(at, &mut |view, location| {
                recovered.note(view, location);
                index.note(location.segment, view.group, view.kind, view.index, view.payload);
            }) {
                Ok(next) => {
                    last_batch = Some(at.offset..next.offset);
                    at = next;
                }
                Err(bad) => break bad,
            }
        };
        if is_last {
            let begun = bad.begun(&scan, at);
            if let Some(later) = scan.later_batch(at) {
                let what = format!("{}, though a later batch follows at byte {later}", bad.what);
                return Err(corrupt(path, bad.offset, bad.group, what));
            }
            heal(&current, &bytes, last_batch, begun.clone())?;
            if begun.is_some() {
                recovered.torn_tail = Some((*sequence, at.offset as u64));
            }
        }
        oldest.get_or_insert_with(|| path.clone());
        open.add(current.clone());
        tail = Some(Tail { current, offset: at.offset as u64, next_batch: at.batch });
    }
    if let Some(path) = oldest {
        recovered.whole(&path)?;
    }
    recovered.groups.retain(|_, group| *group != RecoveredGroup::default());
    Ok((tail, recovered))
}

impl Recovered {
    /// Checks that no group misses an entry: the segments before `oldest` hold none that is still needed.
    fn whole(&self, oldest: &Path) -> Result<(), WalError> {
        for (&group, state) in &self.groups {
            if let Some((first, last)) = state.missing.first() {
                let what =
                    format!("entries {first} to {last} are missing: a segment before this one is lost");
                return Err(corrupt(oldest, 0, Some(group), what));
            }
        }
        Ok(())
    }

    fn note(&mut self, record: &RecordView<'_>, location: Location) {
        if record.kind == RecordKind::Dropped {
            self.groups.remove(&record.group);
            return;
        }
        let group = self.groups.entry(record.group).or_default();
        let index = record.index;
        match record.kind {
            RecordKind::Entry => {
                if group.purged.as_ref().is_none_or(|(purged, _)| index > *purged) {
                    group.entries.split_off(&index);
                    group.missing.truncate_from(index);
                    group.entries.insert(index, (record.term, location));
                }
            }
            RecordKind::HardState => group.hard_state = Some(Bytes::copy_from_slice(record.payload)),
            RecordKind::Committed => group.committed = Some(Bytes::copy_from_slice(record.payload)),
            RecordKind::TruncateAfter => {
                group.entries.split_off(&(index.saturating_add(1)));
                group.missing.truncate_from(index.saturating_add(1));
            }
            RecordKind::PurgedTo => {
                if group.purged.as_ref().is_none_or(|(purged, _)| index >= *purged) {
                    group.purged = Some((index, Bytes::copy_from_slice(record.payload)));
                    group.entries = group.entries.split_off(&(index.saturating_add(1)));
                    group.missing.purge(index);
                }
            }
            RecordKind::Live => {
                // Only the oldest segment's can name what was not seen; those after it say the same again.
                if let Some(first) = live_first(record.payload) {
                    group.missing.expect(first, index, &group.entries);
                }
            }
            RecordKind::Dropped => {}
        }
    }
}

/// Ranges of entries, first and last, ascending.
#[derive(Debug, Default, Clone, PartialEq)]
struct Missing(Vec<(u64, u64)>);

impl Missing {
    /// What of `first` to `last` is not among `entries`; what was noted of it before is replaced.
    fn expect(&mut self, first: u64, last: u64, entries: &BTreeMap<u64, (u64, Location)>) {
        self.0.retain(|&(from, to)| to < first || from > last);
        let mut next = first;
        for &index in entries.range(first..=last.max(first)).map(|(index, _)| index) {
            if index > next {
                self.0.push((next, index - 1));
            }
            next = index + 1;
        }
        if next <= last {
            self.0.push((next, last));
        }
        self.0.sort_unstable();
    }

    fn truncate_from(&mut self, index: u64) {
        self.0.retain(|&(first, _)| first < index);
        if let Some((_, last)) = self.0.last_mut() {
            *last = (*last).min(index - 1);
        }
    }

    fn purge(&mut self, index: u64) {
        self.0.retain(|&(_, last)| last > index);
        if let Some((first, _)) = self.0.first_mut() {
            *first = (*first).max(index + 1);
        }
    }

    fn first(&self) -> Option<(u64, u64)> {
        self.0.first().copied()
    }
}

fn load(segments: &Segments, sequence: u64, path: &Path) -> Result<(Segment, Vec<u8>), WalError> {
    let file = segments.open_file(path)?;
    let len = file.len().map_err(WalError::io("measure", path))?;
    let mut bytes = vec![0; len as usize];
    file.read_at(&mut bytes, 0).map_err(WalError::io("read", path))?;
    let header = SegmentHeader::decode(&bytes).map_err(|error| match error {
        SegmentHeaderError::Format(found) => WalError::Format { file: path.to_owned(), found, known: FORMAT },
        SegmentHeaderError::Damaged => corrupt(path, 0, None, "the segment's header is damaged"),
    })?;
    if header.sequence != sequence {
        let what = format!("the segment says that it is number {}", header.sequence);
        return Err(corrupt(path, 0, None, what));
    }
    Ok((Segment { path: path.to_owned(), file, header, bytes: len }, bytes))
}

/// Checks that nothing is missing between where one segment ended and where the next begins.
fn follows(before: &Tail, next: &Segment) -> Result<(), WalError> {
    let wanted = before.current.header.sequence + 1;
    if next.header.sequence != wanted {
        return Err(corrupt(&next.path, 0, None, format!("segment {wanted} before it is missing")));
    }
    if next.header.first_batch != before.next_batch {
        let what = format!(
            "batch {} does not check out, though the next segment begins with batch {}",
            before.next_batch, next.header.first_batch
        );
        return Err(corrupt(&before.current.path, before.offset, None, what));
    }
    Ok(())
}

/// Makes what was found durable beyond doubt, and clears the place of a torn batch.
fn heal(
    current: &Segment,
    bytes: &[u8],
    last_batch: Option<std::ops::Range<usize>>,
    begun: Option<std::ops::Range<usize>>,
) -> Result<(), WalError> {
    let path = &current.path;
    let write =
        |data: &[u8], at: usize| current.file.write_at(data, at as u64).map_err(WalError::io("write", path));
    if last_batch.is_none() && begun.is_none() {
        return Ok(());
    }
    if let Some(range) = last_batch {
        write(&bytes[range.clone()], range.start)?;
    }
    if let Some(range) = begun {
        write(&vec![0; range.len()], range.start)?;
    }
    current.file.sync_data().map_err(WalError::io("sync", path))
}

#[derive(Debug, Clone, Copy)]
struct Position {
    offset: usize,
    /// Number of the batch expected there.
    batch: u64,
}

/// Why there is no valid batch at a position.
struct BadBatch {
    header: Option<BatchHeader>,
    offset: u64,
    group: Option<PartitionId>,
    what: String,
}

impl BadBatch {
    /// The bytes to clear, when the batch was begun as far as can be told. A recycled segment holds old bytes
    /// after its end, so only a valid header proves it; they do no harm where they are.
    fn begun(&self, scan: &Scan<'_>, at: Position) -> Option<std::ops::Range<usize>> {
        let header = self.header?;
        let end = (at.offset as u64 + header.stride()).min(scan.bytes.len() as u64) as usize;
        Some(at.offset..end)
    }
}

struct Scan<'a> {
    seal: Seal,
    sequence: u64,
    bytes: &'a [u8],
}

impl Scan<'_> {
    /// Checks the whole batch at a position, then hands out its records. Returns where the next one begins.
    fn batch(
        &self,
        at: Position,
        take: &mut dyn FnMut(&RecordView<'_>, Location),
    ) -> Result<Position, BadBatch> {
        let bad = |header, offset: usize, group, what: &str| BadBatch {
            header,
            offset: offset as u64,
            group,
            what: format!("batch {}: {what}", at.batch),
        };
        let rest = self.bytes.get(at.offset..).unwrap_or_default();
        let Some(header) = BatchHeader::decode(self.seal, rest).filter(|header| header.number == at.batch)
        else {
            return Err(bad(None, at.offset, None, "no valid header"));
        };
        let begin = at.offset + BATCH_HEADER_BYTES;
        let end = begin + header.bytes as usize;
        if end > self.bytes.len() {
            return Err(bad(Some(header), at.offset, None, "it reaches over the segment's end"));
        }
        let mut offset = begin;
        let mut records = Vec::with_capacity(header.records.min(1 << 16) as usize);
        while offset < end {
            let record = RecordView::decode(self.seal, &self.bytes[offset..end])
                .map_err(|error| bad(Some(header), offset, error.group, error.what))?;
            let bytes = record.bytes();
            records.push((record, Location { segment: self.sequence, offset: offset as u64, bytes }));
            offset += bytes as usize;
        }
        if records.len() != header.records as usize {
            return Err(bad(
                Some(header),
                at.offset,
                None,
                "it holds another number of records than it says",
            ));
        }
        for (record, location) in &records {
            take(record, *location);
        }
        Ok(Position { offset: at.offset + header.stride() as usize, batch: at.batch + 1 })
    }

    /// Where a header of a batch later than the one expected at `at` lies: proof that the expected one was
    /// durable once.
    fn later_batch(&self, at: Position) -> Option<usize> {
        (at.offset..self.bytes.len()).step_by(BATCH_ALIGN).find(|&offset| {
            BatchHeader::decode(self.seal, &self.bytes[offset..])
                .is_some_and(|header| header.number > at.batch)
        })
    }
}

fn corrupt(file: &Path, offset: u64, group: Option<PartitionId>, what: impl Into<String>) -> WalError {
    WalError::Corrupt { file: file.to_owned(), offset, group, what: what.into() }
}
