//! When a leader may answer from its own state.

use super::LEASE_MARGIN_PERCENT;
use super::types::RaftMetrics;
use crate::planted::{Planted, is_planted};
use openraft::{Instant as _, ServerState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The last term in which this node led a group and began to hand it over. Whoever is told of that votes for another at once,
/// whatever lease was granted; so there is none in this term any more, even if nobody takes over. Raft itself hears of its
/// successor later, and not at all while its log waits for room.
#[derive(Debug, Default)]
pub struct GivenAway(AtomicU64);

impl GivenAway {
    /// To be called before others are told.
    pub fn note(&self, term: u64) {
        self.0.fetch_max(term, Ordering::SeqCst);
    }

    fn is(&self, term: u64) -> bool {
        self.0.load(Ordering::SeqCst) == term && !is_planted(Planted::LeaseWhenGivenAway)
    }
}

/// Whether a leader with these metrics may answer from its own state now without asking anyone.
///
/// A quorum acknowledged a message that was sent less than a lease ago, and none of them votes for another
/// within that time; [`LEASE_MARGIN_PERCENT`] of it is given away for clocks that drift apart.
pub fn lease_valid(metrics: &RaftMetrics, lease: Duration, given_away: &GivenAway) -> bool {
    heard_within(metrics, lease) && !given_away.is(metrics.current_term)
}

/// Whether a leader with these metrics has heard from a quorum that long ago at most.
pub fn heard_within(metrics: &RaftMetrics, lease: Duration) -> bool {
    if metrics.state != ServerState::Leader {
        return false;
    }
    let (mut voters, mut votes) = (0, false);
    for id in metrics.membership_config.voter_ids() {
        voters += 1;
        votes |= id == metrics.id;
    }
    // A leader that votes no more is on its way out, and its followers need not wait for its lease.
    if !votes && !is_planted(Planted::LearnerLease) {
        return false;
    }
    if voters == 1 {
        return true;
    }
    let usable = lease * (100 - LEASE_MARGIN_PERCENT) / 100;
    metrics.last_quorum_acked.is_some_and(|acked| acked.into_inner().elapsed() < usable)
}
