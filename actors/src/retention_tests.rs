//! A node under a load on one key, while all other groups are idle.
//!
//! The second test is about settings as they are shipped, but for the size of segments: a log that may grow to a gigabyte is
//! short where there is little live data.

use crate::database::RequestContext;
use crate::node::{self, NodeOptions, RunningNode};
use crate::testing::{self, write};
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::wire::KeyOp;
use trandb_runtime::disk::{Disk, SimDisk};

const SEGMENT_BYTES: u64 = 64 << 10;

/// Of the log of the second test, into which four values of that size go.
const LARGE_SEGMENT_BYTES: u64 = 1 << 20;
const LARGE_BYTES: usize = 200 << 10;

fn options(disk: &SimDisk) -> NodeOptions {
    testing::options(disk, |config| {
        config.storage.wal_segment_bytes = SEGMENT_BYTES;
        config.storage.checkpoint_log_bytes = SEGMENT_BYTES;
    })
}

/// Sequence numbers of the log's segments.
fn segments(disk: &SimDisk) -> Vec<u64> {
    let names = disk.read_dir(Path::new("wal")).unwrap();
    let live = names.iter().filter(|name| name.extension().is_some_and(|extension| extension == "wal"));
    live.map(|name| u64::from_str_radix(name.file_stem().unwrap().to_str().unwrap(), 16).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_groups_do_not_keep_old_segments_alive() {
    let disk = SimDisk::new();
    let node = node::start(options(&disk)).await.unwrap_or_else(|error| panic!("{error}"));
    testing::wait_ready(&node).await;
    // Every partition gets something to hold on to.
    execute(&node, (0..64).map(|key| write(&format!("idle {key}"), 10)).collect()).await;
    for _ in 0..600 {
        execute(&node, vec![write("busy", 8 << 10)]).await;
    }
    let written = *segments(&disk).last().unwrap();
    assert!(written > 60, "{written} segments were written");

    let kept = super::segments_behind(&options(&disk).config.storage, 0) as u64;
    wait_for_at_most(&disk, kept + 1).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_few_live_data_is_short() {
    let disk = SimDisk::new();
    let options = testing::options(&disk, |config| config.storage.wal_segment_bytes = LARGE_SEGMENT_BYTES);
    let kept = super::segments_behind(&options.config.storage, LARGE_BYTES as u64) as u64;
    let node = node::start(options).await.unwrap_or_else(|error| panic!("{error}"));
    testing::wait_ready(&node).await;
    for _ in 0..400 {
        execute(&node, vec![write("busy", LARGE_BYTES)]).await;
    }
    let written = *segments(&disk).last().unwrap();
    assert!(written > 2 * kept, "{written} segments were written");
    wait_for_at_most(&disk, kept + 1).await;
    node.shutdown().await;
}

async fn execute(node: &RunningNode, ops: Vec<KeyOp>) {
    let context = RequestContext { deadline: Instant::now() + Duration::from_secs(20), trace: None };
    for reply in node.database().execute(ops, &context).await {
        reply.result.unwrap_or_else(|error| panic!("{error}"));
    }
}

async fn wait_for_at_most(disk: &SimDisk, kept: u64) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let segments = segments(disk);
        if segments.len() as u64 <= kept {
            return;
        }
        assert!(Instant::now() < deadline, "the log still holds {segments:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
