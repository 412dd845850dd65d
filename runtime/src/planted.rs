//! Faults planted on purpose, one at a time, so that judges can show that they find them.
//!
//! Where a fault would be, the code asks [`is_planted`], which a release build answers with a constant no. The fault
//! is chosen for the whole process before any node starts: a simulation is the only thing in its process, and a node of a
//! debug build takes it from the variable `TRANDB_PLANT`.

#[cfg(debug_assertions)]
use std::sync::atomic::{AtomicU8, Ordering};

/// A fault that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Planted {
    /// The log acknowledges what it has written, and not synced.
    AckBeforeSync = 1,
    /// A vote is kept in memory alone.
    ForgetVote,
    /// A replica votes right after a restart, and forgets the lease that it granted before.
    VoteAfterRestart,
    /// A leader answers reads whether its lease holds or not.
    ReadWhenDeposed,
    /// A new system leader issues timestamps of the window that the old one had reserved.
    ReuseWindow,
    /// A write that got no answer is sent again.
    RetryUnknown,
    /// The first entries after a start are applied twice.
    ApplyTwice,
    /// A snapshot lacks its last version.
    SnapshotWithoutLast,
    /// A router that knows a leader believes no news of another one.
    StaleRouter,
    /// Once a link was dialed again, what is sent arrives over the old session too.
    DoubleSession,
    /// An anchor that is asked later knows nothing of a commit.
    LoseAnchorRecord,
    /// A transaction commits without a look at whether what it read has changed.
    SkipValidation,
    /// Readers pass over what a transaction is about to write, without asking whether it has been decided.
    PassIntent,
    /// All partitions of a commit but one are told a later timestamp.
    ResolveWrongTimestamp,
    /// A replica answers reads of the past that it has not come to.
    ReadAheadOfLog,
    /// A leader that votes no more counts what its followers acknowledged as a lease.
    LearnerLease,
    /// A new segment of the log is used before its name is durable.
    SegmentWithoutName,
    /// The storage engine's files are not synced when it commits.
    EngineWithoutSync,
    /// A leader forgets an entry that is in flight with the caller that it tells that it is cut off, or with the actor that
    /// proposed it.
    ForgetInFlight,
    /// A leader counts its lease in the term in which it handed over.
    LeaseWhenGivenAway,
    /// A leader without a vote goes on.
    LeadWithoutVote,
    /// A member that restarts knows no peers but those of its checkpoint.
    PeersForgotten,
    /// A node that restarts begins only those replicas that it is to keep.
    MovingForgotten,
    /// A member that is starting says that it belongs to no cluster.
    StartingIsFresh,
    /// A member that has moved and has no link says nowhere where it is.
    MovedUnsaid,
    /// A member that starts looks for its peers where its last checkpoint has them, whatever its log says.
    LogOverlooked,
    /// A node whose directory is an older copy is linked to.
    OlderCopyUnnoticed,
    /// A leader's lease lasts as long as its own settings say, whatever its followers promise.
    LeaseOfOwn,
    /// A replica whose leader was lost takes the link to it for the leader, and stands for election only while it is down.
    StandWhenDown,
}

/// All of them, by name.
pub const PLANTED: &[(&str, Planted)] = &[
    ("ack-before-sync", Planted::AckBeforeSync),
    ("forget-vote", Planted::ForgetVote),
    ("vote-after-restart", Planted::VoteAfterRestart),
    ("read-when-deposed", Planted::ReadWhenDeposed),
    ("reuse-window", Planted::ReuseWindow),
    ("retry-unknown", Planted::RetryUnknown),
    ("apply-twice", Planted::ApplyTwice),
    ("snapshot-without-last", Planted::SnapshotWithoutLast),
    ("stale-router", Planted::StaleRouter),
    ("double-session", Planted::DoubleSession),
    ("lose-anchor-record", Planted::LoseAnchorRecord),
    ("skip-validation", Planted::SkipValidation),
    ("pass-intent", Planted::PassIntent),
    ("resolve-wrong-timestamp", Planted::ResolveWrongTimestamp),
    ("read-ahead-of-log", Planted::ReadAheadOfLog),
    ("learner-lease", Planted::LearnerLease),
    ("segment-without-name", Planted::SegmentWithoutName),
    ("engine-without-sync", Planted::EngineWithoutSync),
    ("forget-in-flight", Planted::ForgetInFlight),
    ("lease-when-given-away", Planted::LeaseWhenGivenAway),
    ("lead-without-vote", Planted::LeadWithoutVote),
    ("peers-forgotten", Planted::PeersForgotten),
    ("moving-forgotten", Planted::MovingForgotten),
    ("starting-is-fresh", Planted::StartingIsFresh),
    ("moved-unsaid", Planted::MovedUnsaid),
    ("log-overlooked", Planted::LogOverlooked),
    ("older-copy-unnoticed", Planted::OlderCopyUnnoticed),
    ("lease-of-own", Planted::LeaseOfOwn),
    ("stand-when-down", Planted::StandWhenDown),
];

#[cfg(debug_assertions)]
static CHOSEN: AtomicU8 = AtomicU8::new(0);

/// Plants this one, instead of any other.
#[cfg(debug_assertions)]
pub fn plant(fault: Planted) {
    CHOSEN.store(fault as u8, Ordering::Relaxed);
}

/// Plants the one of that name; false if there is none, or this is a release build.
pub fn plant_named(name: &str) -> bool {
    #[cfg(debug_assertions)]
    if let Some((_, fault)) = PLANTED.iter().find(|(known, _)| *known == name) {
        plant(*fault);
        return true;
    }
    let _ = name;
    false
}

/// Whether this one is planted.
#[cfg(debug_assertions)]
pub fn is_planted(fault: Planted) -> bool {
    CHOSEN.load(Ordering::Relaxed) == fault as u8
}

/// Nothing is planted in a release build.
#[cfg(not(debug_assertions))]
pub const fn is_planted(_: Planted) -> bool {
    false
}
