//! The heartbeats of all groups with a replica here. On its tick the groups that this node leads beat, together, so that
//! [`Heartbeats`](trandb_runtime::raft::Heartbeats) puts them into one message per peer; and here such a message from a
//! peer is handed to the groups' actors, and their answers are sent back as one.
//!
//! What is not moved here is Raft: each group's heartbeats renew its own lease, with its own term and commit index.
//!
//! Raft's own timers, one per group and twenty times a second, only look whether nobody has led the group for an election
//! timeout. They rest for as long as this node leads it or its leader's heartbeats come.

use crate::context::NodeContext;
use crate::partition::{LocalPartition, PartitionMessage, is_cut_off};
use futures_util::future::join_all;
use ractor::concurrency::oneshot;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use trandb_cluster::PartitionId;
use trandb_runtime::raft::{
    AppendCall, BEATS_ACTOR, Beat, BeatsAnswer, BeatsCall, BeatsMessage, Raft, RaftMessage, ServerState,
    WatchReceiver,
};
use trandb_runtime::rpc::Reply;

/// How long the answers of all wait for that of a busy group. What it takes is taken from everybody's lease.
const ANSWER_MAX: Duration = Duration::from_millis(50);

/// How much later than an interval after the one before a heartbeat may come until a group's timer runs again.
const LATE: Duration = Duration::from_millis(50);

/// The actor. See the module.
pub(super) struct BeatsActor;

/// What the actor owns.
pub(super) struct Beats {
    context: Arc<NodeContext>,
    interval: Duration,
    /// When each group's leader, elsewhere, was last heard here.
    heard: BTreeMap<PartitionId, Instant>,
}

impl Actor for BeatsActor {
    type Msg = BeatsMessage;
    type State = Beats;
    type Arguments = Arc<NodeContext>;

    async fn pre_start(
        &self,
        me: ActorRef<BeatsMessage>,
        context: Arc<NodeContext>,
    ) -> Result<Beats, ActorProcessingErr> {
        let interval = Duration::from_millis(context.config.raft.heartbeat_ms);
        context.hub.register(BEATS_ACTOR, me.get_cell());
        me.send_interval(interval, || BeatsMessage::Tick);
        Ok(Beats { context, interval, heard: BTreeMap::new() })
    }

    async fn handle(
        &self,
        _me: ActorRef<BeatsMessage>,
        message: BeatsMessage,
        beats: &mut Beats,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            BeatsMessage::Beats(call, reply) => beats.received(call, reply),
            BeatsMessage::Tick => beats.tick(),
        }
        Ok(())
    }
}

impl Beats {
    fn tick(&mut self) {
        let groups: Vec<(PartitionId, Raft)> = {
            let local = self.context.local.load();
            let ids = std::iter::once(PartitionId::SYSTEM).chain(local.keys().copied());
            ids.filter_map(|id| Some((id, self.context.raft(id)?))).collect()
        };
        self.heard.retain(|id, _| groups.iter().any(|(group, _)| group == id));
        let mut leading = Vec::new();
        for (id, raft) in groups {
            let leads = raft.metrics().borrow_watched().state == ServerState::Leader;
            let followed = self.heard.get(&id).is_some_and(|heard| heard.elapsed() <= self.interval + LATE);
            raft.runtime_config().tick(!leads && !followed);
            if leads {
                self.tell_if_cut_off(id, &raft);
                leading.push(raft);
            }
        }
        if leading.is_empty() {
            return;
        }
        let within = self.interval;
        // Not in the actor: a Raft that is busy takes commands late, and the others must not wait for it.
        tokio::spawn(async move {
            join_all(leading.iter().map(|raft| async move {
                // One that has stopped leads nothing any more; one that is late beats next time.
                let _ = timeout(within, raft.trigger().heartbeat()).await;
            }))
            .await;
        });
    }

    /// Raft does not step down by itself, so whoever waits for its leader is told here.
    fn tell_if_cut_off(&self, id: PartitionId, raft: &Raft) {
        if !is_cut_off(raft, self.context.lease()) {
            return;
        }
        if let Some(actor) = self.context.partition(id) {
            // One that died meanwhile has dropped whoever waited.
            let _ = actor.cast(PartitionMessage::Local(LocalPartition::CutOff));
        }
    }

    fn received(&mut self, call: BeatsCall, reply: Reply<BeatsAnswer>) {
        let now = Instant::now();
        let answers = call.beats.into_iter().map(|Beat { group, request }| {
            let (port, answer) = oneshot();
            let delivered = self.context.group(group).is_some_and(|actor| {
                let append = RaftMessage::Append(AppendCall(request), Reply::Local(port.into()));
                actor.cast(append).is_ok()
            });
            if delivered {
                self.heard.insert(group, now);
            }
            // Where nothing was delivered the port is gone, and so is the wait.
            async move { timeout_at(now + ANSWER_MAX, answer).await.ok().and_then(Result::ok) }
        });
        let answers: Vec<_> = answers.collect();
        tokio::spawn(async move { reply.send(join_all(answers).await) });
    }
}
