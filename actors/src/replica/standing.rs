//! When a replica stands for election after its leader was lost. Decides; [`group`](super::group) carries it out.

use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::NodeId;
use trandb_runtime::planted::{Planted, is_planted};

/// How long after the lease that it granted has run out a replica first stands for election: Raft counts the lease from a
/// moment after the group's actor heard of the leader.
const ELECT_AFTER: Duration = Duration::from_millis(10);

/// How often it tries again at first: another voter may have heard the leader once more, at most a heartbeat later.
/// Each attempt begins the voting anew, so they must not follow each other faster than a vote takes.
const ELECT: Duration = Duration::from_millis(50);

/// How long later attempts are given before the next one; doubled each time, since whatever made them slow may last.
const ELECT_AGAIN: Duration = Duration::from_millis(150);

/// See [`ELECT_AGAIN`].
const ELECT_AGAIN_MAX: Duration = Duration::from_millis(1200);

/// How much longer each further replica waits, so that they do not split the vote.
const STAGGER: Duration = Duration::from_millis(60);

/// What is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Somebody leads again.
    Over,
    /// It is not time yet.
    Wait,
    /// Stand for election now, and look again after so long.
    Stand(Duration),
}

/// Attempts to become the next leader, until there is one.
#[derive(Debug)]
pub(super) struct Standing {
    /// Who was lost.
    leader: NodeId,
    /// When it was lost.
    since: Instant,
    /// When the lease that this replica granted it has ended.
    free: Instant,
    /// The next attempt.
    at: Instant,
    /// Between that and the one after it.
    again: Duration,
}

impl Standing {
    /// After `leader`, last heard at `heard`, was lost now. `rank`: the replica's place among those that stand.
    pub(super) fn after(leader: NodeId, heard: Instant, lease: Duration, rank: u32, now: Instant) -> Self {
        let free = heard + lease;
        let at = free.max(now) + ELECT_AFTER + STAGGER * rank;
        Self { leader, since: now, free, at, again: ELECT_AGAIN }
    }

    /// When the next attempt is.
    pub(super) fn at(&self) -> Instant {
        self.at
    }

    /// Whether the lost leader's link may be taken for the leader: where its end is not looked at (`stand-when-down`).
    pub(super) fn takes_for_back(
        &self,
        lease: Duration,
        now: Instant,
        is_up: impl Fn(NodeId) -> bool,
    ) -> bool {
        is_planted(Planted::StandWhenDown) && now > self.free + lease && is_up(self.leader)
    }

    /// A voter can be reached again. Attempts that it was needed for are not left to chance, since a link that breaks often may
    /// be there between them only; but if it leads, it is to be heard first.
    pub(super) fn reaches_another(&mut self, heartbeat: Duration, now: Instant) {
        self.at = self.at.min(self.free.max(now) + heartbeat + ELECT_AFTER);
        self.again = ELECT_AGAIN;
    }

    /// What to do now. `leads`: who leads the group, as this replica knows; `heard`: when it last heard a leader. That the link is
    /// back ends nothing: at its other end may be a process that was started again, and leads no more. A leader that still is one is
    /// heard, and renews its leases, so that attempts have no effect.
    pub(super) fn step(
        &mut self,
        leads: Option<NodeId>,
        heard: Instant,
        heartbeat: Duration,
        now: Instant,
    ) -> Step {
        if leads.is_some_and(|leads| leads != self.leader) || heard > self.since {
            return Step::Over;
        }
        if now < self.at {
            return Step::Wait;
        }
        let wait = if now < self.free + heartbeat {
            ELECT
        } else {
            let wait = self.again;
            self.again = (self.again * 2).min(ELECT_AGAIN_MAX);
            wait
        };
        self.at = now + wait;
        Step::Stand(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEADER: NodeId = NodeId(1);
    const HEARTBEAT: Duration = Duration::from_millis(100);
    const LEASE: Duration = Duration::from_millis(400);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A leader that was heard at the beginning and lost 50 ms later, and the beginning.
    fn lost(rank: u32) -> (Standing, Instant) {
        let start = Instant::now();
        (Standing::after(LEADER, start, LEASE, rank, start + ms(50)), start)
    }

    /// When it stands within so long, looking each millisecond, while nothing is heard.
    fn attempts(standing: &mut Standing, start: Instant, within: Duration) -> Vec<u64> {
        let within = within.as_millis() as u64;
        (0..within)
            .filter(|&at| {
                let step = standing.step(Some(LEADER), start, HEARTBEAT, start + ms(at));
                matches!(step, Step::Stand(_))
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn it_stands_when_the_lease_is_over_and_ever_more_seldom() {
        let (mut standing, start) = lost(0);
        assert_eq!(attempts(&mut standing, start, ms(5_000)), [410, 460, 510, 660, 960, 1_560, 2_760, 3_960]);
        let (mut standing, start) = lost(2);
        assert_eq!(attempts(&mut standing, start, ms(600)), [530], "others are before it");
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_another_leader_or_when_the_old_one_is_heard() {
        let (mut standing, start) = lost(0);
        let now = start + ms(1_000);
        assert_eq!(standing.step(Some(NodeId(2)), start, HEARTBEAT, now), Step::Over);
        assert_eq!(standing.step(Some(LEADER), start + ms(60), HEARTBEAT, now), Step::Over);
        let stands = standing.step(Some(LEADER), start + ms(40), HEARTBEAT, now);
        assert_eq!(stands, Step::Stand(ELECT_AGAIN), "it was heard before it was lost");
        assert_eq!(standing.step(None, start, HEARTBEAT, now), Step::Wait);
    }

    /// Links that break as often as attempts are made would else be there between them only.
    #[tokio::test(start_paused = true)]
    async fn it_stands_soon_after_a_voter_is_reached_again() {
        let (mut standing, start) = lost(0);
        attempts(&mut standing, start, ms(3_000));
        standing.reaches_another(HEARTBEAT, start + ms(3_000));
        assert_eq!(standing.at(), start + ms(3_110), "a heartbeat later, should it lead");
        let (mut standing, start) = lost(0);
        standing.reaches_another(HEARTBEAT, start + ms(60));
        assert_eq!(standing.at(), start + ms(410), "no later than it would");
    }
}
