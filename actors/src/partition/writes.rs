//! Writes on their way into the log: gathered, stamped, handed to whoever proposes them.
//!
//! While a batch waits for its timestamps or its proposals are in flight, the next one gathers; so batches
//! grow with load and nothing waits when idle.

use super::deferred::Deferred;
use super::message::Answer;
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
use tracing::Span;
use trandb_cluster::command::{Command, Write, WriteBatch, WriteOutcome};
use trandb_cluster::limits::{BATCH_BYTES_MAX, BATCH_WRITES_MAX};
use trandb_cluster::txn::{Blocker, TxnApplied, TxnEntry, TxnStep};
use trandb_cluster::wire::{self, KeyResult};
use trandb_cluster::{Error, NodeId, Timestamp};
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
    pub(super) fn refuse(self, refusal: &Refusal) {
        self.reply.send(refusal.answer());
    }

    /// Takes the outcomes of its writes and answers, unless a transaction stands in the way of some: then it comes back
    /// with these alone.
    pub(super) fn answer(
        mut self,
        outcomes: &mut impl Iterator<Item = WriteOutcome>,
    ) -> Option<(Blocker, Self)> {
        let mut writes = std::mem::take(&mut self.writes).into_iter();
        let mut blocker = None;
        for result in self.results.iter_mut().filter(|result| result.is_none()) {
            let write = writes.next();
            *result = match (outcomes.next(), write) {
                (Some(WriteOutcome::Blocked(by)), Some(write)) => {
                    blocker = Some(by);
                    self.writes.push(write);
                    continue;
                }
                (Some(outcome), _) => Some(Ok(KeyResult::Write(outcome))),
                (None, _) => {
                    Some(Err(Error::internal("apply answered fewer outcomes than there were writes")))
                }
            };
        }
        if let Some(blocker) = blocker {
            self.weight = self.writes.iter().map(Write::weight).sum();
            return Some((blocker, self));
        }
        self.reply.send(Answer::Done(self.results.into_iter().flatten().collect()));
        None
    }
}

/// A step of a transaction on its way.
#[derive(Debug)]
pub(super) struct PendingStep {
    pub(super) step: TxnStep,
    /// None where nobody waits for it.
    pub(super) reply: Option<Reply<Answer<TxnApplied>>>,
    pub(super) span: Span,
}

impl PendingStep {
    pub(super) fn answer(self, answer: Answer<TxnApplied>) {
        if let Some(reply) = self.reply {
            reply.send(answer);
        }
    }
}

/// What waits for its turn.
#[derive(Debug)]
enum Queued {
    Writes(Pending),
    Step(PendingStep),
}

impl Queued {
    fn weight(&self) -> usize {
        match self {
            Self::Writes(pending) => pending.weight,
            Self::Step(pending) => pending.step.weight(),
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Writes(pending) => pending.writes.len(),
            Self::Step(_) => 1,
        }
    }

    fn refuse(self, refusal: &Refusal) {
        match self {
            Self::Writes(pending) => pending.refuse(refusal),
            Self::Step(pending) => pending.answer(refusal.answer()),
        }
    }
}

/// Why something was surely not done, or (with the code `unknown`) perhaps not.
#[derive(Debug, Clone)]
pub(super) enum Refusal {
    NotLeader(Option<NodeId>),
    CutOff(Error),
    Failed(Error),
}

impl Refusal {
    pub(super) fn answer<T>(&self) -> Answer<T> {
        match self {
            Self::NotLeader(leader) => Answer::NotLeader { leader: *leader },
            Self::CutOff(error) => Answer::CutOff(error.clone()),
            Self::Failed(error) => Answer::Failed(error.clone()),
        }
    }
}

/// Callers whose writes, or whose steps of transactions, go into one log entry.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "part of the mailbox, which is public")]
pub struct Batch {
    pub(super) sequence: u64,
    pub(super) work: Work,
}

#[derive(Debug)]
pub(super) enum Work {
    Writes(Vec<Pending>),
    Steps(Vec<PendingStep>),
    /// Nothing, for nobody, but that the GC floor moves.
    Floor,
}

impl Batch {
    /// The timestamps that it needs.
    pub(super) fn count(&self) -> usize {
        match &self.work {
            Work::Writes(callers) => callers.iter().map(|caller| caller.writes.len()).sum(),
            Work::Steps(steps) => steps.len(),
            Work::Floor => 1,
        }
    }

    /// What replicating it is in a trace: a step of the first caller that is traced.
    pub(super) fn proposal_span(&self) -> Span {
        let traced = match &self.work {
            Work::Writes(callers) => callers.iter().map(|caller| &caller.span).find(|span| !span.is_none()),
            Work::Steps(steps) => steps.iter().map(|step| &step.span).find(|span| !span.is_none()),
            Work::Floor => None,
        };
        match traced {
            Some(span) => span.in_scope(|| child_span("replicate")),
            None => Span::none(),
        }
    }

    /// The log entry, encoded.
    pub(super) fn encode(&self, timestamp: Timestamp, gc_floor: Timestamp) -> Bytes {
        let (command, bytes) = match &self.work {
            Work::Writes(callers) => {
                let writes: Vec<_> =
                    callers.iter().flat_map(|caller| caller.writes.iter().cloned()).collect();
                let bytes: usize = writes.iter().map(|write| write.weight() + ENCODED_OVERHEAD_BYTES).sum();
                (Command::Write(WriteBatch { timestamp, gc_floor, writes }), bytes)
            }
            Work::Steps(steps) => {
                let steps: Vec<_> = steps.iter().map(|pending| pending.step.clone()).collect();
                let bytes: usize = steps.iter().map(|step| step.weight() + ENCODED_OVERHEAD_BYTES).sum();
                (Command::Txn(TxnEntry { timestamp, gc_floor, steps }), bytes)
            }
            Work::Floor => (Command::Write(WriteBatch { timestamp, gc_floor, writes: Vec::new() }), 0),
        };
        Bytes::from(wire::encode_sized(&command, bytes + ENCODED_OVERHEAD_BYTES))
    }

    /// Whether its callers were refused meanwhile.
    pub(super) fn is_empty(&self) -> bool {
        self.count() == 0
    }

    pub(super) fn refuse(self, refusal: &Refusal) {
        for queued in self.into_queued() {
            queued.refuse(refusal);
        }
    }

    fn into_queued(self) -> Vec<Queued> {
        match self.work {
            Work::Writes(callers) => callers.into_iter().map(Queued::Writes).collect(),
            Work::Steps(steps) => steps.into_iter().map(Queued::Step).collect(),
            // Asked for again if it is still wanted.
            Work::Floor => Vec::new(),
        }
    }
}

/// A partition's writes that are not applied yet.
#[derive(Debug, Default)]
pub(super) struct Writes {
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    granting: Option<Batch>,
    in_flight: BTreeSet<u64>,
    next_sequence: u64,
    /// They go before other steps.
    pub(super) deferred: Deferred,
    /// Nothing leaves the queue.
    pub(super) paused: bool,
    /// An entry is wanted that moves the GC floor, should nothing else do so.
    floor: bool,
}

impl Writes {
    /// Queues a call, or refuses it when the queue is full.
    pub(super) fn push(&mut self, pending: Pending) {
        self.enqueue(Queued::Writes(pending));
    }

    /// Queues a step of a transaction, or refuses it when the queue is full.
    pub(super) fn push_step(&mut self, pending: PendingStep) {
        self.enqueue(Queued::Step(pending));
    }

    /// Queues all deferred steps.
    pub(super) fn push_deferred(&mut self) {
        for pending in self.deferred.take(usize::MAX, usize::MAX) {
            self.push_step(pending);
        }
    }

    fn enqueue(&mut self, queued: Queued) {
        if self.queued_bytes + queued.weight() > QUEUE_BYTES_MAX && !self.queue.is_empty() {
            let limit = QUEUE_BYTES_MAX >> 20;
            let error = Error::overloaded(format!("{limit} MiB of writes wait in this partition, the limit"));
            queued.refuse(&Refusal::Failed(error));
            return;
        }
        self.queued_bytes += queued.weight();
        self.queue.push_back(queued);
    }

    /// Whether nothing waits, nor is on its way into the log.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.is_settled() && !self.paused
    }

    /// Has the next batch, be it empty, move the GC floor.
    pub(super) fn move_floor(&mut self) {
        self.floor = true;
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
        if self.paused || self.granting.is_some() || self.in_flight.len() >= PROPOSALS_IN_FLIGHT_MAX {
            return None;
        }
        let floor = std::mem::take(&mut self.floor);
        let mut work = match self.queue.front() {
            Some(Queued::Writes(_)) => Work::Writes(Vec::new()),
            Some(Queued::Step(_)) => Work::Steps(Vec::new()),
            None if floor => Work::Floor,
            None => return None,
        };
        let (mut count, mut bytes) = (0, 0);
        if let Work::Steps(steps) = &mut work {
            *steps = self.deferred.take(BATCH_WRITES_MAX, BATCH_BYTES_MAX);
            count = steps.len();
            bytes = steps.iter().map(|pending| pending.step.weight()).sum();
        }
        while let Some(next) = self.queue.front() {
            let full = count + next.count() > BATCH_WRITES_MAX || bytes + next.weight() > BATCH_BYTES_MAX;
            if full && count > 0 {
                break;
            }
            match (&work, next) {
                (Work::Writes(_), Queued::Writes(_)) | (Work::Steps(_), Queued::Step(_)) => {}
                _ => break,
            }
            let next = self.queue.pop_front()?;
            count += next.count();
            bytes += next.weight();
            self.queued_bytes -= next.weight();
            match (&mut work, next) {
                (Work::Writes(callers), Queued::Writes(pending)) => callers.push(pending),
                (Work::Steps(steps), Queued::Step(pending)) => steps.push(pending),
                _ => unreachable!("their kinds were just compared"),
            }
        }
        let batch = Batch { sequence: self.next_sequence, work };
        self.next_sequence += 1;
        let count = batch.count() as u64;
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
        for queued in again.into_iter().flat_map(Batch::into_queued).rev() {
            self.queued_bytes += queued.weight();
            self.queue.push_front(queued);
        }
    }

    /// Refuses everything that has no timestamp yet, so surely is not done. What timestamps were asked for stays as an
    /// empty batch, to which they will be answered.
    pub(super) fn refuse_unstamped(&mut self, refusal: &Refusal) {
        if let Some(batch) = &mut self.granting {
            let nobody = match &batch.work {
                Work::Writes(_) | Work::Floor => Work::Writes(Vec::new()),
                Work::Steps(_) => Work::Steps(Vec::new()),
            };
            let work = std::mem::replace(&mut batch.work, nobody);
            Batch { sequence: batch.sequence, work }.refuse(refusal);
        }
        self.refuse_queued(refusal);
    }

    /// Refuses everything that is in no batch yet.
    pub(super) fn refuse_queued(&mut self, refusal: &Refusal) {
        self.queued_bytes = 0;
        for queued in self.queue.drain(..) {
            queued.refuse(refusal);
        }
        for pending in self.deferred.take(usize::MAX, usize::MAX) {
            pending.answer(refusal.answer());
        }
    }
}
