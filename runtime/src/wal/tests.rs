use super::*;
use crate::disk::{Disk, Full, RealDisk, SimDisk};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use trandb_cluster::PartitionId;

const DIR: &str = "/wal";
const OPTIONS: WalOptions = WalOptions { segment_bytes: 4096, salt: 7 };

fn open(disk: &SimDisk) -> Result<(Wal, Recovered), WalError> {
    Wal::open(Arc::new(disk.clone()), Path::new(DIR), OPTIONS)
}

fn record(group: u32, kind: RecordKind, index: u64, payload: &[u8]) -> Record {
    Record { group: PartitionId(group), kind, term: 3, index, payload: Bytes::copy_from_slice(payload) }
}

fn entry(group: u32, index: u64) -> Record {
    record(group, RecordKind::Entry, index, format!("entry {index} of {group}").as_bytes())
}

fn segment(sequence: u64) -> PathBuf {
    Path::new(DIR).join(format!("{sequence:016x}.wal"))
}

fn indices(recovered: &Recovered, group: u32) -> Vec<u64> {
    recovered.groups.get(&PartitionId(group)).map(|g| g.entries.keys().copied().collect()).unwrap_or_default()
}

#[test]
fn what_is_written_is_found_again_and_read_back() {
    let disk = SimDisk::new();
    let (mut wal, recovered) = open(&disk).unwrap();
    assert!(recovered.groups.is_empty() && recovered.torn_tail.is_none());
    assert_eq!(wal.write(&[]).unwrap(), []);
    let records =
        [entry(1, 1), record(1, RecordKind::HardState, 0, b"vote"), entry(2, 9), entry(1, 2), entry(2, 10)];
    let locations = wal.write(&records).unwrap();
    wal.write(&[record(2, RecordKind::Committed, 0, b"c9")]).unwrap();
    let reader = wal.reader();
    for (record, location) in records.iter().zip(&locations) {
        assert_eq!(reader.read(*location).unwrap(), *record);
    }

    disk.crash(1);
    let (wal, recovered) = open(&disk).unwrap();
    assert_eq!((indices(&recovered, 1), indices(&recovered, 2)), (vec![1, 2], vec![9, 10]));
    let group = &recovered.groups[&PartitionId(1)];
    assert_eq!(group.hard_state.as_deref(), Some(&b"vote"[..]));
    assert_eq!(group.entries[&2], (3, locations[3]));
    assert_eq!(recovered.groups[&PartitionId(2)].committed.as_deref(), Some(&b"c9"[..]));
    assert_eq!(wal.reader().read(locations[4]).unwrap(), records[4]);
}

#[test]
fn truncated_purged_and_dropped_entries_do_not_come_back() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).unwrap();
    for group in 1..=4 {
        wal.write(&(1..=10).map(|index| entry(group, index)).collect::<Vec<_>>()).unwrap();
    }
    wal.write(&[
        record(1, RecordKind::TruncateAfter, 7, b""),
        record(1, RecordKind::PurgedTo, 3, b"id 3"),
        record(2, RecordKind::PurgedTo, 20, b"id 20"),
        record(3, RecordKind::Dropped, 0, b""),
        record(4, RecordKind::TruncateAfter, 0, b""),
    ])
    .unwrap();
    wal.write(&[entry(1, 5), entry(2, 21), entry(3, 1)]).unwrap();
    drop(wal);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(indices(&recovered, 1), [4, 5], "an entry replaces all from its index on");
    assert_eq!(recovered.groups[&PartitionId(1)].purged, Some((3, Bytes::from_static(b"id 3"))));
    assert_eq!(indices(&recovered, 2), [21]);
    assert_eq!(indices(&recovered, 3), [1], "a group may be made anew after it was dropped");
    assert!(!recovered.groups.contains_key(&PartitionId(4)));
}

#[test]
fn segments_go_when_nobody_needs_them_and_are_recycled() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).unwrap();
    wal.write(&[record(2, RecordKind::HardState, 0, b"vote of 2"), entry(2, 1)]).unwrap();
    let early = wal.write(&[entry(1, 1)]).unwrap()[0];
    for index in 2..200 {
        wal.write(&[entry(1, index), record(1, RecordKind::PurgedTo, index - 1, b"")]).unwrap();
    }
    assert!(wal.stats().segments > 5, "the entry of group 2 holds them all");
    assert_eq!(wal.pinned_by(3), [Pinned { group: PartitionId(2), upto: 1 }]);
    assert!(wal.pinned_by(1000).is_empty());

    wal.write(&[record(2, RecordKind::PurgedTo, 1, b"p2")]).unwrap();
    assert_eq!(wal.stats().segments, 1);
    assert!(matches!(wal.reader().read(early), Err(WalError::Purged { segment: 1 })));
    let names = disk.read_dir(Path::new(DIR)).unwrap();
    assert_eq!(names.iter().filter(|name| name.extension().unwrap() == "free").count(), 2);

    // Rotations through the recycled files, and openings in the middle of them.
    for index in 200..400 {
        wal.write(&[entry(1, index), record(1, RecordKind::PurgedTo, index - 1, b"")]).unwrap();
        if index % 7 == 0 {
            drop(wal);
            let (reopened, recovered) = open(&disk).unwrap();
            assert_eq!(indices(&recovered, 1), [index]);
            let second = &recovered.groups[&PartitionId(2)];
            assert_eq!(
                second.hard_state.as_deref(),
                Some(&b"vote of 2"[..]),
                "carried from segment to segment"
            );
            assert_eq!(second.purged, Some((1, Bytes::from_static(b"p2"))));
            assert_eq!(recovered.torn_tail, None, "what a recycled segment held is not a torn tail");
            wal = reopened;
        }
    }
    assert!(wal.stats().segments <= 2);
}

#[test]
fn a_record_larger_than_a_segment_gets_its_own() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).unwrap();
    let large = record(1, RecordKind::Entry, 1, &vec![b'x'; 100_000]);
    let small = entry(1, 2);
    let location = wal.write(std::slice::from_ref(&large)).unwrap()[0];
    wal.write(std::slice::from_ref(&small)).unwrap();
    drop(wal);
    let (mut wal, recovered) = open(&disk).unwrap();
    assert_eq!(indices(&recovered, 1), [1, 2]);
    assert_eq!(wal.reader().read(location).unwrap(), large);
    let over = record(1, RecordKind::Entry, 3, &vec![0; RECORD_BYTES_MAX + 1]);
    assert!(matches!(wal.write(&[over]), Err(WalError::TooLarge { .. })));
    wal.write(&[entry(1, 3)]).unwrap();
}

/// A log of three batches in one segment, and the offsets at which they begin.
fn three_batches(disk: &SimDisk) -> [u64; 3] {
    let (mut wal, _) = open(disk).unwrap();
    [1, 2, 3].map(|index| {
        let location = wal.write(&[record(1, RecordKind::Entry, index, &[b'v'; 700])]).unwrap()[0];
        location.offset - 24
    })
}

#[test]
fn rot_before_the_last_batch_is_refused_wherever_it_is() {
    for into in [0, 5, 9, 17, 21, 25, 30, 37, 60, 700] {
        for batch in 0..2 {
            let disk = SimDisk::new();
            let offsets = three_batches(&disk);
            disk.rot(&segment(1), offsets[batch] + into).unwrap();
            match open(&disk).map(|_| ()) {
                Err(WalError::Corrupt { file, offset, .. }) => {
                    assert_eq!(file, segment(1));
                    assert!((offsets[batch]..offsets[batch + 1]).contains(&offset));
                }
                other => panic!("rot {into} bytes into batch {batch} gave {other:?}"),
            }
        }
    }
    let disk = SimDisk::new();
    three_batches(&disk);
    disk.rot(&segment(1), 20).unwrap();
    let error = open(&disk).err().unwrap();
    assert!(matches!(error, WalError::Corrupt { offset: 0, .. }), "a damaged segment header");
    assert_eq!(error.exit_code(), 65);
}

#[test]
fn rot_at_the_end_of_an_older_segment_is_refused() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).unwrap();
    let mut last_of_first = None;
    for index in 1..40 {
        let location = wal.write(&[entry(1, index), entry(2, index)]).unwrap()[1];
        if location.segment == 1 {
            last_of_first = Some(location);
        }
    }
    drop(wal);
    let last = last_of_first.unwrap();
    disk.rot(&segment(1), last.offset + 40).unwrap();
    let error = open(&disk).err().unwrap();
    assert!(matches!(&error, WalError::Corrupt { file, .. } if *file == segment(1)), "{error}");

    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).unwrap();
    for index in 1..100 {
        wal.write(&[entry(1, index)]).unwrap();
    }
    drop(wal);
    disk.remove(&segment(2)).unwrap();
    let error = open(&disk).err().unwrap();
    assert!(error.to_string().contains("segment 2 before it is missing"), "{error}");
}

#[test]
fn a_lost_oldest_segment_is_missed_unless_nobody_needs_it() {
    for lost in 1..=3 {
        let disk = SimDisk::new();
        let (mut wal, _) = open(&disk).unwrap();
        for index in 1..200 {
            wal.write(&[entry(1, index), entry(2, index)]).unwrap();
        }
        wal.write(&[record(2, RecordKind::PurgedTo, 199, b"p199")]).unwrap();
        assert!(wal.stats().segments > 4);
        drop(wal);
        (1..=lost).for_each(|sequence| disk.remove(&segment(sequence)).unwrap());
        let error = open(&disk).err().expect("entries of group 1 are lost");
        assert!(
            matches!(&error, WalError::Corrupt { file, group: Some(PartitionId(1)), .. }
                if *file == segment(lost + 1)),
            "{error}"
        );
        assert!(error.to_string().contains("entries 1 to "), "{error}");
        assert_eq!(error.exit_code(), 65);
    }

    // Purged meanwhile, the same entries are not missed.
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).unwrap();
    for index in 1..200 {
        wal.write(&[entry(1, index)]).unwrap();
    }
    wal.write(&[record(1, RecordKind::PurgedTo, 198, b"p198")]).unwrap();
    drop(wal);
    assert!(!disk.exists(&segment(2)).unwrap());
    assert_eq!(indices(&open(&disk).unwrap().1, 1), [199]);
}

#[test]
fn a_damaged_last_batch_is_cut_and_reported() {
    for into in [30, 700] {
        let disk = SimDisk::new();
        let offsets = three_batches(&disk);
        disk.rot(&segment(1), offsets[2] + into).unwrap();
        let (mut wal, recovered) = open(&disk).unwrap();
        assert_eq!(indices(&recovered, 1), [1, 2]);
        assert_eq!(recovered.torn_tail, Some((1, offsets[2])));
        wal.write(&[entry(1, 3)]).unwrap();
        drop(wal);
        let (_, recovered) = open(&disk).unwrap();
        assert_eq!((indices(&recovered, 1), recovered.torn_tail), (vec![1, 2, 3], None));
    }
}

#[test]
fn after_a_failed_sync_nothing_more_is_written() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).unwrap();
    wal.write(&[entry(1, 1)]).unwrap();
    disk.fail_next_sync();
    assert!(matches!(wal.write(&[entry(1, 2)]), Err(WalError::Io { action: "sync", .. })));
    assert!(matches!(wal.write(&[entry(1, 2)]), Err(WalError::Poisoned)));
    drop(wal);
    // The file shows the batch, though the disk does not have it: opening makes sure of it.
    let (wal, recovered) = open(&disk).unwrap();
    assert_eq!(indices(&recovered, 1), [1, 2]);
    drop(wal);
    for seed in 0..20 {
        disk.crash(seed);
        assert_eq!(indices(&open(&disk).unwrap().1, 1), [1, 2]);
    }
}

#[test]
fn a_newer_format_is_refused() {
    let disk = SimDisk::new();
    drop(open(&disk).unwrap());
    let file = disk.open(&segment(1)).unwrap();
    let mut header = [0; 64];
    file.read_at(&mut header, 0).unwrap();
    header[8] = 3;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..12]), &header[16..]);
    header[12..16].copy_from_slice(&crc.to_le_bytes());
    file.write_at(&header, 0).unwrap();
    let error = open(&disk).err().unwrap();
    assert!(matches!(error, WalError::Format { found: 3, .. }));
    assert_eq!(error.exit_code(), 78);
}

#[tokio::test]
async fn a_threaded_writer_batches_in_order_on_a_real_disk() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("wal");
    let options = WalOptions { segment_bytes: 1 << 14, salt: 1 };
    let (wal, _) = Wal::open(Arc::new(RealDisk), &dir, options).unwrap();
    let writer = Writer::threaded(wal, WriterOptions::default()).unwrap();
    let (tell, told) = mpsc::channel();
    for index in 1..=1000 {
        let tell = tell.clone();
        let done: Done = Box::new(move |written| tell.send((index, written.unwrap()[0])).unwrap());
        assert!(writer.submit(vec![entry(1, index)], done).is_ok());
    }
    let last = writer.write(vec![entry(1, 1001)]).await.unwrap()[0];
    assert_eq!(writer.reader().read(last).unwrap(), entry(1, 1001));
    assert!(writer.stats().await.unwrap().bytes >= 1 << 14);
    assert!(writer.pinned_by(1001).await.unwrap().is_empty());
    writer.close();
    assert!(matches!(writer.write(vec![entry(1, 1002)]).await, Err(WalError::Closed)));
    let told: Vec<_> = told.try_iter().collect();
    assert!(told.iter().map(|(index, _)| *index).eq(1..=1000));

    let (wal, recovered) = Wal::open(Arc::new(RealDisk), &dir, options).unwrap();
    assert!(indices(&recovered, 1).into_iter().eq(1..=1001));
    for (index, location) in told {
        assert_eq!(wal.reader().read(location).unwrap().index, index);
    }
}

#[test]
fn a_full_queue_refuses_and_says_when_to_hold_back() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk).unwrap();
    let entry_bytes = entry(1, 1).bytes();
    let options = WriterOptions { queue_bytes_max: 4 * entry_bytes, batch_bytes_max: 1 };
    let writer = Writer::threaded(wal, options).unwrap();
    let pressure = writer.pressure();
    let (release, held) = mpsc::channel::<()>();
    let (began, begins) = mpsc::channel();
    let block: Done = Box::new(move |_| {
        began.send(()).unwrap();
        held.recv().unwrap();
    });
    assert!(writer.submit(vec![entry(1, 1)], block).is_ok());
    begins.recv().unwrap();
    for index in 2..=5 {
        assert!(writer.submit(vec![entry(1, index)], Box::new(|_| ())).is_ok());
    }
    assert!(*pressure.borrow());
    let refused = writer.submit(vec![entry(1, 6)], Box::new(|_| ())).err().unwrap();
    assert!(refused.full && refused.records == [entry(1, 6)]);
    release.send(()).unwrap();
    writer.close();
    assert!(!*pressure.borrow());
    assert!(indices(&open(&disk).unwrap().1, 1).into_iter().eq(1..=5));
}

#[tokio::test]
async fn an_inline_writer_has_written_when_it_returns() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk).unwrap();
    let writer = Writer::inline(wal);
    let (tell, told) = mpsc::channel();
    let done: Done = Box::new(move |written| tell.send(written.unwrap().len()).unwrap());
    assert!(writer.submit(vec![entry(1, 1), entry(1, 2)], done).is_ok());
    assert_eq!(told.try_recv(), Ok(2));
    disk.fail_next_sync();
    assert!(matches!(writer.write(vec![entry(1, 3)]).await, Err(WalError::Io { .. })));
    assert!(matches!(writer.write(vec![entry(1, 3)]).await, Err(WalError::Poisoned)));
    let why = writer.failed().borrow().clone();
    assert!(
        matches!(why, Some(WalError::Io { action: "sync", .. })),
        "the first failure, not the last: {why:?}"
    );
    writer.close();
    assert!(matches!(writer.write(vec![entry(1, 3)]).await, Err(WalError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_slow_writer_gathers_while_it_writes_and_loses_what_it_has_not_written() {
    const TAKES: Duration = Duration::from_millis(10);
    let disk = SimDisk::new();
    let (wal, _) = open(&disk).unwrap();
    let writer = Writer::slow(wal, || TAKES);
    let began = tokio::time::Instant::now();
    let write = async |index| {
        assert_eq!(writer.write(vec![entry(1, index)]).await.unwrap().len(), 1);
        began.elapsed()
    };
    let later = async {
        // While the first is on its way.
        tokio::time::sleep(TAKES / 2).await;
        tokio::join!(write(2), write(3))
    };
    let (first, (second, third)) = tokio::join!(write(1), later);
    assert!(first >= TAKES && first < TAKES * 3 / 2, "{first:?}");
    assert!(second == third && second >= TAKES * 2 && second < TAKES * 3, "{second:?} and {third:?}");

    let lost = writer.write(vec![entry(1, 4)]);
    let close = async {
        tokio::time::sleep(TAKES / 2).await;
        writer.close();
    };
    assert!(matches!(tokio::join!(lost, close).0, Err(WalError::Closed)));
    assert!(matches!(writer.write(vec![entry(1, 4)]).await, Err(WalError::Closed)));
    drop(writer);
    assert!(indices(&open(&disk).unwrap().1, 1).into_iter().eq(1..=3));
}

#[tokio::test(start_paused = true)]
async fn a_slow_writer_waits_for_room() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk).unwrap();
    let writer = Writer::slow(wal, || Duration::from_millis(1));
    disk.fill(Some(Full::ToChange));
    let room = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(writer.full().borrow().is_some());
        assert!(writer.stats().await.is_ok(), "it answers meanwhile");
        disk.fill(None);
    };
    let (written, ()) = tokio::join!(writer.write(vec![entry(1, 1)]), room);
    assert_eq!(written.unwrap().len(), 1);
    assert!(writer.full().borrow().is_none());
    writer.close();
}
