//! What must hold of a run whatever its workloads were, one file each: of the inside of nodes, and of all writes
//! together. That replicas agree is seen while the cluster is asked to be whole (see [`crate::liveness`]).

mod alarms;
mod bounds;
mod entries;
mod leaders;
mod memory;
mod panics;
mod timestamps;

pub use panics::watch as watch_panics;

use crate::coverage::Coverage;
use crate::entries::Entries;
use crate::history::History;
use crate::observe::Observer;
use crate::plan::Plan;

/// What a run has left behind to judge.
pub struct Evidence<'a> {
    /// What it was.
    pub plan: &'a Plan,
    /// What clients asked and were told.
    pub history: &'a History,
    /// What nodes logged.
    pub observer: &'a Observer,
    /// What their replicas went through.
    pub entries: &'a Entries,
    /// What nodes counted.
    pub coverage: &'a Coverage,
}

/// Judges one thing; answers what must not be.
type Invariant = fn(&Evidence<'_>) -> Vec<String>;

/// All invariants.
const INVARIANTS: &[Invariant] = &[
    leaders::violations,
    entries::violations,
    timestamps::violations,
    bounds::violations,
    memory::violations,
    alarms::violations,
    panics::violations,
];

/// What must not be; empty when all is well.
pub fn violations(evidence: &Evidence<'_>) -> Vec<String> {
    INVARIANTS.iter().flat_map(|invariant| invariant(evidence)).collect()
}
