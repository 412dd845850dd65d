//! Disks that fail: a real process is told by `strace` that a sync has failed.

use crate::harness::{Node, Ports, eventually};
use crate::{settings, strace};
use bytes::Bytes;
use std::time::{Duration, Instant};
use trandb_client::blocking::Client;
use trandb_runtime::config::EngineKind;

/// What the program logs when it starts its node anew.
pub(crate) const ANEW: &str = "the node starts anew from what is on disk";

/// Syncs of one thread before one fails: the log's gets there first, after the node has founded its cluster.
const GOOD_SYNCS: usize = 400;

/// Writes after the node was seen to have come back: too few for the next failure.
pub(crate) const MORE: usize = 50;

pub(crate) fn put(
    client: &Client,
    acknowledged: &mut Vec<String>,
    bytes: usize,
) -> Result<(), trandb_client::Error> {
    let key = format!("key {:06}", acknowledged.len());
    let value = Bytes::from(vec![b'v'; bytes]);
    client.put(&key, value)?;
    acknowledged.push(key);
    Ok(())
}

pub(crate) fn all_there(client: &Client, acknowledged: &[String]) {
    for key in acknowledged {
        assert!(client.get(key).expect("is read").is_some(), "{key} was acknowledged");
    }
}

#[test]
fn a_failed_sync_is_not_tried_again_and_the_node_comes_back_by_itself() {
    if !strace::is_there() {
        println!("skipped: there is no strace here, or it may not trace");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace");
    let fault = format!("fdatasync:error=EIO:when={GOOD_SYNCS}");
    let wrapper = strace::faulty(&trace, &fault);
    let home = folder.path().join("node");
    let mut node = Node::start_by(
        wrapper,
        &home,
        Ports::free(1).remove(0),
        &[],
        settings::environment(EngineKind::default()),
    );
    node.wait_ready();
    let process = node.process_id();
    let client = node.client();
    let mut acknowledged = Vec::new();
    let until = Instant::now() + Duration::from_secs(120);
    while !node.log().contains(ANEW) {
        assert!(Instant::now() < until, "no sync has failed");
        // One that is not acknowledged is nobody's.
        let _ = put(&client, &mut acknowledged, 100);
    }
    node.wait_ready();
    for _ in 0..MORE {
        eventually("a write after the failure", || put(&client, &mut acknowledged, 100));
    }
    all_there(&client, &acknowledged);
    assert_eq!(node.process_id(), process);
    node.kill9();
    node.restart();
    all_there(&node.client(), &acknowledged);
}
