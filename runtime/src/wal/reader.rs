//! Reading single records back, beside the writer and on any thread.

use super::error::WalError;
use super::format::{Location, RECORD_BYTES_MAX, RECORD_HEADER_BYTES, Record, RecordView};
use super::segment::Segment;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

/// The open segments by sequence number, shared by the log and its readers.
#[derive(Clone, Default)]
pub(super) struct OpenSegments(Arc<RwLock<BTreeMap<u64, Segment>>>);

impl OpenSegments {
    pub(super) fn add(&self, segment: Segment) {
        self.0.write().expect("no holder of this lock panics").insert(segment.header.sequence, segment);
    }

    pub(super) fn remove(&self, sequence: u64) {
        self.0.write().expect("no holder of this lock panics").remove(&sequence);
    }

    pub(super) fn first(&self) -> Option<Segment> {
        self.0.read().expect("no holder of this lock panics").values().next().cloned()
    }

    /// How many there are, and their bytes.
    pub(super) fn count(&self) -> (usize, u64) {
        let open = self.0.read().expect("no holder of this lock panics");
        (open.len(), open.values().map(|segment| segment.bytes).sum())
    }

    fn get(&self, sequence: u64) -> Option<Segment> {
        self.0.read().expect("no holder of this lock panics").get(&sequence).cloned()
    }
}

/// Reads records by their location. Cheap to clone.
#[derive(Clone)]
pub struct WalReader {
    pub(super) open: OpenSegments,
}

impl WalReader {
    /// Reads one record and checks it.
    ///
    /// # Errors
    /// [`WalError::Purged`] when its segment is gone, [`WalError::Corrupt`] when it does not check out.
    pub fn read(&self, location: Location) -> Result<Record, WalError> {
        let Location { segment: sequence, offset, bytes } = location;
        let segment = self.open.get(sequence).ok_or(WalError::Purged { segment: sequence })?;
        let bytes_max = (RECORD_HEADER_BYTES + RECORD_BYTES_MAX) as u64;
        if u64::from(bytes) > bytes_max {
            return Err(WalError::TooLarge { bytes: bytes.into(), bytes_max });
        }
        let mut buffer = vec![0; bytes as usize];
        let read = segment.file.read_at(&mut buffer, offset).map_err(WalError::io("read", &segment.path));
        let view = read.and_then(|()| {
            RecordView::decode(segment.header.seal(), &buffer).map_err(|bad| WalError::Corrupt {
                file: segment.path.clone(),
                offset,
                group: bad.group,
                what: bad.what.into(),
            })
        });
        match view {
            Ok(RecordView { group, kind, term, index, .. }) => {
                let payload = Bytes::from(buffer).slice(RECORD_HEADER_BYTES..);
                Ok(Record { group, kind, term, index, payload })
            }
            // The segment may have been recycled while it was read.
            Err(_) if self.open.get(sequence).is_none() => Err(WalError::Purged { segment: sequence }),
            Err(error) => Err(error),
        }
    }
}
