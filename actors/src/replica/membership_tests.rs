use crate::node::{NodeOptions, RunningNode, StorageDoor, start};
use crate::testing;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::timeout;
use trandb_cluster::{InstanceId, NodeId};
use trandb_runtime::disk::SimDisk;
use trandb_runtime::raft::{ChangeMembers, Raft, RaftMetrics, WatchReceiver, unfinished, voters};

/// How long a cluster may take to settle.
const PATIENCE: Duration = Duration::from_secs(30);

fn options(instance: u64, seeds: Vec<String>) -> NodeOptions {
    let options = testing::options(&SimDisk::new(), |config| config.node.seeds = seeds);
    if let StorageDoor::Given { identity, .. } = &options.storage {
        identity.lock().expect("nobody else has it").instance = InstanceId(instance);
    }
    options
}

/// Waits until the leader's metrics are so.
async fn until(raft: &Raft, what: &str, so: impl Fn(&RaftMetrics) -> bool) {
    let mut metrics = raft.metrics();
    let waiting = async {
        while !so(&metrics.borrow_watched()) {
            metrics.changed().await.expect("Raft runs");
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("not {what}: {}", *metrics.borrow_watched()));
}

fn settled(metrics: &RaftMetrics) -> bool {
    let committed = &metrics.committed_membership_config;
    unfinished(committed).is_none() && voters(committed) == [NodeId(1), NodeId(2)]
}

/// Begins to make the first node the only voter, and goes no further than half of it. Says whether that was so.
async fn begin_change(raft: &Raft) -> bool {
    let change = raft.change_membership(ChangeMembers::ReplaceAllVoters(BTreeSet::from([1])), false);
    let half = until(raft, "half way", |metrics| unfinished(&metrics.membership_config).is_some());
    tokio::select! {
        biased;
        () = half => {}
        _ = change => return false,
    }
    let committed = |metrics: &RaftMetrics| metrics.committed_membership_config == metrics.membership_config;
    until(raft, "committed", committed).await;
    unfinished(&raft.metrics().borrow_watched().membership_config).is_some()
}

/// Two nodes, of which the first leads the system group, and its Raft.
async fn two_nodes() -> (RunningNode, RunningNode, Raft) {
    let first = start(options(1, Vec::new())).await.unwrap();
    testing::wait_ready(&first).await;
    let second = start(options(2, vec![first.addresses().peer.clone()])).await.unwrap();
    testing::wait_ready(&second).await;
    let raft = first.database().context().system_raft().expect("it runs");
    (first, second, raft)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leads_without_a_vote_hands_over() {
    let (first, second, raft) = two_nodes().await;
    until(&raft, "two voters", settled).await;
    let demote = ChangeMembers::ReplaceAllVoters(BTreeSet::from([2]));
    raft.change_membership(demote, true).await.unwrap();
    until(&raft, "led by the second", |metrics| metrics.current_leader == Some(2)).await;
    until(&raft, "two voters again", settled).await;
    second.shutdown().await;
    first.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_was_left_half_done_is_ended() {
    let (first, second, raft) = two_nodes().await;
    let mut tries = 0;
    loop {
        until(&raft, "two voters", settled).await;
        if begin_change(&raft).await {
            break;
        }
        tries += 1;
        assert!(tries < 10, "no change was left half done");
    }
    // Ended to what it was to be, which the controller then mends.
    until(&raft, "ended", settled).await;
    second.shutdown().await;
    first.shutdown().await;
}
