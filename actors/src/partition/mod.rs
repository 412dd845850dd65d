//! A partition's actor: it owns the partition's state and, on the leader, executes operations on it.
//!
//! ```text
//!  Execute ─▶ reads ──lease valid──▶ answered at once from the state
//!             │       └─in doubt───▶ parked until a read-index round confirms the leader
//!             └ writes ─▶ queue ─▶ Oracle: timestamps ─▶ Raft ─▶ log, quorum ─▶ Apply ─▶ answered
//!  Scan at S ─▶ waits for proposals that may carry a timestamp up to S, then reads
//! ```
//!
//! The actor that dies loses nothing: its successor loads the checkpoint and replays the log up to what Raft
//! has seen applied. Proposals in flight are answered by their own tasks.

mod applier;
mod applying;
mod audit;
mod checkpoint;
mod deferred;
mod ends;
mod flights;
mod garbage;
mod leading;
mod lend;
#[cfg(test)]
mod lend_tests;
mod locks;
mod message;
mod past;
mod proposing;
mod reads;
mod rebuild;
mod slot;
mod stepped;
mod trace;
mod txns;
mod writes;

pub(crate) use applier::SnapshotChunk;
pub(crate) use audit::is_wrong;
pub(crate) use checkpoint::checkpoint_now;
pub(crate) use leading::is_cut_off;
pub(crate) use slot::{checkpoint_index, forget};
#[cfg(test)]
pub(crate) use slot::{checkpoint_meta, make_valid};

pub use applier::{DataApplier, ReplicaState};
pub use lend::{LendAnswer, LendCall, Opened};
pub use message::{
    Answer, DigestCall, DigestReply, Execute, LocalPartition, LockAnswer, LockAsk, LockCall,
    PartitionMessage, ScanCall, SuspectCall, TxnCall,
};

use crate::context::NodeContext;
use crate::oracle::OracleMessage;
use applier::StoredMeta;
use flights::Orphans;
use proposing::Rest;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use reads::{Parked, Reads};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::command::Write;
use trandb_cluster::partition::PartitionState;
use trandb_cluster::wire::KeyOp;
use trandb_cluster::{Error, PartitionId, Timestamp};
use trandb_runtime::pace::pace;
use trandb_runtime::raft::{LogId, Raft, StoredMembership};
use writes::{Pending, Refusal, Writes};

/// Bytes of a snapshot's chunk: some 500 small values, which take well below a millisecond of either side. It holds one
/// version at least, so 4 MiB values make larger ones.
const SNAPSHOT_CHUNK_BYTES: usize = 64 << 10;

/// How often a partition looks after its checkpoint, garbage, and gauges.
pub const TICK: Duration = Duration::from_secs(1);

/// The actor. See the module.
pub struct PartitionActor;

/// What the actor is started with.
pub struct PartitionArguments {
    /// The node.
    pub context: Arc<NodeContext>,
    /// Which partition.
    pub id: PartitionId,
    /// What it shares with its group's Raft.
    pub replica: Arc<ReplicaState>,
}

/// What the actor owns.
pub struct Partition {
    context: Arc<NodeContext>,
    id: PartitionId,
    replica: Arc<ReplicaState>,
    /// Held by each proposal in flight.
    flight: Arc<()>,
    /// Those of actors before this one.
    orphans: Orphans,
    me: ActorRef<PartitionMessage>,
    state: PartitionState,
    applied: Option<LogId>,
    membership: StoredMembership,
    raft: Option<Raft>,
    writes: Writes,
    reads: Reads,
    chases: txns::Chases,
    locks: locks::KeyLocks,
    pausing: Vec<ractor::RpcReplyPort<()>>,
    checkpoint: checkpoint::Schedule,
    audit: audit::Audit,
    loans: lend::Loans,
    collection: garbage::Collection,
    lease: Duration,
}

impl Actor for PartitionActor {
    type Msg = PartitionMessage;
    type State = Partition;
    type Arguments = PartitionArguments;

    async fn pre_start(
        &self,
        me: ActorRef<PartitionMessage>,
        arguments: PartitionArguments,
    ) -> Result<Partition, ActorProcessingErr> {
        let PartitionArguments { context, id, replica } = arguments;
        let started = Instant::now();
        let (state, meta) = applier::load(&context, id, &replica).await?;
        let (flight, orphans) = replica.flights().begin();
        let lease = context.lease();
        let mut partition = Partition {
            checkpoint: checkpoint::Schedule::new(started),
            collection: garbage::Collection::new(started),
            applied: meta.log_id,
            membership: meta.membership,
            flight,
            orphans,
            context,
            id,
            replica,
            me,
            state,
            raft: None,
            writes: Writes::default(),
            reads: Reads::default(),
            chases: txns::Chases::default(),
            locks: locks::KeyLocks::default(),
            pausing: Vec::new(),
            audit: audit::Audit::default(),
            loans: lend::Loans::default(),
            lease,
        };
        partition.replay(partition.replica.acknowledged())?;
        audit::loaded(&partition.context, id, &partition.replica);
        partition.replica.covered().set(partition.state.last_timestamp());
        tracing::debug!(partition = %id, keys = partition.state.live_keys(), applied = partition.state.applied(),
            elapsed_ms = started.elapsed().as_millis() as u64, "partition loaded");
        Ok(partition)
    }

    async fn post_start(
        &self,
        me: ActorRef<PartitionMessage>,
        partition: &mut Partition,
    ) -> Result<(), ActorProcessingErr> {
        me.send_interval(TICK, || PartitionMessage::Local(LocalPartition::Tick));
        partition.replica.publish(Some(me));
        Ok(())
    }

    async fn handle(
        &self,
        _me: ActorRef<PartitionMessage>,
        message: PartitionMessage,
        partition: &mut Partition,
    ) -> Result<(), ActorProcessingErr> {
        pace(partition.context.node, "partition").await;
        match message {
            PartitionMessage::Execute(call, reply) => partition.execute(call, reply),
            PartitionMessage::Scan(ScanCall { scan, trace }, reply) => {
                let horizon = partition.writes.horizon();
                let span =
                    trace::step("partition scan", trace.as_ref(), partition.context.node, partition.id);
                partition.read(Parked::Scan { scan, horizon, reply, span });
            }
            PartitionMessage::Txn(call, reply) => partition.step(call, reply),
            PartitionMessage::Lock(call, reply) => partition.lock(call, reply),
            PartitionMessage::Digest(call, reply) => {
                let at = call.at.unwrap_or_else(|| partition.state.applied());
                let digest = partition.state.digest_at(at);
                let sound = partition.is_sound();
                reply.send(DigestReply { applied: partition.state.applied(), digest, sound });
            }
            PartitionMessage::Doubt(by, reply) => {
                partition.doubted(by);
                reply.send(());
            }
            PartitionMessage::Suspect(call, reply) => {
                partition.suspect(call);
                reply.send(());
            }
            PartitionMessage::Lend(call, reply) => reply.send(partition.lend(call)),
            PartitionMessage::Local(local) => partition.local(local)?,
        }
        Ok(())
    }
}

impl Partition {
    fn local(&mut self, message: LocalPartition) -> Result<(), ActorProcessingErr> {
        match message {
            LocalPartition::Attach(raft) => self.raft = Some(raft),
            LocalPartition::Apply(entries, reply) => self.apply(entries, reply)?,
            LocalPartition::Past(past) => self.read_past(past),
            LocalPartition::Applied(reply) => {
                let _ = reply.send((self.applied, self.membership.clone()));
            }
            LocalPartition::Granted(grant) => self.granted(grant),
            LocalPartition::Proposed { sequence, rest } => {
                let (again, blocked) = match rest {
                    Rest::Nothing => (None, Vec::new()),
                    Rest::Again(batch) => (Some(batch), Vec::new()),
                    Rest::Blocked(blocked) => (None, blocked),
                };
                self.writes.ended(sequence, again);
                for blocked in blocked {
                    self.wait_to_write(blocked);
                }
                self.pump();
                self.settle();
            }
            LocalPartition::Chased { txn, push, answer } => self.chased(txn, push, answer),
            LocalPartition::LocksDue => self.locks_due(),
            LocalPartition::ChaseAgain(txn) => self.chase_again(txn),
            LocalPartition::DeferredDue => self.deferred_due(),
            LocalPartition::Finished(txn) => self.finished(txn),
            LocalPartition::CutOff => self.refuse_cut_off(),
            LocalPartition::Confirmed(leads) => self.confirmed(leads),
            LocalPartition::Pause(reply) => {
                self.writes.paused = true;
                self.pausing.push(reply);
                self.settle();
            }
            LocalPartition::Resume => self.resume(),
            LocalPartition::OpenSnapshot(reply) => {
                let header =
                    self.applied.map(|log_id| (self.state.pin_snapshot(), log_id, self.membership.clone()));
                let _ = reply.send(header);
            }
            LocalPartition::SnapshotChunk { index, after, reply } => {
                let _ = reply.send(self.state.snapshot_chunk(index, after.as_ref(), SNAPSHOT_CHUNK_BYTES));
            }
            LocalPartition::CloseSnapshot(index) => self.state.unpin_snapshot(index),
            LocalPartition::Install { last, membership, state, reply } => {
                self.install(last, membership, state, reply);
            }
            LocalPartition::Walk => self.walk(),
            LocalPartition::Reported { index, voters, reports } => self.reported(index, &voters, &reports),
            LocalPartition::Borrowed(run, borrowed) => self.borrowed(run, borrowed)?,
            LocalPartition::Rebuilt(run, written) => self.rebuilt(run, written)?,
            LocalPartition::Tick => self.tick(),
            LocalPartition::Collect => self.collect(),
            LocalPartition::Checkpoint => self.force_checkpoint(),
            LocalPartition::CheckpointStep(step) => self.checkpoint_step(step),
            #[cfg(debug_assertions)]
            LocalPartition::Panic => panic!("asked to, by the debug hook"),
            #[cfg(debug_assertions)]
            LocalPartition::Flip(key, with_digest, reply) => {
                let _ = reply.send(self.state.flip_byte(&key, with_digest));
            }
        }
        Ok(())
    }

    fn execute(&mut self, call: Execute, reply: writes::ExecuteReply) {
        if call.ops.iter().all(|op| !op.is_write()) {
            let span = trace::step("partition read", call.trace.as_ref(), self.context.node, self.id);
            let since = self.chases.next_push();
            self.read(Parked::Keys { ops: call.ops, since, reply, span });
            return;
        }
        if let Err(refusal) = self.takes_proposals() {
            reply.send(refusal.answer());
            return;
        }
        // Reads and writes are answered at different times, so the router sends them apart.
        let mut results = Vec::with_capacity(call.ops.len());
        let mut writes = Vec::with_capacity(call.ops.len());
        let refused = self.admit(&call.ops);
        let mut weight = 0;
        for op in call.ops.iter() {
            match (op, &refused) {
                (KeyOp::Write(Write { value: Some(_), .. }), Some(refused)) => {
                    results.push(Some(Err(refused.clone())));
                    continue;
                }
                _ => weight += op.weight(),
            }
            match op {
                KeyOp::Write(write) => {
                    writes.push(write.clone());
                    results.push(None);
                }
                KeyOp::Get { .. } | KeyOp::Exists { .. } => {
                    results
                        .push(Some(Err(Error::invalid("reads and writes of one call must be sent apart"))));
                }
            }
        }
        if writes.is_empty() {
            reply.send(Answer::Done(results.into_iter().flatten().collect()));
            return;
        }
        self.hasten_for(&writes);
        let span = trace::step("partition write", call.trace.as_ref(), self.context.node, self.id);
        self.writes.push(Pending { writes, results, weight, reply, span });
        self.pump();
    }

    /// Why the values among these are not put, for lack of memory. What deletes goes on.
    fn admit(&self, ops: &[KeyOp]) -> Option<Error> {
        let puts = ops.iter().filter(|op| matches!(op, KeyOp::Write(Write { value: Some(_), .. })));
        let (count, bytes) = puts.fold((0, 0), |(count, bytes), put| (count + 1, bytes + put.weight()));
        if count == 0 { None } else { self.context.admit(self.id, count, bytes).err() }
    }

    /// Sends the next batch for its timestamps if one may go.
    fn pump(&mut self) {
        let Some(count) = self.writes.next_grant() else { return };
        let me = self.me.clone();
        let answer: crate::oracle::GrantSink = Box::new(move |grant| {
            // A partition that died meanwhile has dropped the batch with its callers.
            let _ = me.cast(PartitionMessage::Local(LocalPartition::Granted(grant)));
        });
        if let Err(refused) = self.context.oracle(OracleMessage::want(count, answer)) {
            self.granted(Err(refused));
        }
    }

    fn granted(&mut self, grant: Result<Timestamp, Error>) {
        let Some(batch) = self.writes.granted() else { return };
        match (grant, &self.raft) {
            _ if batch.is_empty() => {}
            (Ok(timestamp), Some(raft)) => {
                self.writes.proposing(batch.sequence);
                let floor = timestamp.minus_millis(self.context.config.storage.history_ms);
                let flight = self.flight.clone();
                let proposed = proposing::propose(
                    self.context.clone(),
                    raft.clone(),
                    self.id,
                    self.me.clone(),
                    timestamp,
                    floor,
                    batch,
                );
                tokio::spawn(async move {
                    proposed.await;
                    drop(flight);
                });
            }
            (Err(error), _) => batch.refuse(&Refusal::Failed(error)),
            (Ok(_), None) => batch.refuse(&Refusal::NotLeader(None)),
        }
        self.pump();
        self.settle();
    }

    /// What was waiting for proposals to end: paused transfers and snapshot reads.
    fn settle(&mut self) {
        if !self.pausing.is_empty() && self.writes.is_settled() {
            for reply in self.pausing.drain(..) {
                let _ = reply.send(());
            }
        }
        for parked in self.reads.unblocked(&self.writes) {
            self.read(parked);
        }
    }

    fn resume(&mut self) {
        self.writes.paused = false;
        if let Err(leader) = self.leads() {
            self.writes.refuse_queued(&Refusal::NotLeader(leader));
        }
        for parked in self.reads.take_held() {
            self.read(parked);
        }
        self.pump();
    }

    fn meta(&self, header: trandb_cluster::partition::PartitionHeader) -> StoredMeta {
        StoredMeta { header, log_id: self.applied, membership: self.membership.clone() }
    }

    fn tick(&mut self) {
        self.tend_garbage();
        self.replica.set_live_bytes(self.state.live_bytes());
        self.context.gauges.partition(
            self.id,
            self.state.live_keys(),
            self.state.versions(),
            self.state.bytes(),
            self.writes.queued_bytes(),
        );
        self.tend_transactions();
        self.forget_decided();
        self.send_deferred();
        self.locks_due();
        self.end_idle_loans();
        self.audit();
        self.start_checkpoint_if_due();
    }
}
