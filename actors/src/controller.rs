//! The controller: on the system leader it keeps placement as it should be. It looks at the cluster at
//! intervals and asks for what differs; everything it asks for may fail and is asked for again.
//!
//! 1. The map follows the members: each partition has as many replicas as asked for and there are nodes.
//! 2. Groups follow the map: their leaders are told the members that they should have.
//! 3. Leaders are spread evenly over the nodes that are up.

use crate::context::NodeContext;
use crate::control::{CONTROL_DEADLINE, ControlCall, ControlMessage, propose};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use trandb_cluster::limits::REPLICATION_MAX;
use trandb_cluster::placement::{Members, place, rebalance_leaders, shape_system, should_reshape};
use trandb_cluster::system::{SystemCommand, SystemState};
use trandb_cluster::{Epoch, NodeId, PartitionId};
use trandb_runtime::raft::{WatchReceiver, members};

/// How often the controller looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long the cluster must have been calm before leaders are moved: a node that has just come back is
/// still catching up, and moving leaders twice helps nobody.
const CALM: Duration = Duration::from_millis(1500);

/// Membership changes of partitions under way at once: each may stream a whole replica.
const RECONFIGURE_MAX: usize = 4;

/// What the controller is sent.
#[derive(Debug)]
pub enum ControllerMessage {
    /// Look.
    Tick,
    /// A group's change has ended.
    Ended(PartitionId),
    /// A map was taken or refused.
    Placed,
}

impl ractor::Message for ControllerMessage {}

/// The actor. See the module.
pub struct ControllerActor;

/// What the actor owns.
pub struct Controller {
    context: Arc<NodeContext>,
    me: ActorRef<ControllerMessage>,
    /// Groups that something was asked of and that have not answered.
    busy: BTreeSet<PartitionId>,
    /// Whether a map is proposed and not answered.
    placing: bool,
    turns: Arc<Semaphore>,
    /// The nodes that were up when last looked, and since when it has been these.
    up: BTreeSet<NodeId>,
    calm_since: Instant,
}

impl Actor for ControllerActor {
    type Msg = ControllerMessage;
    type State = Controller;
    type Arguments = Arc<NodeContext>;

    async fn pre_start(
        &self,
        me: ActorRef<ControllerMessage>,
        context: Arc<NodeContext>,
    ) -> Result<Controller, ActorProcessingErr> {
        me.send_interval(INTERVAL, || ControllerMessage::Tick);
        Ok(Controller {
            context,
            me,
            busy: BTreeSet::new(),
            placing: false,
            turns: Arc::new(Semaphore::new(RECONFIGURE_MAX)),
            up: BTreeSet::new(),
            calm_since: Instant::now(),
        })
    }

    async fn handle(
        &self,
        _me: ActorRef<ControllerMessage>,
        message: ControllerMessage,
        controller: &mut Controller,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ControllerMessage::Tick => controller.look(),
            ControllerMessage::Ended(group) => {
                controller.busy.remove(&group);
            }
            ControllerMessage::Placed => controller.placing = false,
        }
        Ok(())
    }
}

impl Controller {
    fn look(&mut self) {
        let up = self.nodes_up();
        if up != self.up {
            self.up = up;
            self.calm_since = Instant::now();
        }
        if self.context.leader(PartitionId::SYSTEM) != Some(self.context.node) {
            return;
        }
        let state = self.context.system();
        if state.cluster_id.is_none() {
            return;
        }
        self.place(&state);
        self.reconfigure(&state);
        if self.calm_since.elapsed() >= CALM {
            self.spread(&state);
        }
    }

    fn nodes_up(&self) -> BTreeSet<NodeId> {
        let states = self.context.hub.states();
        let states = states.borrow();
        let mut up: BTreeSet<NodeId> =
            states.iter().filter(|(_, state)| state.is_up()).map(|(&node, _)| node).collect();
        up.insert(self.context.node);
        let routes = self.context.routes.borrow().clone();
        up.retain(|node| !routes.stopping.contains(node));
        if !self.context.may_lead() {
            up.remove(&self.context.node);
        }
        up
    }

    /// Proposes a map that fits the members, founders that have not reported in yet among them: they were counted on
    /// when the cluster was founded.
    fn place(&mut self, state: &SystemState) {
        let members: Vec<NodeId> = state.members().map(|(node, _)| node).collect();
        let replication = (state.replication as usize).min(REPLICATION_MAX);
        let wanted = place(&members, state.partitions.len() as u32, replication);
        let changes: BTreeMap<PartitionId, Vec<NodeId>> = wanted
            .into_iter()
            .filter(|(id, replicas)| {
                let has = |info: &trandb_cluster::system::PartitionInfo| {
                    info.replicas.iter().collect::<BTreeSet<_>>() == replicas.iter().collect()
                };
                !state.partitions.get(id).is_some_and(has)
            })
            .collect();
        if changes.is_empty() || std::mem::replace(&mut self.placing, true) {
            return;
        }
        let command = SystemCommand::Place { epoch: state.epoch, replicas: changes };
        let (context, me) = (self.context.clone(), self.me.clone());
        tokio::spawn(async move {
            match propose(&context, command).await {
                Ok(_) => tracing::info!("the partition map follows the members"),
                Err(why) => tracing::debug!(why, "placement was not changed"),
            }
            let _ = me.cast(ControllerMessage::Placed);
        });
    }

    /// Tells group leaders the members that they should have.
    fn reconfigure(&mut self, state: &SystemState) {
        let Some(raft) = self.context.system_raft() else { return };
        let system = members(&raft.metrics().borrow_watched().membership_config);
        let nodes: Vec<NodeId> = state.members().map(|(node, _)| node).collect();
        if let Some(next) = shape_system(&system, &nodes, &self.up) {
            self.ask_for(PartitionId::SYSTEM, self.context.node, state.epoch, next, None);
        }
        let routes = self.context.routes.borrow().clone();
        for (&id, info) in &state.partitions {
            let Some(lead) = routes.leads.get(&id) else { continue };
            let Some(leader) = lead.leader else { continue };
            let are = Members {
                voters: lead.voters.iter().copied().collect(),
                learners: lead.learners.iter().copied().collect(),
            };
            let wanted: BTreeSet<NodeId> = info.replicas.iter().copied().collect();
            if self.busy.contains(&id) || !should_reshape(&are, &wanted, &system, &self.up) {
                continue;
            }
            let Ok(turn) = self.turns.clone().try_acquire_owned() else { return };
            let next = Members { voters: wanted, ..Members::default() };
            self.ask_for(id, leader, state.epoch, next, Some(turn));
        }
    }

    fn ask_for(
        &mut self,
        group: PartitionId,
        leader: NodeId,
        map: Epoch,
        next: Members,
        turn: Option<tokio::sync::OwnedSemaphorePermit>,
    ) {
        let (voters, learners) = (next.voters.into_iter().collect(), next.learners.into_iter().collect());
        self.ask(group, leader, ControlCall::Reconfigure { group, map, voters, learners }, turn);
    }

    /// Moves leaders until every node leads about as many groups as any other.
    fn spread(&mut self, state: &SystemState) {
        if self.busy.iter().any(|group| !group.is_system()) {
            return;
        }
        let routes = self.context.routes.borrow().clone();
        let mut leaders = BTreeMap::new();
        for &id in state.partitions.keys() {
            // While a group has no leader, or is being changed, nobody is moved.
            let Some(leader) = routes.leader(id) else { return };
            leaders.insert(id, leader);
        }
        let mut replicas: BTreeMap<_, _> =
            state.partitions.iter().map(|(&id, info)| (id, info.replicas.clone())).collect();
        // The system group costs its leader, this node, as much as another group, and stays.
        leaders.insert(PartitionId::SYSTEM, self.context.node);
        replicas.insert(PartitionId::SYSTEM, vec![self.context.node]);
        for (group, from, to) in rebalance_leaders(&leaders, &replicas, &self.up) {
            let voters = routes.voters(group).unwrap_or_default();
            if voters.contains(&to) {
                self.ask(group, from, ControlCall::Transfer { group, to }, None);
            }
        }
    }

    fn ask(
        &mut self,
        group: PartitionId,
        leader: NodeId,
        call: ControlCall,
        turn: Option<tokio::sync::OwnedSemaphorePermit>,
    ) {
        if !self.busy.insert(group) {
            return;
        }
        let (context, me) = (self.context.clone(), self.me.clone());
        tokio::spawn(async move {
            let make = |reply| ControlMessage::Control(call, reply);
            match context.hub.call(leader, "control", CONTROL_DEADLINE, 1024, make).await {
                Ok(Ok(_)) => {}
                Ok(Err(why)) => {
                    tracing::debug!(partition = %group, %leader, why, "the controller's wish was not met")
                }
                Err(error) => {
                    tracing::debug!(partition = %group, %leader, %error, "the controller's wish was not met")
                }
            }
            drop(turn);
            let _ = me.cast(ControllerMessage::Ended(group));
        });
    }
}
