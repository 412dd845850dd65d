//! Every byte of a small log flipped in turn: without effect, or found and refused, or, in the last batch, cut like
//! a torn one. Never another record than was written.

use super::*;
use crate::disk::{Disk, SimDisk};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trandb_cluster::PartitionId;

const DIR: &str = "/wal";
const SEGMENT_BYTES: u64 = 2048;

/// What a log held: of every group its small state and its entries with their payloads.
type Held = BTreeMap<PartitionId, (Option<Bytes>, Option<(u64, Bytes)>, BTreeMap<u64, Record>)>;

fn open(disk: &SimDisk) -> Result<(Held, bool), WalError> {
    let options = WalOptions { segment_bytes: SEGMENT_BYTES, salt: 99 };
    let (wal, recovered) = Wal::open(Arc::new(disk.clone()), Path::new(DIR), options)?;
    let reader = wal.reader();
    let mut held = Held::new();
    for (id, group) in recovered.groups {
        let mut entries = BTreeMap::new();
        for (index, (_, location)) in group.entries {
            entries.insert(index, reader.read(location)?);
        }
        held.insert(id, (group.hard_state, group.purged, entries));
    }
    Ok((held, recovered.torn_tail.is_some()))
}

/// A log over recycled files: three live segments, `batches` batches in all.
fn build(disk: &SimDisk, batches: u64) {
    let options = WalOptions { segment_bytes: SEGMENT_BYTES, salt: 99 };
    let (mut wal, _) = Wal::open(Arc::new(disk.clone()), Path::new(DIR), options).unwrap();
    for batch in 1..=batches {
        let record = |group, kind, index, payload: String| Record {
            group: PartitionId(group),
            kind,
            term: batch,
            index,
            payload: payload.into(),
        };
        let mut records = vec![
            record(1, RecordKind::Entry, batch, format!("value {batch} of one")),
            record(2, RecordKind::HardState, 0, format!("vote {batch}")),
            record(2, RecordKind::Entry, batch, format!("{batch:->90}")),
        ];
        if batch > 20 && batch % 5 == 0 {
            records.push(record(1, RecordKind::PurgedTo, batch - 20, format!("purge {batch}")));
            records.push(record(2, RecordKind::PurgedTo, batch - 20, format!("purge {batch}")));
        }
        wal.write(&records).unwrap();
    }
}

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let mut names = disk.read_dir(Path::new(DIR)).unwrap();
    names.retain(|name| name.extension().is_some_and(|extension| extension == "wal"));
    names
}

#[test]
fn a_flipped_byte_never_gives_another_value() {
    const BATCHES: u64 = 47;
    let pristine = SimDisk::new();
    build(&pristine, BATCHES);
    let files = segments(&pristine);
    assert!(files.len() >= 3, "{files:?}");
    let (whole, torn) = open(&pristine).unwrap();
    assert!(!torn);
    let shorter = SimDisk::new();
    build(&shorter, BATCHES - 1);
    let (without_last, _) = open(&shorter).unwrap();
    assert_ne!(whole, without_last);

    let (mut unharmed, mut cut, mut refused) = (0, 0, 0);
    for file in &files {
        for offset in 0..SEGMENT_BYTES {
            let disk = SimDisk::new();
            build(&disk, BATCHES);
            disk.rot(file, offset).unwrap();
            match open(&disk) {
                Ok((held, false)) if held == whole => unharmed += 1,
                // Its header may be what rotted, so the cut is not always told apart from the log's end.
                Ok((held, _)) if held == without_last && Some(file) == files.last() => cut += 1,
                Ok((held, _)) => panic!("byte {offset} of {} gave {held:?}", file.display()),
                Err(WalError::Corrupt { file: named, .. }) if named == *file => refused += 1,
                Err(error) => panic!("byte {offset} of {} gave {error}", file.display()),
            }
        }
    }
    assert!(unharmed > 0 && cut > 0 && refused > 1000, "{unharmed} unharmed, {cut} cut, {refused} refused");
}
