//! The bytes of the log: see the module's own documentation for the picture.

use bytes::Bytes;
use trandb_cluster::PartitionId;

/// Largest payload of one record: a batch of writes that one largest value overshot, four times over. What
/// claims more while the log is read is damage.
pub const RECORD_BYTES_MAX: usize = 32 << 20;

/// Most bytes of one batch: its length must fit 32 bits, and memory must hold it. More is refused.
pub(super) const BATCH_BYTES_MAX: u64 = 1 << 30;

/// Batches begin at multiples of this.
pub(super) const BATCH_ALIGN: usize = 64;

pub(super) const SEGMENT_HEADER_BYTES: usize = 64;
pub(super) const BATCH_HEADER_BYTES: usize = 24;
pub(super) const RECORD_HEADER_BYTES: usize = 32;

/// The format written, and the newest read. 1 had no [`RecordKind::Live`].
pub(super) const FORMAT: u32 = 2;

/// The oldest format read.
const FORMAT_MIN: u32 = 1;

const SEGMENT_MAGIC: [u8; 8] = *b"trandbwl";
const BATCH_MAGIC: [u8; 4] = *b"tbat";

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// A log entry. One at or below the group's last index replaces that one and drops all after it.
    Entry = 1,
    /// The group's vote; the payload is opaque to the log, the last one counts.
    HardState = 2,
    /// The group's commit point; the payload is opaque to the log, the last one counts.
    Committed = 3,
    /// Entries after `index` are void; `index` itself stays.
    TruncateAfter = 4,
    /// Entries up to and with `index` are no longer needed; the payload is that log id, opaque to the log.
    PurgedTo = 5,
    /// All of the group is forgotten.
    Dropped = 6,
    /// Entries up to and with `index` were live when the segment was begun, in segments before it; the payload is
    /// the first of them. Written by the log itself, so that a segment lost at the old end is missed.
    Live = 7,
}

/// The payload of [`RecordKind::Live`].
pub(super) fn live_range(first: u64) -> Bytes {
    Bytes::copy_from_slice(&first.to_le_bytes())
}

/// The first index of a [`RecordKind::Live`]; none when the payload is no such thing.
pub(super) fn live_first(payload: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(payload.try_into().ok()?))
}

impl RecordKind {
    fn from_byte(byte: u8) -> Option<Self> {
        use RecordKind::*;
        [Entry, HardState, Committed, TruncateAfter, PurgedTo, Dropped, Live]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// One record. `term` and `index` are zero where the kind has no use for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose it is.
    pub group: PartitionId,
    /// What it says.
    pub kind: RecordKind,
    /// Raft term of an entry.
    pub term: u64,
    /// Log index that it is about.
    pub index: u64,
    /// The rest, opaque to the log.
    pub payload: Bytes,
}

impl Record {
    /// Bytes that it takes in the log.
    pub fn bytes(&self) -> u64 {
        (RECORD_HEADER_BYTES + self.payload.len()) as u64
    }
}

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location {
    /// Sequence number of the segment.
    pub segment: u64,
    /// Where the record begins in it, in bytes.
    pub offset: u64,
    /// Its length, header included.
    pub bytes: u32,
}

/// The checksums of one segment: they begin with the log's salt and the segment's sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seal(u32);

impl Seal {
    pub(super) fn new(salt: u64, sequence: u64) -> Self {
        Self(crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &sequence.to_le_bytes()))
    }

    fn of(self, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(self.0, bytes)
    }
}

/// The header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) sequence: u64,
    /// Number of its first batch.
    pub(super) first_batch: u64,
    /// Differs from log to log, unknown to clients.
    pub(super) salt: u64,
}

pub(super) enum SegmentHeaderError {
    Format(u32),
    Damaged,
}

impl SegmentHeader {
    pub(super) fn seal(self) -> Seal {
        Seal::new(self.salt, self.sequence)
    }

    pub(super) fn encode(self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0; SEGMENT_HEADER_BYTES];
        out[..8].copy_from_slice(&SEGMENT_MAGIC);
        out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        out[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        out[24..32].copy_from_slice(&self.first_batch.to_le_bytes());
        out[32..40].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&out[..12]), &out[16..]);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, SegmentHeaderError> {
        if bytes.len() < SEGMENT_HEADER_BYTES || bytes[..8] != SEGMENT_MAGIC {
            return Err(SegmentHeaderError::Damaged);
        }
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..SEGMENT_HEADER_BYTES]);
        if crc != u32_at(bytes, 12) {
            return Err(SegmentHeaderError::Damaged);
        }
        match u32_at(bytes, 8) {
            FORMAT_MIN..=FORMAT => Ok(Self {
                sequence: u64_at(bytes, 16),
                first_batch: u64_at(bytes, 24),
                salt: u64_at(bytes, 32),
            }),
            other => Err(SegmentHeaderError::Format(other)),
        }
    }
}

/// The header of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchHeader {
    pub(super) number: u64,
    /// Bytes of its records, without header and padding.
    pub(super) bytes: u32,
    pub(super) records: u32,
}

impl BatchHeader {
    pub(super) fn decode(seal: Seal, bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..BATCH_HEADER_BYTES)?;
        if bytes[..4] != BATCH_MAGIC || seal.of(&bytes[8..]) != u32_at(bytes, 4) {
            return None;
        }
        Some(Self { number: u64_at(bytes, 8), bytes: u32_at(bytes, 16), records: u32_at(bytes, 20) })
    }

    /// Bytes from this batch's beginning to the next one's.
    pub(super) fn stride(self) -> u64 {
        (BATCH_HEADER_BYTES as u64 + u64::from(self.bytes)).next_multiple_of(BATCH_ALIGN as u64)
    }
}

/// Bytes that a batch of these records takes, padding included.
pub(super) fn batch_bytes<'a>(records: impl Iterator<Item = &'a Record>) -> u64 {
    let bytes: u64 = records.map(Record::bytes).sum();
    (BATCH_HEADER_BYTES as u64 + bytes).next_multiple_of(BATCH_ALIGN as u64)
}

/// Puts a batch into `out`, which is emptied first, and returns each record's offset in it and its length.
pub(super) fn encode_batch<'a>(
    seal: Seal,
    number: u64,
    records: impl Iterator<Item = &'a Record>,
    out: &mut Vec<u8>,
) -> Vec<(u64, u32)> {
    out.clear();
    out.resize(BATCH_HEADER_BYTES, 0);
    let places: Vec<_> = records
        .map(|record| {
            let offset = out.len();
            encode_record(seal, record, out);
            (offset as u64, (out.len() - offset) as u32)
        })
        .collect();
    let bytes = (out.len() - BATCH_HEADER_BYTES) as u32;
    out[..4].copy_from_slice(&BATCH_MAGIC);
    out[8..16].copy_from_slice(&number.to_le_bytes());
    out[16..20].copy_from_slice(&bytes.to_le_bytes());
    out[20..24].copy_from_slice(&(places.len() as u32).to_le_bytes());
    let crc = seal.of(&out[8..BATCH_HEADER_BYTES]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out.resize(out.len().next_multiple_of(BATCH_ALIGN), 0);
    places
}

fn encode_record(seal: Seal, record: &Record, out: &mut Vec<u8>) {
    let from = out.len();
    out.extend_from_slice(&(record.payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[record.kind as u8, 0, 0, 0]);
    out.extend_from_slice(&record.group.0.to_le_bytes());
    out.extend_from_slice(&record.term.to_le_bytes());
    out.extend_from_slice(&record.index.to_le_bytes());
    out.extend_from_slice(&record.payload);
    let crc = record_crc(seal, &out[from..]);
    out[from + 4..from + 8].copy_from_slice(&crc.to_le_bytes());
}

/// Covers all of a record but the checksum itself.
fn record_crc(seal: Seal, record: &[u8]) -> u32 {
    crc32c::crc32c_append(seal.of(&record[..4]), &record[8..])
}

/// Why bytes are no record; names the group when the header could be read.
#[derive(Debug)]
pub(super) struct BadRecord {
    pub(super) group: Option<PartitionId>,
    pub(super) what: &'static str,
}

/// A record still in the buffer that it was read into.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordView<'a> {
    pub(super) group: PartitionId,
    pub(super) kind: RecordKind,
    pub(super) term: u64,
    pub(super) index: u64,
    pub(super) payload: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// Reads the record that `bytes` begin with.
    pub(super) fn decode(seal: Seal, bytes: &'a [u8]) -> Result<Self, BadRecord> {
        let bad = |group, what| BadRecord { group, what };
        if bytes.len() < RECORD_HEADER_BYTES {
            return Err(bad(None, "a record is cut short"));
        }
        let group = PartitionId(u32_at(bytes, 12));
        let payload_bytes = u32_at(bytes, 0) as usize;
        if payload_bytes > RECORD_BYTES_MAX || bytes.len() < RECORD_HEADER_BYTES + payload_bytes {
            return Err(bad(None, "a record's length is out of range"));
        }
        let bytes = &bytes[..RECORD_HEADER_BYTES + payload_bytes];
        if record_crc(seal, bytes) != u32_at(bytes, 4) {
            return Err(bad(Some(group), "a record's checksum does not match"));
        }
        let Some(kind) = RecordKind::from_byte(bytes[8]) else {
            return Err(bad(Some(group), "a record is of no known kind"));
        };
        let payload = &bytes[RECORD_HEADER_BYTES..];
        Ok(Self { group, kind, term: u64_at(bytes, 16), index: u64_at(bytes, 24), payload })
    }

    pub(super) fn bytes(&self) -> u32 {
        (RECORD_HEADER_BYTES + self.payload.len()) as u32
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_valid_in_its_own_segment_only() {
        let record = Record {
            group: PartitionId(3),
            kind: RecordKind::Entry,
            term: 4,
            index: 5,
            payload: Bytes::from_static(b"payload"),
        };
        let mut batch = Vec::new();
        let places = encode_batch(Seal::new(1, 10), 6, [&record].into_iter(), &mut batch);
        assert_eq!(places, [(BATCH_HEADER_BYTES as u64, record.bytes() as u32)]);
        assert_eq!(batch.len() as u64, batch_bytes([&record].into_iter()));
        for (salt, sequence, valid) in [(1, 10, true), (1, 11, false), (2, 10, false)] {
            let seal = Seal::new(salt, sequence);
            assert_eq!(BatchHeader::decode(seal, &batch).is_some(), valid);
            assert_eq!(RecordView::decode(seal, &batch[BATCH_HEADER_BYTES..]).is_ok(), valid);
        }
    }
}
