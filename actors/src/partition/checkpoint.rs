//! Checkpoints: the versions installed since the last one, written to the storage engine while the partition
//! goes on, then committed together with the log index that they reach to.

use super::Partition;
use super::applier::ReplicaState;
use super::message::{CheckpointStep, LocalPartition, PartitionMessage};
use super::slot::{make_valid, next_generation, slot};
use crate::context::NodeContext;
use crate::gateway::LARGE_BYTES;
use bytes::Bytes;
use ractor::ActorRef;
use std::any::Any;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::log_bounds::LogBounds;
use trandb_cluster::mvcc::StoredVersion;
use trandb_cluster::partition::PartitionState;
use trandb_cluster::{EncodedKey, PartitionId, wire};
use trandb_runtime::engine::{Engine, EngineError};
use trandb_runtime::raft::{LocalRaft, LogId, RaftMessage, StoredMembership};

/// How long the actor is waited for within a checkpoint. It answers in microseconds unless it is dead.
const ACTOR_DEADLINE: Duration = Duration::from_secs(30);

/// Bytes of versions that are handed to the storage engine at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Records that the storage engine is told to remove at once.
const REMOVES_MAX: usize = 4096;

/// The longest rest after each part of a received state that is written. It rests as long as the part took, so that one
/// state takes half of the engine's time at most; a slow disk makes it wait no longer than this.
const REPLACING_REST_MAX: Duration = Duration::from_millis(50);

/// What a checkpoint writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// What came since the last one. The log waits for it, so only large values rest.
    Changes,
    /// A received state, of a replica that serves nothing yet.
    Whole,
}

/// When a partition's next checkpoint is due.
#[derive(Debug)]
pub(super) struct Schedule {
    last: Instant,
    log_bytes: usize,
    running: bool,
    /// The next one does not wait until it is due.
    forced: bool,
    /// Tells runs apart: a received snapshot overtakes one that is under way.
    run: u64,
    /// Log index of the one that is being written.
    writing: u64,
    /// Log index of the last one, and of the one before: the log may go up to the latter.
    marks: (u64, u64),
}

impl Schedule {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, log_bytes: 0, running: false, forced: false, run: 0, writing: 0, marks: (0, 0) }
    }

    /// Whether `run` has not been overtaken.
    fn is_current(&self, run: u64) -> bool {
        self.running && self.run == run
    }

    /// Counts bytes that were logged since the last checkpoint.
    pub(super) fn logged(&mut self, bytes: usize) {
        self.log_bytes += bytes;
    }
}

impl Partition {
    pub(super) fn force_checkpoint(&mut self) {
        self.checkpoint.forced = true;
        self.start_checkpoint_if_due();
        // What nothing can be written for is not owed later, either.
        self.checkpoint.forced &= self.checkpoint.running;
    }

    pub(super) fn start_checkpoint_if_due(&mut self) {
        let storage = &self.context.config.storage;
        let bounds = LogBounds { checkpoint_bytes_max: storage.checkpoint_log_bytes };
        let applied = self.state.applied();
        let (last, before) = self.checkpoint.marks;
        // A clean partition is checkpointed once more, so that its log may go up to the last one.
        let moved = applied > last || last > before;
        let due = self.checkpoint.forced
            || self.checkpoint.last.elapsed() >= Duration::from_millis(storage.checkpoint_interval_ms)
            || self.checkpoint.log_bytes as u64 >= bounds.checkpoint_bytes(self.state.live_bytes());
        if self.checkpoint.running || !moved || !due || self.replica.checkpoints_stopped() {
            return;
        }
        // What is wrong in memory is not made durable; the log keeps what is right until the replica is rebuilt.
        if !self.is_sound() {
            return;
        }
        self.checkpoint.running = true;
        self.checkpoint.forced = false;
        tokio::spawn(run(self.context.clone(), self.id, self.me.clone(), self.replica.clone()));
    }

    pub(super) fn checkpoint_step(&mut self, step: CheckpointStep) {
        let began = Instant::now();
        match step {
            CheckpointStep::Begin(reply) => {
                let _ = reply.send(self.begin_checkpoint());
            }
            CheckpointStep::Puts(run, reply) if self.checkpoint.is_current(run) => {
                let _ = reply.send(self.state.checkpoint_puts(CHUNK_BYTES));
            }
            CheckpointStep::End(run, committed, reply) if self.checkpoint.is_current(run) => {
                let _ = reply.send(self.end_checkpoint(committed));
            }
            CheckpointStep::Removes(run, reply) if self.checkpoint.is_current(run) => {
                let removes = self.state.checkpoint_removes(REMOVES_MAX);
                self.checkpoint.running = !removes.is_empty();
                let _ = reply.send(removes);
            }
            CheckpointStep::Puts(..) | CheckpointStep::End(..) | CheckpointStep::Removes(..) => {}
        }
        self.context.gauges.checkpoint_stepped(began.elapsed());
    }

    fn begin_checkpoint(&mut self) -> Option<(u64, Bytes)> {
        self.checkpoint.log_bytes = 0;
        if self.applied.is_none() {
            self.checkpoint.running = false;
            return None;
        }
        let header = self.state.begin_checkpoint();
        self.checkpoint.writing = header.index;
        let meta = self.meta(header);
        self.checkpoint.run += 1;
        Some((self.checkpoint.run, wire::encode(&meta).into()))
    }

    fn end_checkpoint(&mut self, committed: bool) -> Vec<EncodedKey> {
        // One that was committed goes on with its removals.
        self.checkpoint.running = committed;
        self.checkpoint.last = Instant::now();
        if committed {
            self.checkpoint.marks = (self.checkpoint.writing, self.checkpoint.marks.0);
        }
        self.state.end_checkpoint(committed)
    }

    /// Replaces the state by a received one. Everything in it counts as not yet written; the checkpoint that
    /// follows at once makes it durable, and only then is the sender told.
    pub(super) fn install(
        &mut self,
        last: Option<LogId>,
        membership: StoredMembership,
        state: Box<dyn Any + Send>,
        reply: ractor::RpcReplyPort<io::Result<()>>,
    ) {
        let Ok(state) = state.downcast::<PartitionState>() else {
            let _ = reply.send(Err(io::Error::other("not a partition's state")));
            return;
        };
        self.state = *state;
        self.applied = last;
        self.membership = membership;
        self.forget_loans();
        self.audit.rebuild.overtaken();
        self.is_right_again();
        self.end_own_alarm();
        self.write_replacing(move |_, written| {
            let _ = reply.send(written);
        });
    }

    /// Writes the state as it is beside what the engine holds and makes it the valid one; `told` when that is durable,
    /// or failed.
    pub(super) fn write_replacing(
        &mut self,
        told: impl FnOnce(&ActorRef<PartitionMessage>, io::Result<()>) + Send + 'static,
    ) {
        let run = self.checkpoint.run + 1;
        self.checkpoint = Schedule { run, running: true, ..Schedule::new(Instant::now()) };
        let me = self.me.clone();
        let run = run_replacing(self.context.clone(), self.id, me.clone(), self.replica.clone());
        tokio::spawn(async move { told(&me, run.await) });
    }
}

/// Between two looks at whether a checkpoint that was asked for is written.
const LOOK: Duration = Duration::from_millis(20);

/// Has the replica here write a checkpoint that holds all it has applied by now. The log index that its newest one
/// reaches to.
pub(crate) async fn checkpoint_now(
    context: &NodeContext,
    id: PartitionId,
    within: Duration,
) -> Result<u64, String> {
    let until = Instant::now() + within;
    let replica = context.local.load().get(&id).cloned().ok_or_else(|| format!("no replica of {id} here"))?;
    let actor = || replica.actor().ok_or_else(|| format!("the replica of {id} is being started"));
    let (applied, _) = ask(&actor()?, LocalPartition::Applied).await.map_err(|error| error.to_string())?;
    let Some(applied) = applied.map(|log_id| log_id.index) else { return Ok(0) };
    loop {
        if let Some(index) = replica.checkpointed_to().filter(|&index| index >= applied) {
            return Ok(index);
        }
        if replica.checkpoints_stopped() {
            return Err(format!("{id} writes no checkpoints until its node is started anew"));
        }
        if replica.is_suspect() {
            return Err(format!("the replica of {id} is wrong and is being rebuilt"));
        }
        if Instant::now() >= until {
            return Err(format!("the checkpoint of {id} was not written within {within:?}"));
        }
        // Asked for again and again: one that was under way may not reach as far, and one can fail.
        let _ = actor()?.cast(PartitionMessage::Local(LocalPartition::Checkpoint));
        tokio::time::sleep(LOOK).await;
    }
}

async fn run(
    context: Arc<NodeContext>,
    id: PartitionId,
    actor: ActorRef<PartitionMessage>,
    replica: Arc<ReplicaState>,
) {
    // One checkpoint at a time on a node: they share one disk, and none of them is urgent.
    let Ok(_turn) = context.checkpoint_turn.acquire().await else { return };
    let _writing = replica.writing().await;
    if let Err(error) =
        write(&context, slot(id, replica.generation()), &actor, &replica, Extent::Changes, |_| Ok(())).await
    {
        tracing::error!(partition = %id, %error, "checkpoint failed; the log is kept until one succeeds");
        context.gauges.checkpoint_failed();
    }
}

/// Writes a received state beside what the engine holds, then makes it the valid one.
async fn run_replacing(
    context: Arc<NodeContext>,
    id: PartitionId,
    actor: ActorRef<PartitionMessage>,
    replica: Arc<ReplicaState>,
) -> io::Result<()> {
    let _writing = replica.writing().await;
    let old = replica.generation();
    let new = next_generation(old);
    context.engine.run(move |engine| engine.drop_partition(slot(id, new))).await.map_err(io::Error::other)?;
    let result = write(&context, slot(id, new), &actor, &replica, Extent::Whole, move |engine| {
        make_valid(engine, id, old, new)
    })
    .await;
    if result.is_ok() {
        replica.set_generation(new);
    }
    result
}

/// Writes one checkpoint into `place`; `after` follows its commit, before anyone is told of it.
async fn write(
    context: &NodeContext,
    place: PartitionId,
    actor: &ActorRef<PartitionMessage>,
    replica: &ReplicaState,
    extent: Extent,
    after: impl FnOnce(&dyn Engine) -> Result<(), EngineError> + Send + 'static,
) -> io::Result<()> {
    let started = Instant::now();
    let Some((run, meta)) = ask_step(actor, CheckpointStep::Begin).await? else { return Ok(()) };
    let committed = put_and_commit(context, place, actor, (run, meta.clone()), extent, after).await;
    let is_committed = committed.is_ok();
    drop(ask_step(actor, |reply| CheckpointStep::End(run, is_committed, reply)).await?);
    committed?;
    loop {
        let removes = ask_step(actor, |reply| CheckpointStep::Removes(run, reply)).await?;
        if removes.is_empty() {
            break;
        }
        let removed = context.engine.run(move |engine| engine.remove(place, &removes)).await;
        if removed.is_err() {
            // A later checkpoint would no longer name these records, and a deleted key could come back with them.
            replica.stop_checkpoints();
        }
        removed.map_err(io::Error::other)?;
    }
    replica.checkpointed(&meta)?;
    context.gauges.checkpointed(started.elapsed());
    if let Some(raft) = replica.group() {
        // A group that is gone learns of the checkpoint when it starts again.
        let _ = raft.cast(RaftMessage::Local(LocalRaft::Checkpointed));
    }
    Ok(())
}

async fn put_and_commit(
    context: &NodeContext,
    place: PartitionId,
    actor: &ActorRef<PartitionMessage>,
    (run, meta): (u64, Bytes),
    extent: Extent,
    after: impl FnOnce(&dyn Engine) -> Result<(), EngineError> + Send + 'static,
) -> io::Result<()> {
    while let Some(puts) = ask_step(actor, |reply| CheckpointStep::Puts(run, reply)).await? {
        // What was to be written may have been forgotten meanwhile.
        if puts.is_empty() {
            continue;
        }
        let large = puts.iter().map(StoredVersion::weight).filter(|&bytes| bytes >= LARGE_BYTES).sum();
        let started = Instant::now();
        context.engine.run(move |engine| engine.put(place, &puts)).await.map_err(io::Error::other)?;
        let rest = match extent {
            Extent::Changes => Duration::ZERO,
            Extent::Whole => started.elapsed().min(REPLACING_REST_MAX),
        };
        tokio::time::sleep(rest.max(context.large_writes.rest_of_checkpoint(large))).await;
    }
    let commit = move |engine: &dyn Engine| {
        engine.commit(place, &meta)?;
        after(engine)
    };
    context.engine.run(commit).await.map_err(io::Error::other)
}

async fn ask_step<T: Send + 'static>(
    actor: &ActorRef<PartitionMessage>,
    make: impl FnOnce(ractor::RpcReplyPort<T>) -> CheckpointStep,
) -> io::Result<T> {
    ask(actor, |reply| LocalPartition::CheckpointStep(make(reply))).await
}

async fn ask<T: Send + 'static>(
    actor: &ActorRef<PartitionMessage>,
    make: impl FnOnce(ractor::RpcReplyPort<T>) -> LocalPartition,
) -> io::Result<T> {
    match actor.call(|reply| PartitionMessage::Local(make(reply)), Some(ACTOR_DEADLINE)).await {
        Ok(ractor::rpc::CallResult::Success(value)) => Ok(value),
        _ => Err(io::Error::other("the partition's actor has stopped")),
    }
}
