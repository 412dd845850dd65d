//! Transactions over a few partitions, run step by step in random orders: with coordinators that die, messages that come
//! twice or late, and replicas that start from checkpoints and snapshots. What each transaction saw is judged by brute
//! force.

mod judge;
mod model;
#[path = "../shared/mod.rs"]
mod shared;

use judge::judge;
use model::{Fault, run};
use trandb_cluster::txn::Isolation;

const LEVELS: [Isolation; 3] = [Isolation::ReadCommitted, Isolation::Snapshot, Isolation::Serializable];

/// Random schedules per level.
const SCHEDULES: u64 = 1000;

/// The same for a longer sweep: `TRANDB_SCHEDULES=100000 cargo test -p trandb-cluster --test transactions`.
fn schedules() -> u64 {
    std::env::var("TRANDB_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(SCHEDULES)
}

#[test]
fn every_schedule_is_what_its_level_promises() {
    for isolation in LEVELS {
        let (mut committed, mut aborted, mut pushes, mut dead) = (0, 0, 0, 0);
        for seed in 0..schedules() {
            let history = run(seed, isolation, None);
            if let Err(why) = judge(&history) {
                panic!("{isolation:?}, schedule {seed}: {why}\n{history:#?}");
            }
            committed += history.txns.iter().filter(|txn| txn.committed.is_some()).count();
            aborted += history.txns.iter().filter(|txn| txn.committed.is_none()).count();
            pushes += history.pushes;
            dead += history.dead;
        }
        // The schedules meet what they are meant to meet.
        for (what, count) in [("commits", committed), ("aborts", aborted), ("pushes", pushes), ("dead", dead)]
        {
            assert!(count > 100, "{isolation:?}: only {count} {what} in {SCHEDULES} schedules");
        }
    }
}

#[test]
fn planted_faults_are_found() {
    for fault in [
        Fault::SkipReadValidation,
        Fault::PassIntents,
        Fault::CommitBeforePrepared,
        Fault::LeaveRefusedCommits,
        Fault::ForgetEarlierRun,
        Fault::LoseAnchor,
        Fault::ResolveLater,
    ] {
        // The state machine's own checks find it, too.
        let fails = |seed: &u64| {
            let run = std::panic::catch_unwind(|| run(*seed, Isolation::Serializable, Some(fault)));
            run.map_or(true, |history| judge(&history).is_err())
        };
        let found = (0..5 * SCHEDULES).find(fails);
        assert!(found.is_some(), "{fault:?} was not found");
    }
}
