//! Recorded inside: a node of this process, on a disk door and an engine that write down what they are asked for.

use crate::cuts::{self, Run, Until};
use crate::door::{Recorder, RecordingDisk, RecordingEngine};
use crate::image::Image;
use crate::{load, settings};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use tokio::runtime::Runtime;
use trandb_actors::node::{NodeOptions, StorageDoor, start};
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

fn storage(disk: Arc<dyn Disk>, engine: Arc<dyn Engine>) -> StorageDoor {
    // The identity is kept by the directory, which is recorded outside.
    let identity = Identity { instance: InstanceId(5), node: None, cluster: None, rejoins: None };
    StorageDoor::Given { disk, engine, identity: Arc::new(Mutex::new(identity)), inline: false }
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
        load::run(&node.addresses().native, settings::load_time(), seed, stamp).await
        // Nobody ends it in order: it loses its power.
    });
    runtime.shutdown_background();
    Run { recording: recorder.take(), history }
}

fn restore(image: &Image, _: &Path) -> NodeOptions {
    let disk = SimDisk::volatile();
    image.write_to(&disk, Path::new("")).expect("memory has room");
    let storage = storage(Arc::new(disk), Arc::new(image.engine.clone()));
    cuts::options(settings::judged(config()), storage)
}

fn failed_cuts(until: Until) -> usize {
    let seed = settings::seed();
    record(seed).cut(settings::cuts(), until, seed, restore)
}

#[test]
fn no_cut_loses_what_the_disk_door_synced() {
    assert_eq!(failed_cuts(Until::Done), 0);
}

/// Is run by [`a_sync_that_is_left_out_inside_is_found`] in a process of its own, since faults are planted in whole
/// processes.
#[test]
#[ignore = "is the process with the fault"]
fn cuts_with_a_fault() {
    let Ok(fault) = std::env::var(FAULT) else { return };
    assert!(plant_named(&fault));
    assert_eq!(failed_cuts(Until::Failure), 0);
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
