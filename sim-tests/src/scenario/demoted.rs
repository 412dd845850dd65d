//! Seven nodes found a cluster in which five vote, so that some group's leader is soon one that votes no more.
//!
//! Two bugs were found so, by storms of this shape. A system leader that had been made a learner counted its last
//! acknowledged heartbeats as a lease, and issued timestamps beside its successor: a write got a lower version than one
//! acknowledged before it, and scans missed what had been written (to be had back by planting `learner-lease`). And one
//! whose Raft refused proposals asked itself for another window of timestamps at once, without end, and did nothing else.
//!
//! Leaders hand over by now before they lose their vote, which the planted fault leaves out: one that goes on as a learner leads
//! without a lease, and nobody stands for election.

use super::{Scenario, Script, storm};
use crate::plan::{NODES_MAX as NODES, Plan};
use crate::weather::Climate;
use crate::workload::places;
use std::time::Duration;

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "demoted",
    about: "seven nodes whose clocks are seconds apart, of which five vote, without faults",
    plan,
    script: |cluster, plan, board| -> Script { Box::pin(storm::script(cluster, plan, board)) },
};

/// Whatever the seed draws, but for the shape. Clients of every node read and write while the cluster is founded.
fn plan(seed: u64) -> Plan {
    let drawn = Plan::draw(seed);
    let ahead = |node: i64| if node % 2 == 0 { 2_000 } else { -2_000 };
    Plan {
        nodes: NODES,
        replication: 5,
        clocks_ms: (0..NODES as i64).map(ahead).collect(),
        workloads: places(&["register", "scans"]),
        clients: NODES,
        patience: Duration::from_secs(2),
        joins: Vec::new(),
        climate: Climate::default(),
        faults: Vec::new(),
        ..drawn
    }
}
