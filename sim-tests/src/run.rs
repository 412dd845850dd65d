//! One run: a seed, a scenario, and what came of it.

use crate::cluster::{Cluster, NODES};
use crate::history::Counts;
use crate::plan::Plan;
use crate::scenario::Scenario;
use crate::trace::Trace;
use crate::workload::Workload;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::time::Duration;

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What must not be; empty when all is well.
    pub violations: Vec<String>,
    /// How the clients' operations ended.
    pub counts: Counts,
    /// Simulated time that it took.
    pub elapsed: Duration,
    /// The hash over all that happened; the same for every run of the seed.
    pub trace: u128,
    /// How many events that is.
    pub events: u64,
}

/// Runs a scenario. Only once in a process: entropy and clocks are pinned for good.
///
/// # Panics
/// When called a second time.
pub fn run(scenario: Scenario, plan: &Plan, park_port: u16, trace: &Trace) -> Outcome {
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(plan.seed));
    let _clocks = mad_turmoil::time::SimClocksGuard::init();
    let workload = Workload::default();
    let (mut sim, cluster, crew) = Cluster::new(plan, park_port);
    for node in 0..NODES {
        let seed = plan.seed.wrapping_add(1 + node as u64);
        sim.client(format!("c{}", node + 1), workload.clone().client(cluster.clone(), node, seed));
    }
    sim.client("scenario", (scenario.script)(cluster, plan.clone(), workload.clone()));
    let ended = crew.run(&mut sim, trace);
    let history = workload.history.borrow();
    let mut violations = history.violations();
    violations.extend(ended.err().map(|error| error.to_string()));
    let (hash, events) = trace.digest();
    Outcome { violations, counts: history.counts(), elapsed: sim.elapsed(), trace: hash, events }
}
