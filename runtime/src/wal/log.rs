//! The log itself: the one writer of the segments.

use super::error::WalError;
use super::format::{
    BATCH_BYTES_MAX, Location, RECORD_BYTES_MAX, Record, SEGMENT_HEADER_BYTES, SegmentHeader, batch_bytes,
    encode_batch,
};
use super::index::{Index, Pinned};
use super::reader::{OpenSegments, WalReader};
use super::recovery::{self, Recovered, Tail};
use super::segment::{Segment, Segments};
use crate::disk::Disk;
use crate::planted::{Planted, is_planted};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::time::Instant;

/// How the log is laid out.
#[derive(Debug, Clone, Copy)]
pub struct WalOptions {
    /// Bytes of a segment. A batch that needs more gets a segment of its own size.
    pub segment_bytes: u64,
    /// A random number that clients cannot know, used for segments made from now on: no value can be
    /// crafted to look like part of the log.
    pub salt: u64,
}

impl WalOptions {
    /// Big enough for three of the largest values, and that a rotation comes every other second under small writes; small
    /// enough that a log of few live data is short.
    pub const SEGMENT_BYTES_DEFAULT: u64 = 16 << 20;
}

/// How big the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalStats {
    /// Segments in use.
    pub segments: usize,
    /// Their bytes on disk.
    pub bytes: u64,
}

/// The last batch of a log that is durable; 0 if there is none. Clones show the same log.
#[derive(Debug, Clone, Default)]
pub struct Durable(Arc<AtomicU64>);

impl Durable {
    /// Its number now.
    pub fn batch(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn reaches(&self, batch: u64) {
        self.0.store(batch, Ordering::Release);
    }
}

/// The write-ahead log of a node.
pub struct Wal {
    segments: Segments,
    open: OpenSegments,
    current: Segment,
    /// Where the next batch goes.
    offset: u64,
    next_batch: u64,
    durable: Durable,
    index: Index,
    options: WalOptions,
    buffer: Vec<u8>,
    poisoned: bool,
}

/// What the buffer keeps between batches: room for a full batch, whose memory would take longer to fault in anew than
/// its bytes to copy; no more, so that one oversized batch does not hold its memory for ever.
const BUFFER_BYTES_KEPT: usize = 16 << 20;

impl Wal {
    /// Opens or creates the log in `dir`, replays it, and cuts a torn tail.
    ///
    /// # Errors
    /// [`WalError::Corrupt`] when something that was durable does not check out.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: WalOptions) -> Result<(Self, Recovered), WalError> {
        let (mut segments, found) = Segments::open(disk, dir, options.segment_bytes)?;
        let open = OpenSegments::default();
        let mut index = Index::default();
        let (tail, recovered) = recovery::replay(&segments, &found, &open, &mut index)?;
        let Tail { current, offset, next_batch } = match tail {
            Some(tail) => tail,
            None => {
                let header = SegmentHeader { sequence: 1, first_batch: 1, salt: options.salt };
                let current = segments.create(header, 0)?;
                open.add(current.clone());
                Tail { current, offset: SEGMENT_HEADER_BYTES as u64, next_batch: 1 }
            }
        };
        let buffer = Vec::new();
        let durable = Durable::default();
        durable.reaches(next_batch - 1);
        let poisoned = false;
        let log =
            Self { segments, open, current, offset, next_batch, durable, index, options, buffer, poisoned };
        log.publish_stats();
        Ok((log, recovered))
    }

    /// Writes all records as one batch and syncs once; durable on return. Each record's location comes back, in
    /// order. Nothing to write is no write.
    ///
    /// # Errors
    /// [`WalError::TooLarge`] before anything is written. After [`WalError::Full`] the same records may be written
    /// again, and nothing else may: some of their bytes may be on the disk already. After any other error the
    /// records may or may not be in the log, and the log refuses everything until it is opened anew: a failed sync is
    /// never retried, since the second one would succeed without the lost pages.
    pub fn write(&mut self, records: &[Record]) -> Result<Vec<Location>, WalError> {
        if self.poisoned {
            return Err(WalError::Poisoned);
        }
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let record_bytes = records.iter().map(|record| record.payload.len()).max().unwrap_or(0);
        refuse_over(record_bytes as u64, RECORD_BYTES_MAX as u64)?;
        refuse_over(batch_bytes(records.iter()), BATCH_BYTES_MAX)?;
        let written = self.write_batch(records).and_then(|locations| {
            self.retire_segments()?;
            Ok(locations)
        });
        self.poisoned = written.as_ref().is_err_and(|error| !matches!(error, WalError::Full { .. }));
        written
    }

    /// Reads records that were written, from any thread.
    pub fn reader(&self) -> WalReader {
        WalReader { open: self.open.clone() }
    }

    /// How far the log is durable, from now on.
    pub fn durable(&self) -> Durable {
        self.durable.clone()
    }

    /// Groups that keep alive segments more than `segments_behind` before the current one. Their checkpoint
    /// should be forced and their log purged.
    pub fn pinned_by(&self, segments_behind: usize) -> Vec<Pinned> {
        self.index.older_than(self.current.header.sequence.saturating_sub(segments_behind as u64))
    }

    /// How big the log is.
    pub fn stats(&self) -> WalStats {
        let (segments, bytes) = self.open.count();
        WalStats { segments, bytes }
    }

    /// Refuses everything from now on, as after a failed write.
    pub(super) fn poison(&mut self) {
        self.poisoned = true;
    }

    fn write_batch(&mut self, records: &[Record]) -> Result<Vec<Location>, WalError> {
        let mut carry = self.carry_if_empty();
        let mut bytes = batch_bytes(carry.iter().chain(records));
        if self.offset + bytes > self.current.bytes {
            // The next segment needs the carry, this one's records included, unless it is this one's own.
            carry = self.index.carry();
            bytes = batch_bytes(carry.iter().chain(records));
            self.rotate(bytes)?;
        }
        let seal = self.current.header.seal();
        let places = encode_batch(seal, self.next_batch, carry.iter().chain(records), &mut self.buffer);

        let path = &self.current.path;
        self.current.file.write_at(&self.buffer, self.offset).map_err(WalError::room("write", path))?;
        let began = Instant::now();
        if !is_planted(Planted::AckBeforeSync) {
            self.current.file.sync_data().map_err(WalError::io("sync", path))?;
        }
        metrics::histogram!("trandb_wal_sync_seconds").record(began.elapsed().as_secs_f64());
        metrics::histogram!("trandb_wal_batch_records").record(records.len() as f64);
        metrics::histogram!("trandb_wal_batch_bytes").record(self.buffer.len() as f64);
        metrics::counter!("trandb_wal_bytes_total").increment(self.buffer.len() as u64);

        let segment = self.current.header.sequence;
        for record in records {
            self.index.note(segment, record.group, record.kind, record.index, &record.payload);
        }
        let locations = places[carry.len()..]
            .iter()
            .map(|&(offset, bytes)| Location { segment, offset: self.offset + offset, bytes })
            .collect();
        self.offset += self.buffer.len() as u64;
        self.durable.reaches(self.next_batch);
        self.next_batch += 1;
        if self.buffer.capacity() > BUFFER_BYTES_KEPT {
            self.buffer = Vec::new();
        }
        Ok(locations)
    }

    /// A segment that holds no batch yet opens with the carry: also one that a crash left so.
    fn carry_if_empty(&self) -> Vec<Record> {
        if self.offset == SEGMENT_HEADER_BYTES as u64 { self.index.carry() } else { Vec::new() }
    }

    fn rotate(&mut self, batch_bytes: u64) -> Result<(), WalError> {
        let header = SegmentHeader {
            sequence: self.current.header.sequence + 1,
            first_batch: self.next_batch,
            salt: self.options.salt,
        };
        self.current = self.segments.create(header, SEGMENT_HEADER_BYTES as u64 + batch_bytes)?;
        self.open.add(self.current.clone());
        self.offset = SEGMENT_HEADER_BYTES as u64;
        self.publish_stats();
        Ok(())
    }

    /// Lets go, oldest first, of segments without a live entry. Called after a batch was synced, so the
    /// current segment holds the carry.
    fn retire_segments(&mut self) -> Result<(), WalError> {
        let needed = self.index.oldest().unwrap_or(u64::MAX).min(self.current.header.sequence);
        while let Some(oldest) = self.open.first() {
            if oldest.header.sequence >= needed {
                break;
            }
            self.open.remove(oldest.header.sequence);
            self.segments.retire(&oldest)?;
            self.publish_stats();
        }
        Ok(())
    }

    fn publish_stats(&self) {
        let (segments, bytes) = self.open.count();
        metrics::gauge!("trandb_wal_segments").set(segments as f64);
        metrics::gauge!("trandb_wal_bytes").set(bytes as f64);
    }
}

fn refuse_over(bytes: u64, bytes_max: u64) -> Result<(), WalError> {
    if bytes > bytes_max { Err(WalError::TooLarge { bytes, bytes_max }) } else { Ok(()) }
}
