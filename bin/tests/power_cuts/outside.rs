//! Recorded outside: a real process with its data directory, its system calls watched by `strace`, once with each storage
//! engine that there is on disk.

use crate::cuts::{self, Cut, Run, Until};
use crate::harness::{Node, PATIENCE, Ports};
use crate::image::Image;
use crate::{load, settings, strace};
use rand::rngs::StdRng;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::Runtime;
use trandb_actors::node::{NodeOptions, StorageDoor};
use trandb_runtime::config::EngineKind;
use trandb_runtime::disk::RealDisk;

/// Where a node keeps its data within its folder, which is what is recorded.
const DATA: &str = "data";

/// Checkpoints of a recording, over all partitions, at the least.
const CHECKPOINTS: f64 = 24.0;

/// Recordings that are tried: a trace may be useless.
const ATTEMPTS: usize = 3;

fn record(engine: EngineKind, seed: u64, fault: Option<&str>) -> Run {
    let attempt =
        |_| record_once(engine, seed, fault).inspect_err(|why| println!("recorded anew: {why}")).ok();
    (0..ATTEMPTS).find_map(attempt).expect("a trace of what was done")
}

fn record_once(engine: EngineKind, seed: u64, fault: Option<&str>) -> Result<Run, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let (home, trace) = (folder.path().join("node"), folder.path().join("trace"));
    let mut environment = settings::environment(engine);
    environment.extend(fault.map(|fault| ("TRANDB_PLANT", fault.to_owned())));
    let ports = Ports::free(1).remove(0);
    let mut node = Node::start_by(strace::wrapper(&trace), &home, ports, &[], environment);
    node.wait_ready();
    let micros = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as u64;
    let runtime = Runtime::new().expect("a runtime");
    let mut history =
        runtime.block_on(load::run(&node.ports.native, is_checkpointed(&node), seed, Arc::new(micros)));
    node.kill9();
    let trace = strace::read_when_done(&trace, &home)?;
    for attempt in history.values_mut().flatten() {
        // What a client sent was sent before the node wrote it, what it was told after.
        attempt.sent = trace.clock_at(attempt.sent);
        attempt.told = attempt.told.map(|told| trace.clock_at(told));
    }
    Ok(Run { recording: trace.recording, history })
}

/// Ends once the load has run for its time and the node has written so many checkpoints that its log has been purged
/// again and again: before that no engine is needed for what was acknowledged, whatever it lost. Slow machines take
/// longer.
async fn is_checkpointed(node: &Node) {
    tokio::time::sleep(settings::load_time()).await;
    let until = Instant::now() + PATIENCE;
    // It blocks nobody: the writers run on the runtime's own threads.
    let written = || node.metric("trandb_checkpoint_seconds_count", &[]);
    while written() < CHECKPOINTS {
        assert!(Instant::now() < until, "{} checkpoints within {PATIENCE:?}", written());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn restore(engine: EngineKind, image: &Image, folder: &Path) -> NodeOptions {
    image.write_to(&RealDisk, folder).expect("there is room");
    let mut config = settings::judged(settings::config(&folder.join(DATA)));
    config.storage.engine = engine.into();
    cuts::options(config, StorageDoor::Configured)
}

fn with_sled(cut: &Cut<'_>, image: &Image, _: &mut StdRng) -> Result<(), String> {
    cut.judge(restore(EngineKind::Sled, image, cut.folder)).map(drop)
}

fn with_fjall(cut: &Cut<'_>, image: &Image, _: &mut StdRng) -> Result<(), String> {
    cut.judge(restore(EngineKind::Fjall, image, cut.folder)).map(drop)
}

/// A fault shows in one of some seven cuts: more than enough for luck to play no part.
const CUTS_UNTIL_FOUND: usize = 400;

/// None where it cannot be tried.
fn failed_cuts(engine: EngineKind, fault: Option<&str>) -> Option<usize> {
    if !strace::is_there() {
        println!("skipped: there is no strace here, or it may not trace");
        return None;
    }
    let seed = settings::seed();
    let (cuts, until) = match fault {
        Some(_) => (settings::cuts().max(CUTS_UNTIL_FOUND), Until::Failure),
        None => (settings::cuts(), Until::Done),
    };
    let judged = if engine == EngineKind::Fjall { with_fjall } else { with_sled };
    Some(record(engine, seed, fault).cut(cuts, until, seed, judged))
}

fn nothing_is_lost(engine: EngineKind) {
    if let Some(failed) = failed_cuts(engine, None) {
        assert_eq!(failed, 0);
    }
}

#[test]
fn no_cut_loses_what_a_process_synced_with_sled() {
    nothing_is_lost(EngineKind::Sled);
}

#[test]
fn no_cut_loses_what_a_process_synced_with_fjall() {
    nothing_is_lost(EngineKind::Fjall);
}

fn is_found(engine: EngineKind, fault: &str) {
    if let Some(failed) = failed_cuts(engine, Some(fault)) {
        assert!(failed > 0, "{fault} was not found with {engine}");
    }
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "nothing is planted in release builds")]
fn a_sync_that_is_left_out_outside_is_found() {
    is_found(EngineKind::Sled, "ack-before-sync");
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "nothing is planted in release builds")]
fn a_sync_of_the_engine_that_is_left_out_outside_is_found_with_sled() {
    is_found(EngineKind::Sled, "engine-without-sync");
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "nothing is planted in release builds")]
fn a_sync_of_the_engine_that_is_left_out_outside_is_found_with_fjall() {
    is_found(EngineKind::Fjall, "engine-without-sync");
}
