//! One run: a seed, a scenario, and what came of it.

use crate::cluster::{Cluster, client_host};
use crate::coverage::Coverage;
use crate::entries::Entries;
use crate::history::Counts;
use crate::invariant::{self, Evidence};
use crate::observe::Observer;
use crate::plan::Plan;
use crate::scenario::Scenario;
use crate::trace::Trace;
use crate::workload::Board;
use futures_util::future::try_join_all;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::net::SocketAddr;
use std::rc::Rc;
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

/// Who listens to the nodes of a run.
pub struct Witnesses {
    /// Hears what they log.
    pub observer: Observer,
    /// Sees what their replicas go through.
    pub entries: Entries,
    /// Counts.
    pub coverage: Coverage,
}

/// Runs a scenario. Only once in a process: entropy and clocks are pinned for good.
///
/// # Panics
/// When called a second time.
pub fn run(
    scenario: Scenario,
    plan: &Plan,
    park: SocketAddr,
    trace: &Trace,
    witnesses: &Witnesses,
) -> Outcome {
    invariant::watch_panics();
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(plan.seed));
    let _clocks = mad_turmoil::time::SimClocksGuard::init();
    let board = Board::new(witnesses.entries.clone());
    let (mut sim, cluster, crew) = Cluster::new(plan, park);
    let workloads: Vec<_> = plan.kinds().map(|kind| (kind.make)(board.clone())).collect();
    for node in 0..plan.clients {
        // All on one host: it is hosts that simulated time is spent on.
        let clients = workloads.iter().enumerate().map(|(place, workload)| {
            let seed = plan.seed.wrapping_add((1 + node + place * 1_000) as u64);
            Rc::clone(workload).client(cluster.clone(), node, StdRng::seed_from_u64(seed))
        });
        let clients = try_join_all(clients.collect::<Vec<_>>());
        sim.client(client_host(node), async { clients.await.map(drop) });
    }
    sim.client("scenario", (scenario.script)(cluster, plan.clone(), board.clone()));
    let ended = crew.run(&mut sim, trace);
    let history = board.history.borrow();
    let mut violations = history.violations();
    violations.extend(workloads.iter().flat_map(|workload| workload.violations(&history)));
    let Witnesses { observer, entries, coverage } = witnesses;
    violations.extend(invariant::violations(&Evidence {
        plan,
        history: &history,
        observer,
        entries,
        coverage,
    }));
    violations.extend(ended.err().map(|error| error.to_string()));
    let (hash, events) = trace.digest();
    Outcome { violations, counts: history.counts(), elapsed: sim.elapsed(), trace: hash, events }
}
