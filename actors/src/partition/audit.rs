//! Divergence: replicas that do not hold the same, found while they serve.
//!
//! ```text
//! every replica, each tick:   walk the memory ──not what was written──▶ damaged: alarm, Doubt ──▶ its leader asks at once
//!
//! leader, every other tick:   ask all replicas for digest and soundness at one log index
//!                             └─▶ cluster::audit::judge ──wrong──▶ Suspect ──▶ the replica on that node
//!                                                                               │ alarm, serves nothing,
//!                                                                               ▼ leads no more
//!                                                             rebuild from a replica that is right
//! ```
//!
//! So a replica whose digest differs is found within two ticks and what the answers take, and one whose memory was damaged
//! within two walks. A walk takes a tick for up to 16,384 keys or 8 MiB, and longer for larger partitions: for a million keys
//! over 16 partitions four ticks. A partition that nobody writes to is asked about more rarely.
//!
//! A replica is suspect only where another one is right, so that no mistake of these checks stops a partition. Damage
//! without that is alarmed all the same.
//!
//! **Caveat:** until it is found, a damaged value is served by a leader as it is.

use super::message::{LocalPartition, PartitionMessage, SuspectCall};
use super::{Partition, TICK, rebuild};
use crate::alarms::About;
use crate::context::NodeContext;
use crate::database::Database;
use crate::partition::writes::Refusal;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::audit::{Fault, Report, Verdict, judge};
use trandb_cluster::partition::Checked;
use trandb_cluster::{NodeId, PartitionId};
use trandb_runtime::raft::{ServerState, WatchReceiver, voters};
use trandb_runtime::rpc::Reply;

/// Keys that one step of the walk looks at: about a millisecond, for which the partition does nothing else.
const CHECK_KEYS_PER_STEP: usize = 4096;

/// Bytes of values that it hashes: less than a millisecond.
const CHECK_BYTES_PER_STEP: usize = 2 << 20;

/// Steps of one tick, at the most: a walk that has come to its end rests until the next.
const STEPS_PER_TICK: u32 = 4;

/// Between two of them.
const STEP: Duration = Duration::from_millis(200);

const _: () = assert!(STEP.as_millis() * (STEPS_PER_TICK as u128) < TICK.as_millis());

/// Ticks from one round of questions to the next.
const TICKS_PER_ROUND: u32 = 2;

/// The same while nothing is written and all replicas agreed on what there is: idle nodes hardly talk.
const TICKS_PER_IDLE_ROUND: u32 = 6;

/// How long the replicas are given to come to the leader's log index and to answer.
const ROUND_MAX: Duration = Duration::from_millis(1500);

/// How long it may take to tell a replica something.
const TELL_MAX: Duration = Duration::from_secs(2);

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Audit {
    /// Ticks since the last round began.
    ticks: u32,
    /// Steps of the walk since the last tick.
    steps: u32,
    /// A round is under way.
    asking: bool,
    /// The log index at which all voters last agreed, if they did so in the last round.
    agreed: Option<u64>,
    /// The walk has found that the memory is not what was written.
    damaged: bool,
    pub(super) rebuild: rebuild::Rebuild,
}

impl Partition {
    /// Once per tick: walks on, and asks the replicas if this one leads and it is time.
    pub(super) fn audit(&mut self) {
        self.audit.steps = 0;
        self.walk();
        self.audit.ticks = self.audit.ticks.saturating_add(1);
        let idle = self.audit.agreed == Some(self.state.applied());
        let due = self.audit.ticks >= if idle { TICKS_PER_IDLE_ROUND } else { TICKS_PER_ROUND };
        match self.led_voters() {
            Some(voters) if due => self.ask_replicas(voters),
            Some(_) => {}
            None => {
                // Whoever leads now finds out by itself.
                self.context.alarms.end_all(self.id, |about| about != About::Own);
                self.audit.agreed = None;
                self.tell_leader();
            }
        }
    }

    /// Has the leader ask at once, if this replica is known to be wrong and nothing is done about it yet.
    fn tell_leader(&self) {
        let Some(leader) = self.context.leader(self.id).filter(|&leader| leader != self.context.node) else {
            return;
        };
        if !self.is_sound() && !self.audit.rebuild.is_under_way() {
            let me = self.context.node;
            let make = move |reply| PartitionMessage::Doubt(me, reply);
            tokio::spawn(tell(self.context.clone(), self.id, leader, make));
        }
    }

    /// A replica says that it is wrong.
    pub(super) fn doubted(&mut self, by: NodeId) {
        tracing::debug!(partition = %self.id, %by, "a replica asks to be looked at");
        if let Some(voters) = self.led_voters() {
            self.ask_replicas(voters);
        }
    }

    /// Whether nothing is known to be wrong with this replica.
    pub(super) fn is_sound(&self) -> bool {
        !self.audit.damaged && !self.replica.is_suspect()
    }

    /// One step of the walk.
    pub(super) fn walk(&mut self) {
        self.audit.steps += 1;
        let (found, kept) = match self.state.check_step(CHECK_KEYS_PER_STEP, CHECK_BYTES_PER_STEP) {
            Some(Checked::Sound) => return,
            Some(Checked::Damaged { found, kept }) => (found, kept),
            None if self.audit.steps < STEPS_PER_TICK => {
                self.me.send_after(STEP, || PartitionMessage::Local(LocalPartition::Walk));
                return;
            }
            None => return,
        };
        if std::mem::replace(&mut self.audit.damaged, true) {
            return;
        }
        tracing::error!(partition = %self.id, %found, %kept, applied = self.state.applied(),
            "a replica's memory is not what was written");
        self.raise_own(Fault::Damaged);
        // As a leader it asks the others at once.
        self.audit.ticks = TICKS_PER_IDLE_ROUND;
    }

    /// The voters, if Raft has this replica lead: also one that may not serve finds out who is right.
    fn led_voters(&self) -> Option<Vec<NodeId>> {
        let metrics = self.raft.as_ref()?.metrics();
        let metrics = metrics.borrow_watched();
        (metrics.state == ServerState::Leader).then(|| voters(&metrics.membership_config))
    }

    /// Begins a round, unless one is under way.
    fn ask_replicas(&mut self, voters: Vec<NodeId>) {
        if self.audit.asking {
            return;
        }
        let index = self.state.applied();
        self.audit.ticks = 0;
        self.audit.asking = true;
        let (context, id, me) = (self.context.clone(), self.id, self.me.clone());
        tokio::spawn(async move {
            let deadline = Instant::now() + ROUND_MAX;
            let database = Database::new(context);
            let reports = database.reports(id, &voters, index, deadline).await;
            // A leader that died meanwhile begins anew when it leads again.
            let _ = me.cast(PartitionMessage::Local(LocalPartition::Reported { index, voters, reports }));
        });
    }

    /// A round has ended: what the replicas say is judged, and those that are wrong are told.
    pub(super) fn reported(&mut self, index: u64, voters: &[NodeId], reports: &[Report]) {
        self.audit.asking = false;
        if self.led_voters().is_none() {
            return;
        }
        self.audit.agreed = None;
        let (wrong, lenders) = match judge(voters, index, reports) {
            Verdict::Agree => {
                self.audit.agreed = (reports.len() == voters.len()).then_some(index);
                Default::default()
            }
            Verdict::Wrong { replicas, lenders } => (replicas, lenders),
            Verdict::Undecided { digests } => return self.undecided(index, &digests),
        };
        let is_wrong = |node: NodeId| wrong.iter().any(|&(other, _)| other == node);
        self.context.alarms.end_all(self.id, |about| match about {
            About::Own => false,
            About::Replica(node) => {
                !voters.contains(&node) || !is_wrong(node) && reports.iter().any(|report| report.node == node)
            }
            About::All => true,
        });
        if !wrong.is_empty() {
            // Until all is well it is looked at each tick.
            self.audit.ticks = TICKS_PER_ROUND;
        }
        for (node, fault) in wrong {
            let text = format!("{}: the replica on {node} is wrong at index {index}: {fault}", self.id);
            if self.context.alarms.raise(self.id, About::Replica(node), text) {
                tracing::error!(partition = %self.id, replica = %node, index, %fault, ?lenders, "a replica is wrong");
                self.context.gauges.divergence_found(self.id, node);
            }
            let call = SuspectCall { index, fault, lenders: lenders.clone() };
            if node == self.context.node {
                self.suspect(call);
            } else {
                let make = |reply| PartitionMessage::Suspect(call, reply);
                tokio::spawn(tell(self.context.clone(), self.id, node, make));
            }
        }
    }

    fn undecided(&mut self, index: u64, digests: &[(NodeId, trandb_cluster::digest::Digest)]) {
        self.audit.ticks = TICKS_PER_ROUND;
        let text = format!("{}: replicas are wrong at index {index}, and none is known to be right", self.id);
        if self.context.alarms.raise(self.id, About::All, text) {
            tracing::error!(partition = %self.id, index, ?digests, "replicas are wrong, and none is known to be right");
        }
    }

    /// This replica was found wrong: from now on it serves nothing, and it is rebuilt. Said again, it tries again if the
    /// last attempt failed.
    pub(super) fn suspect(&mut self, call: SuspectCall) {
        let SuspectCall { index, fault, lenders } = call;
        if !self.audit.rebuild.may_begin(index) {
            return;
        }
        if !self.replica.set_suspect(true) {
            tracing::error!(partition = %self.id, index, %fault, ?lenders, "this replica is wrong and is rebuilt");
            self.raise_own(fault);
            let refusal = Refusal::NotLeader(None);
            self.writes.refuse_queued(&refusal);
            for read in self.reads.take_unconfirmed() {
                read.refuse(&refusal);
            }
        }
        self.rebuild(lenders);
    }

    fn raise_own(&self, fault: Fault) {
        let text = format!("{}: the replica on {} is wrong: {fault}", self.id, self.context.node);
        self.context.alarms.raise(self.id, About::Own, text);
        self.context.gauges.wrong(self.id, true);
    }

    /// The state is another one now, which is right.
    pub(super) fn is_right_again(&mut self) {
        self.audit.damaged = false;
        self.replica.set_suspect(false);
    }

    /// What is right is durable, too.
    pub(super) fn end_own_alarm(&self) {
        self.context.alarms.end(self.id, About::Own);
        self.context.gauges.wrong(self.id, false);
    }
}

/// Tells a replica elsewhere. What it does not hear is said again: it goes on being wrong.
async fn tell(
    context: Arc<NodeContext>,
    id: PartitionId,
    node: NodeId,
    make: impl FnOnce(Reply<()>) -> PartitionMessage,
) {
    if let Err(error) = context.hub.call(node, &id.to_string(), TELL_MAX, 256, make).await {
        tracing::warn!(partition = %id, replica = %node, %error, "a replica could not be told what is wrong");
    }
}

/// Whether the replica of a partition on a node says that it is wrong.
pub(crate) async fn is_wrong(context: &NodeContext, id: PartitionId, node: NodeId, within: Duration) -> bool {
    let ask = super::DigestCall { at: None };
    let make = |reply| PartitionMessage::Digest(ask, reply);
    let answer: Result<super::DigestReply, _> =
        context.hub.call(node, &id.to_string(), within, 64, make).await;
    answer.is_ok_and(|answer| !answer.sound)
}

/// What an actor that has loaded its state anew leaves behind of its predecessor's troubles.
pub(super) fn loaded(context: &NodeContext, id: PartitionId, replica: &super::ReplicaState) {
    replica.set_suspect(false);
    context.alarms.end_all(id, |_| true);
    context.gauges.wrong(id, false);
}
