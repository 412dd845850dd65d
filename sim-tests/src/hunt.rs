//! Plants one fault after the other and lets many seeds look for each: what a simulation is worth.

use crate::sweep::Sweep;
use std::ops::Range;
use std::process::ExitCode;
use trandb_runtime::planted::{PLANTED, Planted};

/// The scenario that looks for a fault, where storms hardly ever come upon it.
const SCENARIOS: [(Planted, &str); 13] = [
    (Planted::VoteAfterRestart, "lenders"),
    (Planted::LearnerLease, "demoted"),
    (Planted::ForgetInFlight, "forsaken"),
    (Planted::LeaseWhenGivenAway, "heir"),
    (Planted::LeadWithoutVote, "unseated"),
    (Planted::PeersForgotten, "newcomers"),
    (Planted::MovingForgotten, "newcomers"),
    (Planted::StartingIsFresh, "blank"),
    (Planted::MovedUnsaid, "movers"),
    (Planted::LogOverlooked, "chase"),
    (Planted::LeaseOfOwn, "uneven"),
    (Planted::OlderCopyUnnoticed, "relapse"),
    (Planted::StandWhenDown, "flicker"),
];

/// Prints for every fault that can be planted how many seeds of the sweep's scenario, or of that which looks for it, it takes
/// to find it. Success when all were found.
pub fn run(sweep: &Sweep, seeds: &Range<u64>) -> ExitCode {
    let mut all = true;
    // No simulated node has an engine on disk: power cuts look for that one.
    for (name, fault) in PLANTED.iter().filter(|(_, fault)| *fault != Planted::EngineWithoutSync) {
        let sweep = Sweep { scenario: scenario(*fault, &sweep.scenario), ..sweep.clone() };
        let found = match sweep.hunt(name, seeds.clone()) {
            Ok(found) => found,
            Err(code) => return code,
        };
        all &= !found.is_empty();
        println!("planted    {name}, {}: {}", sweep.scenario, told(&found, seeds));
    }
    ExitCode::from(u8::from(!all))
}

fn scenario(fault: Planted, otherwise: &str) -> String {
    let own = SCENARIOS.iter().find(|(of, _)| *of == fault);
    own.map_or(otherwise, |(_, scenario)| scenario).to_owned()
}

fn told(found: &[u64], seeds: &Range<u64>) -> String {
    let tried = seeds.end - seeds.start;
    match found.first() {
        Some(first) => {
            let median = median(found, seeds.start);
            format!(
                "found by {} of {tried} seeds, first by {first}, after {median} at the median",
                found.len()
            )
        }
        None => format!("not found by {tried} seeds"),
    }
}

/// How many seeds it took from one find to the next, at the median.
fn median(found: &[u64], start: u64) -> u64 {
    let mut after: Vec<u64> = std::iter::once(&(start.saturating_sub(1)))
        .chain(found)
        .zip(found)
        .map(|(before, seed)| seed - before)
        .collect();
    after.sort_unstable();
    after[after.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::find;

    #[test]
    fn scenarios_of_faults_exist() {
        for (_, name) in SCENARIOS {
            assert!(find(name).is_some(), "{name}");
        }
    }

    #[test]
    fn seeds_are_counted_from_one_find_to_the_next() {
        assert_eq!(median(&[3], 1), 3);
        assert_eq!(median(&[2, 3, 9], 1), 2);
        assert_eq!(told(&[], &(1..6)), "not found by 5 seeds");
        assert_eq!(told(&[2, 3], &(1..6)), "found by 2 of 5 seeds, first by 2, after 2 at the median");
    }
}
