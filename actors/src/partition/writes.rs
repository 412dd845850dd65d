//! Writes on their way into the log: gathered, stamped, proposed, answered.
//!
//! While a batch waits for its timestamps or its proposals are in flight, the next one gathers; so batches
//! grow with load and nothing waits when idle.

use super::is_cut_off;
use super::message::{Answer, LocalPartition, PartitionMessage};
use crate::context::NodeContext;
use bytes::Bytes;
use ractor::ActorRef;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use tokio::time::Instant;
use tracing::{Instrument, Span};
use trandb_cluster::command::{Applied, Command, Write, WriteBatch};
use trandb_cluster::limits::{BATCH_BYTES_MAX, BATCH_WRITES_MAX};
use trandb_cluster::wire::{self, KeyResult};
use trandb_cluster::{Error, NodeId, PartitionId, Timestamp};
use trandb_runtime::raft::{ClientWriteError, RaftError};
use trandb_runtime::raft::{LogApplied, Proposal, Raft};
use trandb_runtime::rpc::Reply;
use trandb_runtime::telemetry::child_span;

/// Proposals of one partition in flight at once. More would only make batches smaller: the log and the
/// network are busy with these.
const PROPOSALS_IN_FLIGHT_MAX: usize = 4;

/// Bytes of writes that wait for their proposal in one partition; beyond it writers are told `overloaded`.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// What names and lengths add to a write, or to a batch, when it is encoded.
const ENCODED_OVERHEAD_BYTES: usize = 64;

/// The reply type of an execute call.
pub(super) type ExecuteReply = Reply<Answer<Vec<Result<KeyResult, Error>>>>;

/// One caller's operations: its writes, and the results that its reads already have.
#[derive(Debug)]
pub(super) struct Pending {
    /// In the order of the call, without the reads.
    pub(super) writes: Vec<Write>,
    /// The results of the call; none where a write's outcome goes.
    pub(super) results: Vec<Option<Result<KeyResult, Error>>>,
    pub(super) weight: usize,
    pub(super) reply: ExecuteReply,
    /// Ends with the answer.
    pub(super) span: Span,
}

impl Pending {
    fn answer(self, outcomes: &mut impl Iterator<Item = trandb_cluster::command::WriteOutcome>) {
        let results =
            self.results
                .into_iter()
                .map(|result| match result {
                    Some(result) => result,
                    None => outcomes.next().map(KeyResult::Write).ok_or_else(|| {
                        Error::internal("apply answered fewer outcomes than there were writes")
                    }),
                })
                .collect();
        self.reply.send(Answer::Done(results));
    }
}

/// Callers whose writes go into one log entry.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "part of the mailbox, which is public")]
pub struct Batch {
    pub(super) sequence: u64,
    pub(super) callers: Vec<Pending>,
}

impl Batch {
    fn writes(&self) -> usize {
        self.callers.iter().map(|caller| caller.writes.len()).sum()
    }

    /// What replicating it is in a trace: a step of the first caller that is traced.
    fn proposal_span(&self) -> Span {
        match self.callers.iter().find(|caller| !caller.span.is_none()) {
            Some(caller) => caller.span.in_scope(|| child_span("replicate")),
            None => Span::none(),
        }
    }

    pub(super) fn refuse(self, answer: &Answer<Vec<Result<KeyResult, Error>>>) {
        for caller in self.callers {
            caller.reply.send(answer.clone());
        }
    }
}

/// A partition's writes that are not applied yet.
#[derive(Debug, Default)]
pub(super) struct Writes {
    queue: VecDeque<Pending>,
    queued_bytes: usize,
    granting: Option<Batch>,
    in_flight: BTreeSet<u64>,
    next_sequence: u64,
    /// Nothing leaves the queue.
    pub(super) paused: bool,
}

impl Writes {
    /// Queues a call, or refuses it when the queue is full.
    pub(super) fn push(&mut self, pending: Pending) {
        if self.queued_bytes + pending.weight > QUEUE_BYTES_MAX && !self.queue.is_empty() {
            let error = Error::overloaded(format!(
                "{} MiB of writes wait in this partition, the limit",
                QUEUE_BYTES_MAX >> 20
            ));
            pending.reply.send(Answer::Failed(error));
            return;
        }
        self.queued_bytes += pending.weight;
        self.queue.push_back(pending);
    }

    /// Bytes that wait.
    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Whether nothing has a timestamp or may be getting one.
    pub(super) fn is_settled(&self) -> bool {
        self.granting.is_none() && self.in_flight.is_empty()
    }

    /// Proposals with a sequence below this may have timestamps already.
    pub(super) fn horizon(&self) -> u64 {
        self.next_sequence
    }

    /// Whether every proposal below `horizon` has ended.
    pub(super) fn settled_below(&self, horizon: u64) -> bool {
        self.granting.as_ref().is_none_or(|batch| batch.sequence >= horizon)
            && self.in_flight.first().is_none_or(|&first| first >= horizon)
    }

    /// Closes the next batch if one may go; answers how many timestamps it needs.
    pub(super) fn next_grant(&mut self) -> Option<u64> {
        if self.paused
            || self.granting.is_some()
            || self.queue.is_empty()
            || self.in_flight.len() >= PROPOSALS_IN_FLIGHT_MAX
        {
            return None;
        }
        let mut callers: Vec<Pending> = Vec::new();
        let (mut writes, mut bytes) = (0, 0);
        while let Some(next) = self.queue.front() {
            let full = writes + next.writes.len() > BATCH_WRITES_MAX || bytes + next.weight > BATCH_BYTES_MAX;
            if full && !callers.is_empty() {
                break;
            }
            let next = self.queue.pop_front().expect("just seen");
            writes += next.writes.len();
            bytes += next.weight;
            self.queued_bytes -= next.weight;
            callers.push(next);
        }
        let batch = Batch { sequence: self.next_sequence, callers };
        self.next_sequence += 1;
        let count = batch.writes() as u64;
        self.granting = Some(batch);
        Some(count)
    }

    /// The batch that its timestamps have come for.
    pub(super) fn granted(&mut self) -> Option<Batch> {
        self.granting.take()
    }

    pub(super) fn proposing(&mut self, sequence: u64) {
        self.in_flight.insert(sequence);
    }

    /// A proposal has ended; a batch that came back is the next to go.
    pub(super) fn ended(&mut self, sequence: u64, again: Option<Batch>) {
        self.in_flight.remove(&sequence);
        for caller in again.into_iter().flat_map(|batch| batch.callers).rev() {
            self.queued_bytes += caller.weight;
            self.queue.push_front(caller);
        }
    }

    /// Refuses everything that has no timestamp yet, so surely is not done.
    pub(super) fn refuse_queued(&mut self, answer: &Answer<Vec<Result<KeyResult, Error>>>) {
        self.queued_bytes = 0;
        for pending in self.queue.drain(..) {
            pending.reply.send(answer.clone());
        }
    }
}

/// Proposes a batch and answers its callers when it is applied. Runs outside the actor and holds the
/// callers' reply ports, so it answers even if the actor dies meanwhile.
pub(super) async fn propose(
    context: Arc<NodeContext>,
    raft: Raft,
    partition: PartitionId,
    actor: ActorRef<PartitionMessage>,
    timestamp: Timestamp,
    gc_floor: Timestamp,
    batch: Batch,
) {
    let sequence = batch.sequence;
    let again = propose_batch(&context, &raft, partition, timestamp, gc_floor, batch).await;
    // An actor that is gone has no use for it; the one after it starts with nothing in flight.
    let _ = actor.cast(PartitionMessage::Local(LocalPartition::Proposed { sequence, again }));
}

async fn propose_batch(
    context: &NodeContext,
    raft: &Raft,
    partition: PartitionId,
    timestamp: Timestamp,
    gc_floor: Timestamp,
    batch: Batch,
) -> Option<Batch> {
    let writes: Vec<_> = batch.callers.iter().flat_map(|caller| caller.writes.iter().cloned()).collect();
    let bytes = writes.iter().map(|write| write.weight() + ENCODED_OVERHEAD_BYTES).sum::<usize>();
    let command = Command::Write(WriteBatch { timestamp, gc_floor, writes });
    let proposal = Proposal(Bytes::from(wire::encode_sized(&command, bytes + ENCODED_OVERHEAD_BYTES)));
    drop(command);
    let began = Instant::now();
    // A leader that is cut off never hears of its proposal's end; its caller is told that much.
    let proposed = {
        let proposing = raft.client_write(proposal).instrument(batch.proposal_span());
        tokio::pin!(proposing);
        loop {
            match tokio::time::timeout(context.lease() / 2, &mut proposing).await {
                Ok(proposed) => break proposed,
                Err(_) if is_cut_off(raft, context.lease()) => {
                    let error = format!("{partition} lost touch with its other replicas during the write");
                    batch.refuse(&Answer::Failed(Error::unknown(error)));
                    return None;
                }
                Err(_) => {}
            }
        }
    };
    if proposed.is_ok() {
        context.gauges.proposed(batch.writes(), began.elapsed());
    }
    match proposed {
        Ok(response) => match response.data {
            LogApplied::Data(Applied::Writes(outcomes)) => {
                let mut outcomes = outcomes.into_iter();
                for caller in batch.callers {
                    caller.answer(&mut outcomes);
                }
                None
            }
            LogApplied::Data(Applied::StaleTimestamp(last)) => {
                tracing::debug!(%partition, %timestamp, %last, "a batch came late and is stamped again");
                Some(batch)
            }
            other => {
                let error = Error::internal(format!("a write was answered with {other:?}"));
                batch.refuse(&Answer::Failed(error));
                None
            }
        },
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
            batch.refuse(&Answer::NotLeader { leader: forward.leader_id.map(NodeId) });
            None
        }
        Err(RaftError::APIError(error)) => {
            let error =
                Error::unknown(format!("the leader of {partition} changed during the write: {error}"));
            batch.refuse(&Answer::Failed(error));
            None
        }
        Err(RaftError::Fatal(error)) => {
            let error =
                Error::unknown(format!("the replica of {partition} stopped during the write: {error}"));
            batch.refuse(&Answer::Failed(error));
            None
        }
    }
}
