//! Scenarios: what happens to a cluster, and what must hold meanwhile and after.

mod ahead;
mod blank;
mod chase;
mod demoted;
mod flicker;
mod forsaken;
mod heir;
mod lenders;
mod load;
mod movers;
mod newcomers;
mod orphans;
mod partition;
mod reborn;
mod relapse;
mod storm;
mod uneven;
mod unseated;

use crate::cluster::{Cluster, Group};
use crate::plan::Plan;
use crate::workload::Board;
use std::pin::Pin;

/// A scenario's run; an error is a violation.
pub type Script = Pin<Box<dyn Future<Output = turmoil::Result>>>;

/// A scenario.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does, for people.
    pub about: &'static str,
    /// What a seed decides for it.
    pub plan: fn(u64) -> Plan,
    /// Runs it, on a simulated host of its own.
    pub script: fn(Cluster, Plan, Board) -> Script,
}

/// All scenarios; the first is the default.
pub const SCENARIOS: &[Scenario] = &[
    storm::SCENARIO,
    partition::SCENARIO,
    load::SCENARIO,
    demoted::SCENARIO,
    ahead::SCENARIO,
    forsaken::SCENARIO,
    orphans::SCENARIO,
    reborn::SCENARIO,
    heir::SCENARIO,
    lenders::SCENARIO,
    unseated::SCENARIO,
    newcomers::SCENARIO,
    blank::SCENARIO,
    movers::SCENARIO,
    chase::SCENARIO,
    uneven::SCENARIO,
    relapse::SCENARIO,
    flicker::SCENARIO,
];

/// The scenario of that name.
pub fn find(name: &str) -> Option<Scenario> {
    SCENARIOS.iter().copied().find(|scenario| scenario.name == name)
}

/// Who leads the system group, and who leads another one: without timestamps nobody could write what that one should know of.
fn roles(groups: &[Group]) -> Option<(Option<usize>, usize)> {
    let (system, partitions) = groups.split_first()?;
    let leader =
        partitions.iter().filter_map(|group| group.leader).find(|&leader| Some(leader) != system.leader)?;
    Some((system.leader, leader))
}
