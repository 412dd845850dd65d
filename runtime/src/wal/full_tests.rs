//! A disk without room: the log waits and loses nothing, and goes on when there is room again.

use super::*;
use crate::disk::{Disk, Full, SimDisk};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use trandb_cluster::PartitionId;

const DIR: &str = "/wal";
const OPTIONS: WalOptions = WalOptions { segment_bytes: 4096, salt: 7 };

fn open(disk: &SimDisk) -> Result<(Wal, Recovered), WalError> {
    Wal::open(Arc::new(disk.clone()), Path::new(DIR), OPTIONS)
}

fn entry(index: u64) -> Record {
    let payload = vec![index as u8; 500].into();
    Record { group: PartitionId(1), kind: RecordKind::Entry, term: 3, index, payload }
}

fn indices(recovered: &Recovered) -> Vec<u64> {
    recovered
        .groups
        .get(&PartitionId(1))
        .map(|group| group.entries.keys().copied().collect())
        .unwrap_or_default()
}

#[test]
fn a_write_that_found_no_room_is_written_when_there_is_some() {
    for full in [Full::ToGrow, Full::ToChange] {
        let disk = SimDisk::new();
        let (mut wal, _) = open(&disk).unwrap();
        let mut refused = 0;
        for index in 1..=40 {
            // At some of these a segment is to be made, at others one that is there is written to.
            disk.fill(Some(full));
            for _ in 0..index % 3 {
                match wal.write(&[entry(index)]) {
                    Ok(_) => break,
                    Err(WalError::Full { .. }) => refused += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            disk.fill(None);
            // Once more where it was written: that replaces it by the same.
            wal.write(&[entry(index)]).unwrap();
        }
        assert!(refused > 3);
        disk.crash(refused);
        let (_, recovered) = open(&disk).unwrap();
        assert!(indices(&recovered).into_iter().eq(1..=40));
        let names = disk.read_dir(Path::new(DIR)).unwrap();
        assert!(names.iter().all(|name| name.extension().is_some_and(|it| it != "new")), "{names:?}");
    }
}

#[test]
fn a_crash_while_there_is_no_room_leaves_what_was_acknowledged() {
    for seed in 0..50 {
        let disk = SimDisk::new();
        let (mut wal, _) = open(&disk).unwrap();
        let mut acknowledged = 0;
        disk.fill((seed % 2 == 0).then_some(Full::ToGrow));
        for index in 1..=10 + seed {
            if index == 10 {
                disk.fill(Some(if seed % 3 == 0 { Full::ToChange } else { Full::ToGrow }));
            }
            match wal.write(&[entry(index)]) {
                Ok(_) => acknowledged = index,
                Err(WalError::Full { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        disk.crash(seed);
        disk.fill(None);
        let found = indices(&open(&disk).unwrap().1);
        let last = found.last().copied().unwrap_or_default();
        assert!(
            last == acknowledged || last == acknowledged + 1,
            "{last} found, {acknowledged} acknowledged"
        );
        assert!(found.into_iter().eq(1..=last));
    }
}

/// Waits for a watched value to become so.
async fn becomes(full: &mut tokio::sync::watch::Receiver<Option<WalError>>, is_full: bool) {
    let waited = full.wait_for(|full| full.is_some() == is_full);
    tokio::time::timeout(Duration::from_secs(60), waited).await.expect("soon").expect("the writer runs");
}

#[tokio::test]
async fn a_writer_waits_for_room_and_says_so() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk).unwrap();
    let writer = Writer::threaded(wal, WriterOptions::default()).unwrap();
    writer.write(vec![entry(1)]).await.unwrap();
    disk.fill(Some(Full::ToChange));
    let (tell, told) = mpsc::channel();
    for index in 2..=20 {
        let tell = tell.clone();
        let done: Done = Box::new(move |written| tell.send((index, written.is_ok())).unwrap());
        assert!(writer.submit(vec![entry(index)], done).is_ok());
    }
    let mut full = writer.full();
    becomes(&mut full, true).await;
    // It answers other questions meanwhile.
    assert!(writer.stats().await.unwrap().segments > 0);
    assert!(told.try_recv().is_err(), "nothing is acknowledged");
    assert!(writer.failed().borrow().is_none());
    disk.fill(None);
    becomes(&mut full, false).await;
    writer.close();
    assert!(told.try_iter().eq((2..=20).map(|index| (index, true))));
    assert!(indices(&open(&disk).unwrap().1).into_iter().eq(1..=20));
}

#[tokio::test]
async fn a_writer_that_is_closed_waits_for_no_room() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk).unwrap();
    let writer = Writer::threaded(wal, WriterOptions::default()).unwrap();
    disk.fill(Some(Full::ToChange));
    let (tell, told) = mpsc::channel();
    for index in 1..=2 {
        let tell = tell.clone();
        let done: Done = Box::new(move |written| tell.send(written.is_ok()).unwrap());
        assert!(writer.submit(vec![entry(index)], done).is_ok());
    }
    becomes(&mut writer.full(), true).await;
    writer.close();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [false, false]);
}

#[tokio::test]
async fn a_failed_sync_is_not_room_to_wait_for() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk).unwrap();
    let writer = Writer::threaded(wal, WriterOptions::default()).unwrap();
    disk.fail_next_sync();
    assert!(matches!(writer.write(vec![entry(1)]).await, Err(WalError::Io { action: "sync", .. })));
    assert!(matches!(writer.write(vec![entry(2)]).await, Err(WalError::Poisoned)));
    assert!(writer.full().borrow().is_none());
}
