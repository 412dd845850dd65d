//! The root supervisor. It starts the node's actors, starts again what dies and can be replaced, and fails the
//! node when something dies that cannot, or dies too often.

use super::{Fatal, StartError};
use crate::context::NodeContext;
use crate::control::NodeControl;
use crate::controller::ControllerActor;
use crate::oracle::OracleActor;
use crate::replica::{ReplicasActor, ReplicasArguments, ReplicasMessage, SystemMachine};
use crate::router::{RouterActor, RouterMessage};
use crate::supervise::Restarts;
use crate::txn::CoordinatorsActor;
use crate::wal::{WalActor, WalMessage, WalSink};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use trandb_cluster::{NodeId, PartitionId};
use trandb_runtime::peer::PeerState;
use trandb_runtime::wal::{RecoveredGroup, WalError, Writer};

/// How long actors may take to end when the node stops.
const STOP_MAX: Duration = Duration::from_secs(10);

/// What the root is sent: nothing yet but its children's deaths.
#[derive(Debug)]
pub(super) enum RootMessage {}

impl ractor::Message for RootMessage {}

pub(super) struct RootArguments {
    pub(super) context: Arc<NodeContext>,
    pub(super) wal: ActorRef<WalMessage>,
    pub(super) system: Arc<SystemMachine>,
    pub(super) founders: Option<Vec<NodeId>>,
    pub(super) recovered: BTreeMap<PartitionId, RecoveredGroup>,
    /// Why the write-ahead log takes no more writes, once that is so.
    pub(super) log_failed: watch::Receiver<Option<WalError>>,
}

/// The children that can be replaced without anyone noticing but in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Child {
    Router,
    Oracle,
    Control,
    Controller,
    Coordinators,
}

impl Child {
    const ALL: [Self; 5] = [Self::Router, Self::Oracle, Self::Control, Self::Controller, Self::Coordinators];

    fn name(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Oracle => "oracle",
            Self::Control => "control",
            Self::Controller => "controller",
            Self::Coordinators => "coordinators",
        }
    }
}

struct RootActor;

struct Root {
    context: Arc<NodeContext>,
    wal: ActorRef<WalMessage>,
    replicas: Option<ActorRef<ReplicasMessage>>,
    children: BTreeMap<Child, ActorCell>,
    watchers: Vec<JoinHandle<()>>,
    restarts: Restarts,
}

/// Starts the write-ahead log's actor, before all others: they hold its door.
pub(super) async fn start_wal(writer: Writer) -> Result<(ActorRef<WalMessage>, WalSink), StartError> {
    let (actor, _task) = Actor::spawn(None, WalActor, writer).await.map_err(|error| {
        StartError::Failed(Fatal::actor(format!("the log's actor did not start: {error}")))
    })?;
    Ok((actor.clone(), WalSink(actor)))
}

pub(super) async fn start(arguments: RootArguments) -> Result<ActorRef<RootMessage>, StartError> {
    let (root, _task) = Actor::spawn(None, RootActor, arguments)
        .await
        .map_err(|error| StartError::Failed(Fatal::actor(error.to_string())))?;
    Ok(root)
}

/// Stops all actors, groups first, the log last.
pub(super) async fn stop(root: ActorRef<RootMessage>) {
    if root.stop_and_wait(None, Some(STOP_MAX)).await.is_err() {
        tracing::warn!("actors were still busy after {STOP_MAX:?}");
    }
}

/// Stops the log's actor where there is no root that would.
pub(super) async fn stop_wal(wal: ActorRef<WalMessage>) {
    // One that a failed root has ended is ended.
    wal.stop_and_wait(None, Some(STOP_MAX)).await.ok();
}

impl Actor for RootActor {
    type Msg = RootMessage;
    type State = Root;
    type Arguments = RootArguments;

    async fn pre_start(
        &self,
        me: ActorRef<RootMessage>,
        arguments: RootArguments,
    ) -> Result<Root, ActorProcessingErr> {
        let RootArguments { context, wal, system, founders, recovered, log_failed } = arguments;
        wal.get_cell().link(me.get_cell());
        let mut root = Root {
            context: context.clone(),
            wal,
            replicas: None,
            children: BTreeMap::new(),
            watchers: Vec::new(),
            restarts: Restarts::default(),
        };
        for child in Child::ALL {
            root.spawn(child, &me).await?;
        }
        let arguments = ReplicasArguments { context, system, founders, recovered };
        let (replicas, _task) = Actor::spawn_linked(None, ReplicasActor, arguments, me.get_cell()).await?;
        root.watchers = vec![
            tokio::spawn(watch_log(log_failed, root.context.clone())),
            tokio::spawn(watch_map(root.context.clone())),
            tokio::spawn(watch_gossip(root.context.clone())),
            tokio::spawn(watch_peers(root.context.clone(), replicas.clone())),
        ];
        root.replicas = Some(replicas);
        Ok(root)
    }

    async fn handle(
        &self,
        _me: ActorRef<RootMessage>,
        message: RootMessage,
        _root: &mut Root,
    ) -> Result<(), ActorProcessingErr> {
        match message {}
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<RootMessage>,
        event: SupervisionEvent,
        root: &mut Root,
    ) -> Result<(), ActorProcessingErr> {
        let (dead, why) = match &event {
            SupervisionEvent::ActorFailed(cell, error) => (cell.get_id(), error.to_string()),
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                (cell.get_id(), reason.clone().unwrap_or_else(|| "it stopped".into()))
            }
            _ => return Ok(()),
        };
        let child = root.children.iter().find(|(_, cell)| cell.get_id() == dead).map(|(child, _)| *child);
        let result = match child {
            Some(child) => {
                tracing::error!(actor = child.name(), why, "an actor died and is started again");
                root.context.gauges.restarted(child.name());
                match root.restarts.count(child.name(), tokio::time::Instant::now()) {
                    Ok(()) => root.spawn(child, &me).await.map_err(|error| error.to_string()),
                    Err(too_often) => Err(format!("{too_often}; last: {why}")),
                }
            }
            None if dead == root.wal.get_id() => Err(format!("the write-ahead log's actor died: {why}")),
            None if root.replicas.as_ref().is_some_and(|replicas| replicas.get_id() == dead) => {
                Err(format!("the replicas' supervisor died: {why}"))
            }
            None => Ok(()),
        };
        if let Err(why) = result {
            tracing::error!(why, "the node cannot go on");
            root.context.give_up(Fatal::actor(why));
        }
        Ok(())
    }

    async fn post_stop(&self, _me: ActorRef<RootMessage>, root: &mut Root) -> Result<(), ActorProcessingErr> {
        for watcher in &root.watchers {
            watcher.abort();
        }
        // In this order: whoever writes ends before the log does.
        for child in [Child::Coordinators, Child::Controller, Child::Control, Child::Oracle] {
            if let Some(cell) = root.children.remove(&child) {
                cell.stop_and_wait(None, Some(STOP_MAX)).await.ok();
            }
        }
        if let Some(replicas) = root.replicas.take() {
            replicas.stop_and_wait(None, Some(STOP_MAX)).await.ok();
        }
        if let Some(router) = root.children.remove(&Child::Router) {
            router.stop_and_wait(None, Some(STOP_MAX)).await.ok();
        }
        root.wal.stop_and_wait(None, Some(STOP_MAX)).await.ok();
        Ok(())
    }
}

impl Root {
    async fn spawn(&mut self, child: Child, me: &ActorRef<RootMessage>) -> Result<(), ActorProcessingErr> {
        let context = self.context.clone();
        let supervisor = me.get_cell();
        let cell = match child {
            Child::Router => {
                let (actor, _task) =
                    Actor::spawn_linked(None, RouterActor, context.clone(), supervisor).await?;
                context.router.store(Arc::new(Some(actor.clone())));
                actor.get_cell()
            }
            Child::Oracle => {
                let (actor, _task) =
                    Actor::spawn_linked(None, OracleActor, context.clone(), supervisor).await?;
                context.oracle.store(Arc::new(Some(actor.clone())));
                context.hub.register("oracle", actor.get_cell());
                actor.get_cell()
            }
            Child::Control => {
                let (actor, _task) =
                    Actor::spawn_linked(None, NodeControl, context.clone(), supervisor).await?;
                context.hub.register("control", actor.get_cell());
                actor.get_cell()
            }
            Child::Coordinators => {
                let (actor, _task) =
                    Actor::spawn_linked(None, CoordinatorsActor, context.clone(), supervisor).await?;
                context.coordinators.store(Arc::new(Some(actor.clone())));
                context.hub.register(crate::txn::NAME, actor.get_cell());
                actor.get_cell()
            }
            Child::Controller => {
                Actor::spawn_linked(None, ControllerActor, context, supervisor).await?.0.get_cell()
            }
        };
        self.children.insert(child, cell);
        Ok(())
    }
}

/// A node without a log can promise nothing any more. Said at once: that its groups die of it would hide why.
async fn watch_log(mut log: watch::Receiver<Option<WalError>>, context: Arc<NodeContext>) {
    if let Ok(error) = log.wait_for(Option::is_some).await {
        let error = error.as_ref().expect("waited for");
        tracing::error!(%error, "the node cannot go on without its log");
        context.give_up(Fatal::log(error));
    }
}

/// Tells the router of changes of the system group's state.
async fn watch_map(context: Arc<NodeContext>) {
    let mut system = context.system.subscribe();
    loop {
        // The first time, too: the log may have been replayed after the router looked and before this began. A
        // restarted node that heard of no change would know no peers, and so never hear of any.
        system.borrow_and_update();
        context.tell_router(RouterMessage::MapChanged);
        if system.changed().await.is_err() {
            return;
        }
    }
}

/// Tells the router what peers say with their heartbeats.
async fn watch_gossip(context: Arc<NodeContext>) {
    let mut heard = context.hub.heard();
    loop {
        let news = Arc::new(heard.borrow_and_update().clone());
        context.tell_router(RouterMessage::Heard(news));
        if heard.changed().await.is_err() {
            return;
        }
    }
}

/// Tells the replicas of peers that were up and are not any more, or are again.
async fn watch_peers(context: Arc<NodeContext>, replicas: ActorRef<ReplicasMessage>) {
    let mut states = context.hub.states();
    let mut up = std::collections::BTreeSet::new();
    loop {
        let now = up_nodes(&states.borrow_and_update());
        for lost in up.difference(&now) {
            tracing::warn!(peer = %lost, "a peer is lost");
            // Replicas that died have failed the node.
            let _ = replicas.cast(ReplicasMessage::PeerLost(*lost));
        }
        for found in now.difference(&up) {
            tracing::info!(peer = %found, "a peer is up");
            let _ = replicas.cast(ReplicasMessage::PeerFound(*found));
            // It knows nothing of what was said before its link was there.
            context.tell_router(RouterMessage::Publish);
        }
        up = now;
        if states.changed().await.is_err() {
            return;
        }
    }
}

fn up_nodes(states: &BTreeMap<NodeId, PeerState>) -> std::collections::BTreeSet<NodeId> {
    states.iter().filter(|(_, state)| state.is_up()).map(|(&node, _)| node).collect()
}
