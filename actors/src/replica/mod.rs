//! The replicas of this node: one supervisor, and per group with a replica here a [`GroupActor`] and, unless it
//! is the system group, a [`PartitionActor`]; and one `BeatsActor` for the heartbeats of all of them.
//!
//! A partition's actor that dies is started again and rebuilds itself from its checkpoint and log; Raft waits
//! for it. A group's actor that dies takes the partition's actor with it, and both start again. Five deaths
//! of one child within a minute are no accident: the supervisor dies, too, and with it the node.

mod beats;
mod group;
mod membership;
#[cfg(test)]
mod membership_tests;
mod receiving;
mod standing;
mod system;

pub use group::{GroupActor, GroupArguments, Machine};
pub use system::SystemMachine;
#[cfg(test)]
pub(crate) use system::system_checkpoint_meta;
pub(crate) use system::{ExpectedSystem, checkpoint_loop, expected_system, system_checkpoint_index};

use crate::context::NodeContext;
use crate::partition::{PartitionActor, PartitionArguments, PartitionMessage, ReplicaState};
use crate::supervise::Restarts;
use beats::BeatsActor;
use ractor::{Actor, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use trandb_cluster::{NodeId, PartitionId};
use trandb_runtime::planted::{Planted, is_planted};
use trandb_runtime::raft::{BeatsMessage, GroupLog, LocalRaft, RaftMessage, WatchReceiver, members};
use trandb_runtime::wal::RecoveredGroup;

/// How often placement is compared with what runs here.
const RECONCILE: Duration = Duration::from_millis(250);

/// What the supervisor is sent.
#[derive(Debug)]
pub enum ReplicasMessage {
    /// Compare placement with what runs here.
    Reconcile,
    /// A peer's link broke or went silent.
    PeerLost(NodeId),
    /// A peer's link is there.
    PeerFound(NodeId),
}

impl ractor::Message for ReplicasMessage {}

/// The supervisor. See the module.
pub struct ReplicasActor;

/// What the supervisor is started with.
pub struct ReplicasArguments {
    /// The node.
    pub context: Arc<NodeContext>,
    /// The system group's state.
    pub system: Arc<SystemMachine>,
    /// The members to begin the system group with, where this node founds the cluster.
    pub founders: Option<Vec<NodeId>>,
    /// What the write-ahead log held at start.
    pub recovered: BTreeMap<PartitionId, RecoveredGroup>,
}

/// What the supervisor owns.
pub struct Replicas {
    context: Arc<NodeContext>,
    me: ActorRef<ReplicasMessage>,
    system: Arc<SystemMachine>,
    founders: Option<Vec<NodeId>>,
    recovered: Mutex<BTreeMap<PartitionId, RecoveredGroup>>,
    logs: BTreeMap<PartitionId, GroupLog>,
    running: BTreeMap<PartitionId, Running>,
    beats: Option<ActorRef<BeatsMessage>>,
    restarts: Restarts,
}

struct Running {
    machine: Machine,
    group: Option<ActorRef<RaftMessage>>,
    partition: Option<ActorRef<PartitionMessage>>,
}

impl Actor for ReplicasActor {
    type Msg = ReplicasMessage;
    type State = Replicas;
    type Arguments = ReplicasArguments;

    async fn pre_start(
        &self,
        me: ActorRef<ReplicasMessage>,
        arguments: ReplicasArguments,
    ) -> Result<Replicas, ActorProcessingErr> {
        let ReplicasArguments { context, system, founders, recovered } = arguments;
        let mut replicas = Replicas {
            context,
            me: me.clone(),
            system,
            founders,
            recovered: Mutex::new(recovered),
            logs: BTreeMap::new(),
            running: BTreeMap::new(),
            beats: None,
            restarts: Restarts::default(),
        };
        replicas.start_beats().await?;
        replicas.start_system().await?;
        replicas.reconcile().await?;
        me.send_interval(RECONCILE, || ReplicasMessage::Reconcile);
        Ok(replicas)
    }

    async fn handle(
        &self,
        _me: ActorRef<ReplicasMessage>,
        message: ReplicasMessage,
        replicas: &mut Replicas,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ReplicasMessage::Reconcile => replicas.reconcile().await?,
            ReplicasMessage::PeerLost(node) => replicas.tell_groups(|| LocalRaft::PeerLost(node)),
            ReplicasMessage::PeerFound(node) => replicas.tell_groups(|| LocalRaft::PeerFound(node)),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _me: ActorRef<ReplicasMessage>,
        event: SupervisionEvent,
        replicas: &mut Replicas,
    ) -> Result<(), ActorProcessingErr> {
        let why = match &event {
            SupervisionEvent::ActorFailed(_, error) => error.to_string(),
            SupervisionEvent::ActorTerminated(_, _, reason) => reason.clone().unwrap_or_default(),
            _ => return Ok(()),
        };
        let Some(dead) = event.actor_id() else { return Ok(()) };
        if replicas.beats.as_ref().is_some_and(|actor| actor.get_id() == dead) {
            tracing::error!(child = "beats", why, "an actor died and is started again");
            replicas.context.gauges.restarted("beats");
            replicas.restarts.count("beats", tokio::time::Instant::now())?;
            return replicas.start_beats().await;
        }
        let found = replicas.running.iter().find_map(|(&id, running)| {
            let group = running.group.as_ref().is_some_and(|actor| actor.get_id() == dead);
            let partition = running.partition.as_ref().is_some_and(|actor| actor.get_id() == dead);
            (group || partition).then_some((id, group))
        });
        // An actor that was stopped on purpose is not in the list any more.
        let Some((id, is_group)) = found else { return Ok(()) };
        let child = if is_group { "group" } else { "partition" };
        replicas.count_restart(id, child, &why)?;
        if is_group { replicas.restart_group(id).await } else { replicas.restart_partition(id).await }
    }
}

impl Replicas {
    fn tell_groups(&self, news: impl Fn() -> LocalRaft) {
        for group in self.running.values().filter_map(|running| running.group.as_ref()) {
            // One that died is being restarted and will find no leader by itself.
            let _ = group.cast(RaftMessage::Local(news()));
        }
    }

    async fn start_beats(&mut self) -> Result<(), ActorProcessingErr> {
        let (actor, _task) =
            Actor::spawn_linked(None, BeatsActor, self.context.clone(), self.me.get_cell()).await?;
        self.beats = Some(actor);
        Ok(())
    }

    async fn start_system(&mut self) -> Result<(), ActorProcessingErr> {
        let id = PartitionId::SYSTEM;
        let machine = Machine::System(self.system.clone());
        let founders = self.founders.clone();
        let group = self.spawn_group(id, machine.clone(), founders)?.await?;
        self.running.insert(id, Running { machine, group: Some(group), partition: None });
        Ok(())
    }

    /// Starts what the map wants here and does not run, and what the log holds: a replica that was on its way to another node
    /// when this one ended may be the one that all others lack. Ends what runs and is not a member any more.
    async fn reconcile(&mut self) -> Result<(), ActorProcessingErr> {
        let state = self.context.system();
        let me = self.context.node;
        let wanted =
            state.partitions.iter().filter(|(_, info)| info.replicas.contains(&me)).map(|(&id, _)| id);
        let mut here: BTreeSet<PartitionId> = wanted.collect();
        if !is_planted(Planted::MovingForgotten) {
            here.extend(self.recovered.lock().expect("no holder of the lock panics").keys());
        }
        for id in here {
            if !self.running.contains_key(&id) {
                self.start_data(id).await?;
            }
        }
        let leaving: Vec<PartitionId> = self
            .running
            .iter()
            .filter(|(id, running)| {
                let wanted =
                    id.is_system() || state.partitions.get(id).is_none_or(|info| info.replicas.contains(&me));
                !wanted && running.group.as_ref().is_some() && self.has_left(**id)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in leaving {
            self.end(id).await?;
        }
        Ok(())
    }

    /// Whether the group's leader, elsewhere, says that it goes on without this node. What it said before it let the node in
    /// does not count: a voter that forgets what it acknowledged would take back what was committed.
    fn has_left(&self, id: PartitionId) -> bool {
        let routes = self.context.routes.borrow();
        let Some(lead) = routes.leads.get(&id) else { return false };
        let me = self.context.node;
        let without = lead.leader.is_some_and(|leader| leader != me)
            && !lead.voters.is_empty()
            && !lead.voters.contains(&me)
            && !lead.learners.contains(&me);
        without && self.let_in_at(id) <= Some(lead.applied)
    }

    /// Index of the entry that, as far as this node's log goes, made it a member of the group. None if it is none.
    fn let_in_at(&self, id: PartitionId) -> Option<u64> {
        let raft = self.context.raft(id)?;
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = &metrics.membership_config;
        let is_member = members(membership).contains(self.context.node);
        is_member.then(|| membership.log_id().map_or(0, |log_id| log_id.index))
    }

    fn log(&mut self, id: PartitionId) -> Result<GroupLog, ActorProcessingErr> {
        if let Some(log) = self.logs.get(&id) {
            return Ok(log.clone());
        }
        let recovered = self.recovered.lock().expect("no holder of the lock panics").remove(&id);
        let log = GroupLog::new(id, self.context.log.clone(), self.context.log_reader.clone(), recovered)?
            .with_lz4_from(self.context.config.storage.wal_lz4_bytes);
        self.logs.insert(id, log.clone());
        Ok(log)
    }

    async fn start_data(&mut self, id: PartitionId) -> Result<(), ActorProcessingErr> {
        let log = self.log(id)?;
        let replica = Arc::new(ReplicaState::new(log));
        let machine = Machine::Data(replica.clone());
        self.running.insert(id, Running { machine, group: None, partition: None });
        self.start_replica(id, replica.clone()).await?;
        let mut local = (**self.context.local.load()).clone();
        local.insert(id, replica);
        self.context.local.store(Arc::new(local));
        Ok(())
    }

    /// Starts a partition's actor and its group's. Raft asks the first as it starts, and waits for the next one if it dies.
    /// This actor hears of deaths only when it is done here, so it looks itself.
    async fn start_replica(
        &mut self,
        id: PartitionId,
        replica: Arc<ReplicaState>,
    ) -> Result<(), ActorProcessingErr> {
        let founders = self.data_founders(id);
        let mut partition = self.spawn_partition(id, replica.clone()).await?;
        let spawning = self.spawn_group(id, Machine::Data(replica.clone()), founders)?;
        tokio::pin!(spawning);
        let group = loop {
            tokio::select! {
                biased;
                spawned = &mut spawning => break spawned?,
                _ = partition.wait(None) => {
                    self.count_restart(id, "partition", "it died while its group started")?;
                    partition = self.spawn_partition(id, replica.clone()).await?;
                }
            }
        };
        if let Some(running) = self.running.get_mut(&id) {
            running.partition = Some(partition);
            running.group = Some(group);
        }
        Ok(())
    }

    /// The members to begin a partition's group with, where nothing has become of it yet and this node is one of them.
    fn data_founders(&self, id: PartitionId) -> Option<Vec<NodeId>> {
        let state = self.context.system();
        let info = state.partitions.get(&id)?;
        let founding = info.founders.contains(&self.context.node) && info.founders == info.replicas;
        founding.then(|| info.founders.clone())
    }

    /// Says that a child is started again.
    ///
    /// # Errors
    /// When it was too often.
    fn count_restart(
        &mut self,
        id: PartitionId,
        child: &'static str,
        why: &str,
    ) -> Result<(), ActorProcessingErr> {
        tracing::error!(partition = %id, child, why, "an actor died and is started again");
        self.context.gauges.restarted(child);
        Ok(self.restarts.count(&format!("{id}/{child}"), tokio::time::Instant::now())?)
    }

    async fn spawn_partition(
        &self,
        id: PartitionId,
        replica: Arc<ReplicaState>,
    ) -> Result<ActorRef<PartitionMessage>, ActorProcessingErr> {
        let arguments = PartitionArguments { context: self.context.clone(), id, replica };
        let (actor, _task) = Actor::spawn_linked(None, PartitionActor, arguments, self.me.get_cell()).await?;
        self.context.hub.register(&id.to_string(), actor.get_cell());
        Ok(actor)
    }

    fn spawn_group(
        &mut self,
        id: PartitionId,
        machine: Machine,
        founders: Option<Vec<NodeId>>,
    ) -> Result<impl Future<Output = Result<ActorRef<RaftMessage>, SpawnErr>> + use<>, ActorProcessingErr>
    {
        let arguments =
            GroupArguments { context: self.context.clone(), id, log: self.log(id)?, machine, founders };
        let me = self.me.get_cell();
        Ok(async move { Ok(Actor::spawn_linked(None, GroupActor, arguments, me).await?.0) })
    }

    async fn restart_partition(&mut self, id: PartitionId) -> Result<(), ActorProcessingErr> {
        let Some(running) = self.running.get(&id) else { return Ok(()) };
        let Machine::Data(replica) = running.machine.clone() else { return Ok(()) };
        replica.publish(None);
        let partition = self.spawn_partition(id, replica.clone()).await?;
        // Raft goes on as it was; the new actor has to be told of it.
        if let Some(raft) = replica.raft() {
            let attach = crate::partition::LocalPartition::Attach(raft);
            partition.cast(PartitionMessage::Local(attach))?;
        }
        if let Some(running) = self.running.get_mut(&id) {
            running.partition = Some(partition);
        }
        Ok(())
    }

    async fn restart_group(&mut self, id: PartitionId) -> Result<(), ActorProcessingErr> {
        let Some(running) = self.running.get_mut(&id) else { return Ok(()) };
        let machine = running.machine.clone();
        let partition = running.partition.take();
        let Machine::Data(replica) = machine else { return self.start_system().await };
        replica.publish(None);
        replica.set_group(None);
        if let Some(partition) = partition {
            partition.stop_and_wait(None, Some(Duration::from_secs(5))).await.ok();
        }
        // The new Raft begins at the checkpoint and applies the log from there.
        replica.forget_acknowledged();
        self.start_replica(id, replica).await
    }

    /// Stops a replica that its group has let go, and forgets its data.
    async fn end(&mut self, id: PartitionId) -> Result<(), ActorProcessingErr> {
        let Some(running) = self.running.remove(&id) else { return Ok(()) };
        let mut local = (**self.context.local.load()).clone();
        local.remove(&id);
        self.context.local.store(Arc::new(local));
        self.context.hub.unregister(&id.to_string());
        if let Some(group) = running.group {
            group.stop_and_wait(None, Some(Duration::from_secs(5))).await.ok();
        }
        if let Some(partition) = running.partition {
            partition.stop_and_wait(None, Some(Duration::from_secs(5))).await.ok();
        }
        if let Some(log) = self.logs.remove(&id) {
            log.drop_group().await?;
        }
        self.context.engine.run(move |engine| crate::partition::forget(engine, id)).await?;
        self.context.alarms.end_all(id, |_| true);
        let routes = self.context.routes.borrow();
        let (node, leader, voters) = (self.context.node, routes.leader(id), routes.voters(id));
        tracing::info!(partition = %id, %node, ?leader, ?voters, "the replica has left this node");
        Ok(())
    }
}
