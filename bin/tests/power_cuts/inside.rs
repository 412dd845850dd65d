//! Recorded inside: a node of this process, on a disk door and an engine that write down what they are asked for.

use crate::cuts::{self, Cut, Run, Try, Until};
use crate::door::{Recorder, RecordingDisk, RecordingEngine};
use crate::image::{Image, Left, copy_engine};
use crate::{load, settings};
use rand::RngExt;
use rand::rngs::StdRng;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use tokio::runtime::Runtime;
use trandb_actors::node::{DiskWork, NodeOptions, StorageDoor, start};
use trandb_cluster::InstanceId;
use trandb_runtime::config::Config;
use trandb_runtime::datadir::Identity;
use trandb_runtime::disk::{Disk, SimDisk};
use trandb_runtime::engine::{Engine, MemoryEngine};
use trandb_runtime::planted::plant_named;

/// The fault that the process which runs [`cuts_with_a_fault`] plants.
const FAULT: &str = "TRANDB_POWER_CUT_FAULT";

/// Smaller than may be configured: there are many of them in a short run.
const SEGMENT_BYTES: u64 = 1 << 20;

/// Where the disk of a node of this process begins.
const ROOT: &str = "";

fn storage(disk: Arc<dyn Disk>, engine: Arc<dyn Engine>) -> StorageDoor {
    // The identity is kept by the directory, which is recorded outside.
    let identity = Identity::fresh(InstanceId(5));
    StorageDoor::Given { disk, engine, identity: Arc::new(Mutex::new(identity)), work: DiskWork::Threads }
}

fn config() -> Config {
    let mut config = settings::config(Path::new("unused"));
    config.storage.wal_segment_bytes = SEGMENT_BYTES;
    config.storage.checkpoint_log_bytes = SEGMENT_BYTES;
    config
}

fn record(seed: u64) -> Run {
    let recorder = Recorder::default();
    let disk = Arc::new(RecordingDisk::new(recorder.clone()));
    let engine = RecordingEngine { engine: MemoryEngine::new(), recorder: recorder.clone() };
    let runtime = Runtime::new().expect("a runtime");
    let history = runtime.block_on(async {
        let node = start(cuts::options(config(), storage(disk, Arc::new(engine)))).await.expect("starts");
        let stamp = {
            let recorder = recorder.clone();
            Arc::new(move || recorder.now())
        };
        let enough = tokio::time::sleep(settings::load_time());
        load::run(&node.addresses().native, enough, seed, stamp).await
        // Nobody ends it in order: it loses its power.
    });
    runtime.shutdown_background();
    Run { recording: recorder.take(), history }
}

fn restore(image: &Image) -> NodeOptions {
    let disk = SimDisk::volatile();
    image.write_to(&disk, ROOT.as_ref()).expect("memory has room");
    options(Arc::new(disk), Arc::new(image.engine.clone()))
}

fn options(disk: Arc<dyn Disk>, engine: Arc<dyn Engine>) -> NodeOptions {
    cuts::options(settings::judged(config()), storage(disk, engine))
}

fn once(cut: &Cut<'_>, image: &Image, _: &mut StdRng) -> Result<(), String> {
    cut.judge(restore(image)).map(drop)
}

/// What recovers is cut off once more: while it recovers, while it serves, or at its end. Nobody has written since, so what it
/// had the first time it must have the second.
fn twice(cut: &Cut<'_>, image: &Image, random: &mut StdRng) -> Result<(), String> {
    let recorder = Recorder::default();
    let disk = RecordingDisk::new(recorder.clone());
    image.write_to(&disk, ROOT.as_ref()).expect("memory has room");
    image.sync_on(&disk, ROOT.as_ref()).expect("all of it is there");
    let engine = RecordingEngine { engine: MemoryEngine::new(), recorder: recorder.clone() };
    copy_engine(&image.engine, &engine);
    let began = recorder.now();
    let first = cut.judge(options(Arc::new(disk), Arc::new(engine)))?;
    let recording = recorder.take();
    let at = random.random_range(began..=recording.now());
    let left = Left::ALL[random.random_range(0..Left::ALL.len())];
    let why =
        |what: &str| format!("cut again at {at} of {began} to {}, {left:?} left: {what}", recording.now());
    let second =
        cut.judge(restore(&Image::after(&recording, at, left, random))).map_err(|error| why(&error))?;
    let differs = |(key, value): &(&String, &bytes::Bytes)| second.get(*key) != Some(*value);
    match first.iter().find(differs) {
        Some((key, _)) => Err(why(&format!("{key} is not what it was after the first cut"))),
        None if first.len() < second.len() => Err(why("there is more than after the first cut")),
        None => Ok(()),
    }
}

fn failed_cuts(until: Until, judged: Try) -> usize {
    let seed = settings::seed();
    record(seed).cut(settings::cuts(), until, seed, judged)
}

#[test]
fn no_cut_loses_what_the_disk_door_synced() {
    assert_eq!(failed_cuts(Until::Done, once), 0);
}

#[test]
fn no_second_cut_during_recovery_loses_anything() {
    assert_eq!(failed_cuts(Until::Done, twice), 0);
}

/// Is run by [`a_sync_that_is_left_out_inside_is_found`] in a process of its own, since faults are planted in whole
/// processes.
#[test]
#[ignore = "is the process with the fault"]
fn cuts_with_a_fault() {
    let Ok(fault) = std::env::var(FAULT) else { return };
    assert!(plant_named(&fault));
    assert_eq!(failed_cuts(Until::Failure, once), 0);
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "nothing is planted in release builds")]
fn a_sync_that_is_left_out_inside_is_found() {
    for fault in ["ack-before-sync", "segment-without-name"] {
        let output = Command::new(std::env::current_exe().expect("this binary"))
            .args(["inside::cuts_with_a_fault", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env(FAULT, fault)
            .output()
            .expect("runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains("failed: cut at"), "{fault}: {said}");
    }
}
