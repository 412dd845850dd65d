//! A node ends at a named step of a transaction's protocol, as its coordinator, as the leader of a partition that takes
//! part, of the anchor, of the oracle. Whatever the step: nobody is blocked for much longer than the lease, after five
//! seconds nothing of the transaction is held any more, all of it was done or nothing, and its outcome says which.

// Whole processes on a real machine: the doors of the simulation are not theirs.
#![allow(clippy::disallowed_methods)]

#[path = "../harness/mod.rs"]
mod harness;

mod after;
mod cast;
mod client;
mod node;

use harness::Cluster;
use std::time::Duration;
use tokio::runtime::Runtime;

/// How soon a dead node's partitions are led again is part of what is looked at.
const TIMING: [(&str, &str); 0] = [];

/// Partitions: enough that every node leads some.
const PARTITIONS: &str = "8";

/// How long others stand still at a step, in milliseconds, so that somebody ends meanwhile.
const HELD_FOR_MS: u64 = 700;

/// How long after the beginning of a commit that is held somebody ends.
const MEANWHILE: Duration = Duration::from_millis(250);

/// Who ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// The node where the transaction began.
    Coordinator,
    /// The leader of the partition where it is decided: the first of those that it writes in.
    Anchor,
    /// The leader of the other one.
    Participant,
    /// The node that gives out timestamps.
    Oracle,
    /// The same, by `kill -9` while the others stand still at the step.
    OracleMeanwhile,
}

/// What a test of a few seconds looks at: one of each.
const SOME: &[(Who, &str)] = &[
    (Who::Coordinator, "prepared"),
    (Who::Participant, "prepare-applied"),
    (Who::Anchor, "decide-applied"),
    (Who::Oracle, "grant"),
    (Who::OracleMeanwhile, "prepared"),
];

/// All of them.
const ALL: &[(Who, &str)] = &[
    (Who::Coordinator, "one-prepared"),
    (Who::Coordinator, "prepared"),
    (Who::Coordinator, "decided"),
    (Who::Coordinator, "telling"),
    (Who::Participant, "prepare-taken"),
    (Who::Participant, "prepare-applied"),
    (Who::Participant, "resolve-taken"),
    (Who::Participant, "resolve-applied"),
    (Who::Anchor, "decide-taken"),
    (Who::Anchor, "decide-applied"),
    (Who::Anchor, "finish-taken"),
    (Who::Anchor, "finish-applied"),
    (Who::Anchor, "commit-taken"),
    (Who::Anchor, "commit-applied"),
    (Who::Oracle, "grant"),
    (Who::Oracle, "granted"),
    (Who::Oracle, "reserving"),
    (Who::Oracle, "reserved"),
    (Who::OracleMeanwhile, "prepare-taken"),
    (Who::OracleMeanwhile, "prepare-applied"),
    (Who::OracleMeanwhile, "one-prepared"),
    (Who::OracleMeanwhile, "prepared"),
    (Who::OracleMeanwhile, "decide-taken"),
    (Who::OracleMeanwhile, "decide-applied"),
    (Who::OracleMeanwhile, "decided"),
    (Who::OracleMeanwhile, "telling"),
    (Who::OracleMeanwhile, "resolve-taken"),
    (Who::OracleMeanwhile, "resolve-applied"),
    (Who::OracleMeanwhile, "commit-taken"),
    (Who::OracleMeanwhile, "commit-applied"),
];

/// What a client had done when it was killed, or the step at which the nodes stood still meanwhile.
const CLIENT: &[&str] = &[
    "begun",
    "locked",
    "written",
    "prepare-taken",
    "one-prepared",
    "prepared",
    "decide-taken",
    "decided",
    "resolve-taken",
    "commit-taken",
    "commit-applied",
];

/// Has all that are named stand still at a step, once each.
fn hold(cluster: &Cluster, nodes: &[usize], step: &str) {
    for &node in nodes {
        let path = format!("/admin/debug/hold?at={step}&ms={HELD_FOR_MS}");
        assert_eq!(cluster.nodes[node].http("POST", &path, &[], b"").status, 204);
    }
}

/// Nobody stands still any more.
fn let_go(cluster: &Cluster, nodes: &[usize], step: &str) {
    for &node in nodes {
        let path = format!("/admin/debug/hold?at={step}&ms=0");
        assert_eq!(cluster.nodes[node].http("POST", &path, &[], b"").status, 204);
    }
}

fn run(cases: &[(Who, &str)]) {
    let mut cluster = Cluster::start(3, &["--partitions", PARTITIONS]);
    let runtime = Runtime::new().expect("a runtime");
    for (case, (who, step)) in cases.iter().enumerate() {
        node::dies(&mut cluster, &runtime, case, *who, step);
    }
    cluster.wait_identical(3);
}

#[test]
fn a_death_leaves_a_transaction_whole_and_nobody_blocked() {
    run(SOME);
}

#[test]
#[ignore = "takes minutes: every step of the protocol"]
fn a_death_at_every_step_leaves_a_transaction_whole_and_nobody_blocked() {
    run(ALL);
}

#[test]
fn a_client_that_dies_blocks_nobody_for_long() {
    client::run(&["locked", "prepared"]);
}

#[test]
#[ignore = "takes minutes: every step of the protocol"]
fn a_client_that_dies_at_any_step_blocks_nobody_for_long() {
    client::run(CLIENT);
}
