//! A replica group's actor: this node's member of a partition's Raft group. Raft's calls come in here, and
//! whatever concerns the group rather than its keys: elections after a peer was lost and log truncation here, membership
//! and leadership transfer in [`membership`](super::membership), snapshots in [`receiving`](super::receiving).

use super::receiving::Receiving;
use super::standing::{Standing, Step};
use crate::alarms::About;
use crate::context::NodeContext;
use crate::partition::{DataApplier, LocalPartition, PartitionMessage, ReplicaState};
use crate::router::{Lead, RouterMessage};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::{NodeId, PartitionId};
use trandb_runtime::pace::pace;
use trandb_runtime::planted::{Planted, is_planted};
use trandb_runtime::raft::{
    Applier, GroupLog, LocalRaft, PeerNetwork, Raft, RaftMessage, Reverted, ServerState, StateMachine,
    WatchReceiver, members, raft_config, voters,
};
use trandb_runtime::rpc::Reply;

/// How often the group looks at itself when nothing happens; a change of leader or term is told at once.
const TICK: Duration = Duration::from_secs(1);

/// How often the router hears of an applied index that moved while nothing else changed.
const APPLIED_NEWS: Duration = Duration::from_millis(500);

/// The actor. See the module.
pub struct GroupActor;

/// What the actor is started with.
pub struct GroupArguments {
    /// The node.
    pub context: Arc<NodeContext>,
    /// Which group.
    pub id: PartitionId,
    /// Its log.
    pub log: GroupLog,
    /// Who owns its state.
    pub machine: Machine,
    /// The members to begin with, where the group is new and this node is one of them.
    pub founders: Option<Vec<NodeId>>,
}

/// Who owns a group's state.
#[derive(Clone)]
pub enum Machine {
    /// A partition's actor.
    Data(Arc<ReplicaState>),
    /// The system group's state.
    System(Arc<super::system::SystemMachine>),
}

impl Machine {
    fn applier(&self, node: NodeId) -> Arc<dyn Applier> {
        match self {
            Self::Data(replica) => Arc::new(DataApplier { replica: replica.clone(), node }),
            Self::System(machine) => machine.clone(),
        }
    }
}

/// What the actor owns.
pub struct Group {
    pub(super) context: Arc<NodeContext>,
    me: ActorRef<RaftMessage>,
    pub(super) id: PartitionId,
    pub(super) machine: Machine,
    pub(super) raft: Raft,
    pub(super) receiving: Option<Receiving>,
    /// After the leader was lost.
    standing: Option<Standing>,
    seen: Lead,
    /// The last term in which this node voted for itself.
    stood_in: u64,
    pub(super) reconfiguring: Arc<tokio::sync::Semaphore>,
    /// When the group's leader was last heard.
    heard: Instant,
    /// Until then this replica may have granted a lease that it has forgotten.
    votes_from: Instant,
    last_gauges: Instant,
    last_seen: Instant,
    /// Turns changes of Raft's server state into ticks.
    watcher: Option<tokio::task::JoinHandle<()>>,
}

impl Actor for GroupActor {
    type Msg = RaftMessage;
    type State = Group;
    type Arguments = GroupArguments;

    async fn pre_start(
        &self,
        me: ActorRef<RaftMessage>,
        arguments: GroupArguments,
    ) -> Result<Group, ActorProcessingErr> {
        let GroupArguments { context, id, log, machine, founders } = arguments;
        let timing = &context.config.raft;
        let config = raft_config(
            id,
            timing.heartbeat_ms,
            timing.election_min_ms,
            timing.election_max_ms,
            timing.kept_entries,
        );
        let pristine = log.is_pristine();
        let (heartbeats, snapshots) = (context.heartbeats.clone(), context.snapshots.clone());
        let reverted = tell_reverted(Arc::downgrade(&context), id);
        let network = PeerNetwork::new(context.hub.clone(), heartbeats, snapshots, id, reverted);
        let state = StateMachine::new(machine.applier(context.node));
        let raft = Raft::new(context.node.0, config, network, log, state).await?;
        // All groups of the node beat together: see `BeatsActor`.
        raft.runtime_config().heartbeat(false);
        let stood_in = if pristine { 0 } else { raft.metrics().borrow_watched().current_term };
        if let (Some(founders), true) = (&founders, pristine) {
            let members: BTreeMap<u64, ()> = founders.iter().map(|node| (node.0, ())).collect();
            // Whoever comes second finds the group initialised, with the same members.
            if let Err(error) = raft.initialize(members).await {
                tracing::debug!(partition = %id, %error, "the group is initialised already");
            }
        }
        // A replica that voted or followed before has forgotten which leases it granted, some of them with other settings.
        let votes_from = if pristine { context.started } else { Instant::now() + context.owed_lease };
        let group = Group {
            me,
            id,
            machine,
            raft,
            receiving: None,
            standing: None,
            seen: Lead::default(),
            stood_in,
            reconfiguring: Arc::new(tokio::sync::Semaphore::new(1)),
            heard: Instant::now(),
            votes_from,
            last_gauges: Instant::now(),
            last_seen: Instant::now(),
            watcher: None,
            context,
        };
        group.raft.runtime_config().elect(group.may_elect());
        Ok(group)
    }

    async fn post_start(
        &self,
        me: ActorRef<RaftMessage>,
        group: &mut Group,
    ) -> Result<(), ActorProcessingErr> {
        match &group.machine {
            Machine::Data(replica) => {
                replica.set_group(Some((me.clone(), group.raft.clone())));
                if let Some(actor) = replica.actor() {
                    let attach = LocalPartition::Attach(group.raft.clone());
                    actor.cast(PartitionMessage::Local(attach))?;
                }
            }
            Machine::System(_) => {
                group.context.system_raft.store(Arc::new(Some(group.raft.clone())));
                group.context.system_group.store(Arc::new(Some(me.clone())));
            }
        }
        group.context.hub.register(&format!("{}/raft", group.id), me.get_cell());
        me.send_interval(TICK, || RaftMessage::Local(LocalRaft::Tick));
        let mut changes = group.raft.server_metrics();
        group.watcher = Some(tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                if me.cast(RaftMessage::Local(LocalRaft::Tick)).is_err() {
                    return;
                }
            }
        }));
        Ok(())
    }

    async fn post_stop(
        &self,
        _me: ActorRef<RaftMessage>,
        group: &mut Group,
    ) -> Result<(), ActorProcessingErr> {
        group.context.hub.unregister(&format!("{}/raft", group.id));
        // Shutting down joins Raft's tasks; an error means that they have ended by themselves.
        let _ = group.raft.shutdown().await;
        Ok(())
    }

    async fn handle(
        &self,
        _me: ActorRef<RaftMessage>,
        message: RaftMessage,
        group: &mut Group,
    ) -> Result<(), ActorProcessingErr> {
        pace(group.context.node, "group").await;
        match message {
            RaftMessage::Append(call, reply) => {
                group.heard = Instant::now();
                let raft = group.raft.clone();
                tokio::spawn(async move {
                    reply.send(raft.append_entries(call.0).await.map_err(|error| error.to_string()));
                });
            }
            RaftMessage::Vote(call, reply) => group.vote(call, reply),
            RaftMessage::Transfer(_, reply) if group.is_suspect() => {
                reply.send(Err("this replica is wrong and is being rebuilt".into()));
            }
            RaftMessage::Transfer(call, reply) => {
                let raft = group.raft.clone();
                let request =
                    trandb_runtime::raft::TransferLeaderRequest::new(call.from, call.to, call.last_log_id);
                tokio::spawn(async move {
                    let result = raft.handle_transfer_leader(request).await;
                    reply.send(result.map_err(|error| error.to_string()));
                });
            }
            RaftMessage::Snapshot(part, reply) => group.receive(part, reply),
            RaftMessage::Local(local) => group.local(local).await?,
        }
        Ok(())
    }
}

impl Drop for Group {
    /// However it ended. Raft runs as long as anyone has a handle of it, and holds what applies its entries, which holds the
    /// replica: with a handle there they would hold each other for ever.
    fn drop(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            watcher.abort();
        }
        if let Machine::Data(replica) = &self.machine {
            replica.forget_group(&self.me);
        }
    }
}

/// Raises an alarm for a replica of a group that this node leads, as Raft does not go on with it and says nothing.
fn tell_reverted(context: Weak<NodeContext>, id: PartitionId) -> Reverted {
    Arc::new(move |node| {
        // Raft is among what the context holds.
        let Some(context) = context.upgrade() else { return };
        let text = format!(
            "{id}: the replica on {node} has lost entries that it had acknowledged, as where an older copy of a data directory is \
             put in its place: stop {node}, remove its directory and start it again, as a new member"
        );
        if context.alarms.raise(id, About::Replica(node), text) {
            tracing::error!(partition = %id, replica = %node, "a replica has lost entries that it had acknowledged");
        }
    })
}

impl Group {
    fn may_elect(&self) -> bool {
        Instant::now() >= self.votes_from || self.is_alone() || is_planted(Planted::VoteAfterRestart)
    }

    /// Whether its state was found wrong: it votes and follows, but is not to lead.
    fn is_suspect(&self) -> bool {
        matches!(&self.machine, Machine::Data(replica) if replica.is_suspect())
    }

    fn tick_after(&self, wait: Duration) {
        self.me.send_after(wait, || RaftMessage::Local(LocalRaft::Tick));
    }

    fn is_alone(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters = voters(&metrics.membership_config);
        voters.is_empty() || voters == [self.context.node]
    }

    fn vote(
        &self,
        call: trandb_runtime::raft::VoteCall,
        reply: Reply<Result<trandb_runtime::raft::VoteResponse<trandb_runtime::raft::TypeConfig>, String>>,
    ) {
        if !self.may_elect() {
            reply.send(Err("restarted less than a lease ago".into()));
            return;
        }
        let raft = self.raft.clone();
        tokio::spawn(async move {
            let result =
                if call.pre { raft.pre_vote(call.request).await } else { raft.vote(call.request).await };
            reply.send(result.map_err(|error| error.to_string()));
        });
    }

    async fn local(&mut self, message: LocalRaft) -> Result<(), ActorProcessingErr> {
        match message {
            LocalRaft::PeerLost(node) => self.peer_lost(node),
            LocalRaft::PeerFound(node) => self.peer_found(node),
            LocalRaft::Checkpointed => self.raft.trigger().snapshot().await?,
            LocalRaft::Reconfigure { map, voters, learners, reply } => {
                self.reconfigure(map, voters, learners, reply);
            }
            LocalRaft::TransferTo(node, reply) => self.transfer(node, reply),
            LocalRaft::Tick => self.tick().await?,
        }
        Ok(())
    }

    /// If the lost peer led this group, this replica stands for election as soon as the lease that it granted
    /// has run out; the replicas next in line wait a little longer.
    fn peer_lost(&mut self, node: NodeId) {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.current_leader != Some(node.0) {
            return;
        }
        let mut candidates = voters(&metrics.membership_config);
        candidates.retain(|&candidate| candidate != node);
        // Groups that lost the same leader begin at different replicas, so that their new leaders spread.
        if !candidates.is_empty() {
            let turn = self.id.0 as usize % candidates.len();
            candidates.rotate_left(turn);
        }
        if let Some(rank) = candidates.iter().position(|&candidate| candidate == self.context.node) {
            // The others come in only if the first in line did not succeed.
            let (lease, now) = (self.context.lease(), Instant::now());
            self.stand(Standing::after(node, self.heard, lease, rank as u32, now));
        }
    }

    /// If this replica stands for election, it tries soon, now that a voter can be reached.
    fn peer_found(&mut self, node: NodeId) {
        let votes = voters(&self.raft.metrics().borrow_watched().membership_config).contains(&node);
        if votes && let Some(mut standing) = self.standing.take() {
            if !is_planted(Planted::StandWhenDown) {
                standing.reaches_another(self.heartbeat(), Instant::now());
            }
            self.stand(standing);
        }
    }

    fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.context.config.raft.heartbeat_ms)
    }

    fn stand(&mut self, standing: Standing) {
        self.tick_after(standing.at().saturating_duration_since(Instant::now()));
        self.standing = Some(standing);
    }

    async fn tick(&mut self) -> Result<(), ActorProcessingErr> {
        let (lead, vote, state, running, last_log, voters) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let committed = members(&metrics.committed_membership_config);
            let lead = Lead {
                term: metrics.current_term,
                leader: metrics.current_leader.map(NodeId),
                applied: metrics.last_applied.map_or(0, |id| id.index),
                voters: committed.voters.into_iter().collect(),
                learners: committed.learners.into_iter().collect(),
            };
            let voters = voters(&metrics.membership_config);
            let last_log = metrics.last_log_index.unwrap_or(0);
            (lead, metrics.vote.leader_id, metrics.state, metrics.running_state.clone(), last_log, voters)
        };
        running.map_err(|error| format!("{}: Raft has stopped: {error}", self.id))?;
        let changed = (lead.leader, lead.term) != (self.seen.leader, self.seen.term);
        if changed {
            match lead.leader {
                Some(leader) => {
                    tracing::info!(partition = %self.id, term = lead.term, %leader, "leader seen");
                    self.context.gauges.leader_changed(self.id);
                }
                // Every election passes through here, and most find a leader at once.
                None => tracing::debug!(partition = %self.id, term = lead.term, "no leader"),
            }
        }
        // How far the leader has come is only for people to see: it may be a little old.
        let due = lead != self.seen && self.last_seen.elapsed() >= APPLIED_NEWS;
        let reshaped = (&lead.voters, &lead.learners) != (&self.seen.voters, &self.seen.learners);
        if changed || reshaped || due {
            self.last_seen = Instant::now();
            self.seen = lead.clone();
            self.context.tell_router(RouterMessage::Seen(self.id, lead.clone()));
        }
        if vote.voted_for == self.context.node.0 && vote.term > self.stood_in {
            self.stood_in = vote.term;
            self.context.gauges.election(self.id);
        }
        if self.last_gauges.elapsed() > Duration::from_secs(1) {
            self.last_gauges = Instant::now();
            self.forget_idle();
            if state == ServerState::Leader {
                self.finish_change();
            }
            let lag = last_log.saturating_sub(lead.applied);
            let leads = state == ServerState::Leader;
            self.context.gauges.raft(self.id, lead.term, leads, lead.applied, lag);
        }
        let votes = voters.contains(&self.context.node);
        // Who goes on with a lease is found only where it goes on.
        let goes_on = is_planted(Planted::LeadWithoutVote) || is_planted(Planted::LearnerLease);
        if state == ServerState::Leader && !votes && !goes_on {
            self.lead_no_more(&voters);
        }
        let may_stand = self.may_elect() && !self.is_suspect();
        self.raft.runtime_config().elect(may_stand);
        if !may_stand {
            return Ok(());
        }
        if voters == [self.context.node] && state != ServerState::Leader {
            self.raft.trigger().elect(false).await?;
        }
        self.stand_for_election(lead.leader, state).await?;
        Ok(())
    }

    /// After a leader was lost: tries to become the next one, until there is one.
    async fn stand_for_election(
        &mut self,
        leader: Option<NodeId>,
        state: ServerState,
    ) -> Result<(), ActorProcessingErr> {
        let heartbeat = self.heartbeat();
        let Some(standing) = &mut self.standing else { return Ok(()) };
        let (lease, now) = (self.context.lease(), Instant::now());
        let is_up = |node| self.context.hub.states().borrow().get(&node).is_some_and(|state| state.is_up());
        if state == ServerState::Leader || standing.takes_for_back(lease, now, is_up) {
            self.standing = None;
            return Ok(());
        }
        let wait = match standing.step(leader, self.heard, heartbeat, now) {
            Step::Over => {
                self.standing = None;
                return Ok(());
            }
            Step::Wait => return Ok(()),
            Step::Stand(wait) => wait,
        };
        self.tick_after(wait);
        if state == ServerState::Follower {
            self.raft.trigger().elect(true).await?;
        }
        Ok(())
    }
}
