//! Whether this replica leads, and whether anybody still follows.

use super::Partition;
use super::writes::Refusal;
use std::time::Duration;
use trandb_cluster::{Error, NodeId};
use trandb_runtime::planted::{Planted, is_planted};
use trandb_runtime::raft::{Raft, ServerState, WatchReceiver, heard_within, lease_valid};

/// Leases without a word from a quorum after which a leader refuses writes: one is what the others wait before
/// they elect anew, and another allows for a slow disk or network that still answers.
const CUT_OFF_LEASES: u32 = 2;

impl Partition {
    /// Whether anything may be proposed here.
    pub(super) fn takes_proposals(&self) -> Result<(), Refusal> {
        if !self.writes.paused
            && let Err(leader) = self.leads()
        {
            return Err(Refusal::NotLeader(leader));
        }
        if self.is_cut_off() {
            return Err(self.cut_off());
        }
        // Proposed all the same, it would wait for room and end as unknown.
        self.context.no_room().map_or(Ok(()), |why| Err(Refusal::CutOff(why)))
    }

    /// Whether this replica leads, has applied an entry of its own term and was not found wrong; else who leads.
    pub(super) fn leads(&self) -> Result<(), Option<NodeId>> {
        let Some(raft) = &self.raft else { return Err(None) };
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            let leader = metrics.current_leader.filter(|&leader| leader != metrics.id);
            return Err(leader.map(NodeId));
        }
        if self.applied.is_none_or(|applied| applied.leader_id.term != metrics.current_term) {
            return Err(None);
        }
        // About to hand over to one that is right, or soon ready.
        if self.replica.is_suspect() || self.has_orphans() { Err(None) } else { Ok(()) }
    }

    /// Whether an actor before this one has left proposals in flight. Their timestamps may be below those of snapshots that are
    /// to be read here, and this one does not hear of their end.
    fn has_orphans(&self) -> bool {
        self.orphans.any() && !is_planted(Planted::ForgetInFlight)
    }

    pub(super) fn lease_valid(&self) -> bool {
        self.raft.as_ref().is_some_and(|raft| {
            let metrics = raft.metrics();
            lease_valid(&metrics.borrow_watched(), self.context.granted_lease(), &self.replica.given_away)
        })
    }

    pub(super) fn is_cut_off(&self) -> bool {
        self.raft.as_ref().is_some_and(|raft| is_cut_off(raft, self.lease))
    }

    pub(super) fn cut_off(&self) -> Refusal {
        let silent = self.lease * CUT_OFF_LEASES;
        let why = format!("{} has heard from no majority of its replicas for {silent:?}", self.id);
        Refusal::CutOff(Error::unavailable(why))
    }

    /// Refuses what is surely not done and would otherwise wait until the others are back, or there is room.
    pub(super) fn refuse_cut_off(&mut self) {
        if let Some(why) = self.context.no_room() {
            self.writes.refuse_unstamped(&Refusal::CutOff(why));
        }
        if !self.is_cut_off() {
            return;
        }
        let refusal = self.cut_off();
        self.writes.refuse_unstamped(&refusal);
        for read in self.reads.take_unconfirmed() {
            read.refuse(&refusal);
        }
    }
}

/// Whether this replica leads but has heard from no quorum for so long that the others may have another
/// leader. Raft does not step down by itself, and a write proposed now would end as unknown at best; refused
/// before it is proposed, it is surely not done.
pub(crate) fn is_cut_off(raft: &Raft, lease: Duration) -> bool {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    metrics.state == ServerState::Leader && !heard_within(&metrics, lease * CUT_OFF_LEASES)
}
