//! The log against a dumb twin that keeps everything in maps, through reopenings and power cuts at every
//! possible call.

use super::*;
use crate::disk::SimDisk;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use trandb_cluster::PartitionId;

const OPTIONS: WalOptions = WalOptions { segment_bytes: 2048, salt: 42 };

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<Record>),
    /// The power goes once more after so many calls of the opening itself, and it is tried again.
    Reopen {
        calls: u64,
        seed: u64,
    },
    /// The power goes after so many calls to the disk, or right after the writes that the log gets in that time.
    PowerCut {
        calls: u64,
        seed: u64,
    },
}

/// What one group should look like. Entries are kept with term and payload.
#[derive(Debug, Clone, Default, PartialEq)]
struct Twin {
    hard_state: Option<Bytes>,
    committed: Option<Bytes>,
    purged: Option<(u64, Bytes)>,
    entries: BTreeMap<u64, (u64, Bytes)>,
}

type Twins = BTreeMap<PartitionId, Twin>;

fn note(twins: &mut Twins, record: &Record) {
    let Record { group, kind, term, index, payload } = record.clone();
    if kind == RecordKind::Dropped {
        twins.remove(&group);
        return;
    }
    let twin = twins.entry(group).or_default();
    match kind {
        RecordKind::Entry => {
            if twin.purged.as_ref().is_none_or(|(purged, _)| index > *purged) {
                twin.entries.retain(|&at, _| at < index);
                twin.entries.insert(index, (term, payload));
            }
        }
        RecordKind::HardState => twin.hard_state = Some(payload),
        RecordKind::Committed => twin.committed = Some(payload),
        RecordKind::TruncateAfter => twin.entries.retain(|&at, _| at <= index),
        RecordKind::PurgedTo => {
            if twin.purged.as_ref().is_none_or(|(purged, _)| index >= *purged) {
                twin.entries.retain(|&at, _| at > index);
                twin.purged = Some((index, payload));
            }
        }
        RecordKind::Live | RecordKind::Dropped => {}
    }
    twins.retain(|_, twin| *twin != Twin::default());
}

fn open(disk: &SimDisk) -> (Wal, Twins) {
    let (wal, recovered) = Wal::open(Arc::new(disk.clone()), Path::new("/wal"), OPTIONS).unwrap();
    let reader = wal.reader();
    let twins = recovered.groups.into_iter().map(|(id, group)| {
        let entries = group.entries.into_iter().map(|(index, (term, location))| {
            let record = reader.read(location).unwrap();
            assert_eq!((record.group, record.index, record.term), (id, index, term));
            (index, (term, record.payload))
        });
        let entries = entries.collect();
        let twin =
            Twin { hard_state: group.hard_state, committed: group.committed, purged: group.purged, entries };
        (id, twin)
    });
    let twins = twins.collect();
    (wal, twins)
}

fn run(steps: Vec<Step>) {
    let disk = SimDisk::new();
    let (mut wal, mut found) = open(&disk);
    let mut acknowledged = Twins::new();
    // The one write that failed, if any: it may be there wholly or not at all.
    let mut unknown: Option<Twins> = None;
    let mut cut: Option<u64> = None;
    for step in steps {
        assert_eq!(found, acknowledged);
        match step {
            Step::Write(records) => {
                let mut next = acknowledged.clone();
                records.iter().for_each(|record| note(&mut next, record));
                match wal.write(&records) {
                    Ok(_) => {
                        assert!(unknown.is_none(), "a poisoned log took a write");
                        acknowledged = next.clone();
                        found = next;
                        continue;
                    }
                    Err(WalError::Poisoned) => continue,
                    Err(_) => {
                        unknown = Some(next);
                        continue;
                    }
                }
            }
            Step::Reopen { calls, seed } => {
                drop(wal);
                if let Some(seed) = cut.take() {
                    disk.crash(seed);
                }
                disk.power_off_after(calls);
                let opened = Wal::open(Arc::new(disk.clone()), Path::new("/wal"), OPTIONS);
                if let Err(error) = &opened {
                    assert!(matches!(error, WalError::Io { .. }), "{error}");
                }
                drop(opened);
                disk.crash(seed);
            }
            Step::PowerCut { calls, seed } => {
                if cut.is_none() {
                    disk.power_off_after(calls);
                    cut = Some(seed);
                }
                continue;
            }
        }
        (wal, found) = open(&disk);
        if let Some(unknown) = unknown.take().filter(|unknown| found == *unknown) {
            acknowledged = unknown;
        }
        assert_eq!(found, acknowledged);
    }
}

fn record() -> impl Strategy<Value = Record> {
    let kind = prop_oneof![
        10 => Just(RecordKind::Entry),
        2 => Just(RecordKind::HardState),
        2 => Just(RecordKind::Committed),
        1 => Just(RecordKind::TruncateAfter),
        3 => Just(RecordKind::PurgedTo),
        1 => Just(RecordKind::Dropped),
    ];
    let bytes = prop_oneof![8 => 0..200_usize, 1 => 1000..5000_usize];
    (1..4_u32, kind, 0..5_u64, 1..30_u64, bytes, any::<u8>()).prop_map(
        |(group, kind, term, index, bytes, fill)| Record {
            group: PartitionId(group),
            kind,
            term,
            index,
            payload: vec![fill; bytes].into(),
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => prop::collection::vec(record(), 1..6).prop_map(Step::Write),
        2 => (0..12_u64, any::<u64>()).prop_map(|(calls, seed)| Step::PowerCut { calls, seed }),
        3 => (0..6_u64, any::<u64>()).prop_map(|(calls, seed)| Step::Reopen { calls, seed }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_holds_what_it_acknowledged_and_nothing_else(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        run(steps);
    }
}
