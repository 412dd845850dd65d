//! Changes of a group's membership, and of its leader on purpose: asked for one at a time, answered when they are done.

use super::group::{Group, Machine};
use crate::context::NodeContext;
use crate::partition::{LocalPartition, PartitionMessage};
use ractor::RpcReplyPort;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::placement::is_overtaken;
use trandb_cluster::{Epoch, NodeId, PartitionId};
use trandb_runtime::planted::{Planted, is_planted};
use trandb_runtime::raft::{ChangeMembers, GivenAway, Raft, WatchReceiver, unfinished};

/// How long a new member may take to catch up before a membership change is given up (and tried again).
const CATCH_UP_MAX: Duration = Duration::from_secs(60);

/// How long a leadership transfer may take before the leader goes on.
const TRANSFER_MAX: Duration = Duration::from_millis(800);

/// Entries that a new member may be behind when it becomes a voter, and a voter when it becomes the leader.
const CATCH_UP_ENTRIES: u64 = 256;

impl Group {
    /// Makes the group's members these, as the map of that epoch wants.
    pub(super) fn reconfigure(
        &self,
        map: Epoch,
        voters: Vec<NodeId>,
        learners: Vec<NodeId>,
        reply: RpcReplyPort<Result<(), String>>,
    ) {
        let Ok(turn) = self.reconfiguring.clone().try_acquire_owned() else {
            let _ = reply.send(Err("a membership change is under way".into()));
            return;
        };
        let leader = self.leader();
        tokio::spawn(async move {
            let _turn = turn;
            let result = leader.reconfigure(map, &voters, &learners).await;
            let id = leader.id;
            match &result {
                Ok(()) => tracing::info!(partition = %id, ?voters, ?learners, "membership changed"),
                Err(why) => tracing::info!(partition = %id, ?voters, why, "membership not changed yet"),
            }
            let _ = reply.send(result);
        });
    }

    /// Ends a change of members that an earlier leader began. Until then most of the old voters are needed as well as most of
    /// the new ones: of two that become three, both.
    pub(super) fn finish_change(&self) {
        let Some(voters) = unfinished(&self.raft.metrics().borrow_watched().membership_config) else {
            return;
        };
        let Ok(turn) = self.reconfiguring.clone().try_acquire_owned() else { return };
        let leader = self.leader();
        tokio::spawn(async move {
            let _turn = turn;
            let id = leader.id;
            match leader.replace_voters(voters, false).await {
                Ok(()) => tracing::info!(partition = %id, "an unfinished membership change was ended"),
                // It may not be committed yet.
                Err(error) => tracing::debug!(partition = %id, error, "a membership change stays unfinished"),
            }
        });
    }

    /// Has one of these voters lead instead of this node, which has no vote and so no lease. It is elected if it knows that
    /// it is to vote no more, but not that this is committed.
    pub(super) fn lead_no_more(&self, voters: &[NodeId]) {
        let Ok(turn) = self.reconfiguring.clone().try_acquire_owned() else { return };
        let (leader, heirs) = (self.leader(), voters.iter().map(|node| node.0).collect());
        tokio::spawn(async move {
            let _turn = turn;
            let id = leader.id;
            let outcome = leader.hand_over(heirs).await;
            tracing::info!(partition = %id, outcome, "this node leads without a vote");
        });
    }

    /// Makes another node lead.
    pub(super) fn transfer(&self, to: NodeId, reply: RpcReplyPort<Result<(), String>>) {
        let leader = self.leader();
        tokio::spawn(async move {
            let _ = reply.send(leader.transfer(to).await);
        });
    }

    fn leader(&self) -> Leader {
        Leader {
            raft: self.raft.clone(),
            context: self.context.clone(),
            machine: self.machine.clone(),
            id: self.id,
        }
    }
}

/// What changes need of a group, beside its actor.
struct Leader {
    raft: Raft,
    context: Arc<NodeContext>,
    machine: Machine,
    id: PartitionId,
}

impl Leader {
    async fn reconfigure(&self, map: Epoch, voters: &[NodeId], learners: &[NodeId]) -> Result<(), String> {
        let raft = &self.raft;
        let known: BTreeSet<u64> = {
            let metrics = raft.metrics();
            metrics.borrow_watched().membership_config.nodes().map(|(id, ())| *id).collect()
        };
        for node in voters.iter().chain(learners).filter(|node| !known.contains(&node.0)) {
            raft.add_learner(node.0, (), false).await.map_err(|error| error.to_string())?;
        }
        let wanted: BTreeSet<u64> = voters.iter().map(|node| node.0).collect();
        self.wait_for_new_voters(map, voters).await?;
        let now = self.voters();
        if now != wanted {
            let some_stay = learners.iter().any(|node| now.contains(&node.0));
            self.replace_voters(wanted.clone(), some_stay).await?;
        }
        let strays: BTreeSet<u64> = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            let nodes = metrics.membership_config.nodes().map(|(id, ())| *id);
            nodes.filter(|id| !wanted.contains(id) && !learners.contains(&NodeId(*id))).collect()
        };
        if !strays.is_empty() {
            let remove = ChangeMembers::RemoveNodes(strays);
            raft.change_membership(remove, false).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn given_away(&self) -> &GivenAway {
        match &self.machine {
            Machine::Data(replica) => &replica.given_away,
            Machine::System(_) => &self.context.system_given_away,
        }
    }

    fn voters(&self) -> BTreeSet<u64> {
        let metrics = self.raft.metrics();
        metrics.borrow_watched().membership_config.voter_ids().collect()
    }

    /// Until they are hardly behind, and have all that there is now. With less, the log of one that stops as soon as it votes
    /// may be without what it finds its peers by, while these cannot commit anything without it. Given up once there is a
    /// later map than the one that wants them, and it wants others.
    async fn wait_for_new_voters(&self, map: Epoch, wanted: &[NodeId]) -> Result<(), String> {
        let deadline = Instant::now() + CATCH_UP_MAX;
        let wanted: BTreeSet<NodeId> = wanted.iter().copied().collect();
        let there = self.raft.metrics().borrow_watched().last_log_index;
        loop {
            let behind = {
                let metrics = self.raft.metrics();
                let metrics = metrics.borrow_watched();
                let Some(replication) = &metrics.replication else {
                    return Err("not the leader any more".into());
                };
                let last = metrics.last_log_index.unwrap_or(0);
                let now: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
                wanted.iter().map(|node| node.0).find(|id| {
                    let matched = replication.get(id).copied().flatten().map(|id| id.index);
                    let behind = matched < there || matched.unwrap_or(0) + CATCH_UP_ENTRIES < last;
                    *id != metrics.id && !now.contains(id) && behind
                })
            };
            match behind {
                None => return Ok(()),
                Some(id) if Instant::now() > deadline => {
                    return Err(format!("{} did not catch up within {CATCH_UP_MAX:?}", NodeId(id)));
                }
                // Who is not wanted any more may have gone.
                Some(id) if self.is_overtaken(map, &wanted) => {
                    return Err(format!("{} is waited for no longer, the map has moved on", NodeId(id)));
                }
                Some(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Whether the map that is known here is a later one than the one asked with, and does not want these voters. The system group's
    /// are in no map.
    fn is_overtaken(&self, map: Epoch, wanted: &BTreeSet<NodeId>) -> bool {
        let system = self.context.system();
        let info = system.partitions.get(&self.id);
        info.is_some_and(|info| is_overtaken(wanted, map, &info.replicas, system.epoch))
    }

    /// Changes the voters; those that are none any more follow on if they `stay`. One that will not vote does not lead any more
    /// when that begins: whoever leads without a vote has no lease.
    async fn replace_voters(&self, voters: BTreeSet<u64>, stay: bool) -> Result<(), String> {
        // The fault was possible because this is not what was done.
        let demotes = is_planted(Planted::LearnerLease);
        let me = self.context.node.0;
        let mut next = voters.clone();
        if !voters.contains(&me) && !demotes {
            let heirs = &self.voters() & &voters;
            if !heirs.is_empty() {
                return Err(self.hand_over(heirs).await);
            }
            // First somebody has to be able to take over.
            next.insert(me);
        }
        let replace = ChangeMembers::ReplaceAllVoters(next.clone());
        let changed = self.raft.change_membership(replace, stay && !demotes).await;
        changed.map_err(|error| error.to_string())?;
        if next == voters { Ok(()) } else { Err("its leader votes along until it has handed over".into()) }
    }

    /// Has one of these voters lead; says who it is, or why it is none.
    async fn hand_over(&self, to: BTreeSet<u64>) -> String {
        let mut heirs: Vec<NodeId> = to.into_iter().map(NodeId).collect();
        heirs.sort_by_key(|&heir| behind(&self.raft, heir).unwrap_or(u64::MAX));
        let mut why = String::new();
        for heir in heirs {
            match self.transfer(heir).await {
                Ok(()) => return format!("{heir} leads now, and is to be asked"),
                Err(refusal) => why = refusal,
            }
        }
        why
    }

    /// Hands leadership over with nothing in flight, so that no operation is caught between two leaders.
    async fn transfer(&self, to: NodeId) -> Result<(), String> {
        let Self { raft, context, machine, id } = self;
        let me = context.node.0;
        if !raft.is_leader() {
            return Err("not the leader".into());
        }
        if let Machine::Data(_) = machine
            && crate::partition::is_wrong(context, *id, to, TRANSFER_MAX).await
        {
            return Err(format!("the replica on {to} is wrong and is being rebuilt"));
        }
        if let Some(behind) = behind(raft, to).filter(|&behind| behind > CATCH_UP_ENTRIES) {
            // The partition would stand still until it has them.
            return Err(format!("{to} is {behind} entries behind"));
        }
        pause(context, machine).await?;
        self.given_away().note(raft.metrics().borrow_watched().current_term);
        let result = async {
            raft.trigger().transfer_leader(to.0).await.map_err(|error| error.to_string())?;
            let metrics = raft.metrics();
            let deadline = Instant::now() + TRANSFER_MAX;
            loop {
                let (led_by, term) = {
                    let metrics = metrics.borrow_watched();
                    (metrics.current_leader, metrics.current_term)
                };
                // A replica whose log waits for room does not get to know it by itself; its successor tells.
                let is_told = context.routes.borrow().leads.get(id).is_some_and(|lead| lead.term > term);
                if is_told || led_by.is_some_and(|leader| leader != me) {
                    return Ok(());
                }
                if Instant::now() >= deadline {
                    return Err(format!("{to} did not take over within {TRANSFER_MAX:?}"));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        .await;
        resume(context, machine);
        result
    }
}

/// Entries of this leader's log that a follower is not known to have. None if nothing is known of it.
fn behind(raft: &Raft, follower: NodeId) -> Option<u64> {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let matched = metrics.replication.as_ref()?.get(&follower.0)?.as_ref().map_or(0, |id| id.index);
    Some(metrics.last_log_index.unwrap_or(0).saturating_sub(matched))
}

async fn pause(context: &NodeContext, machine: &Machine) -> Result<(), String> {
    match machine {
        Machine::Data(replica) => {
            let actor = replica.actor().ok_or("the partition is being rebuilt")?;
            let pause = |reply| PartitionMessage::Local(LocalPartition::Pause(reply));
            match actor.call(pause, Some(TRANSFER_MAX)).await {
                Ok(ractor::rpc::CallResult::Success(())) => Ok(()),
                _ => {
                    resume(context, machine);
                    Err("operations in flight did not end in time".into())
                }
            }
        }
        Machine::System(_) => {
            let pause = crate::oracle::OracleMessage::Local(crate::oracle::LocalOracle::Pause);
            context.oracle(pause).map_err(|error| error.message)
        }
    }
}

fn resume(context: &NodeContext, machine: &Machine) {
    match machine {
        Machine::Data(replica) => {
            if let Some(actor) = replica.actor() {
                // A partition that died meanwhile begins unpaused.
                let _ = actor.cast(PartitionMessage::Local(LocalPartition::Resume));
            }
        }
        Machine::System(_) => {
            let resume = crate::oracle::OracleMessage::Local(crate::oracle::LocalOracle::Resume);
            let _ = context.oracle(resume);
        }
    }
}
