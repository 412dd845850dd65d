//! The mailbox of a partition's actor.

use super::lend::{LendAnswer, LendCall};
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::sync::Arc;
use trandb_cluster::audit::{Fault, Report};
use trandb_cluster::digest::Digest;
use trandb_cluster::mvcc::StoredVersion;
use trandb_cluster::partition::{PartitionHeader, SnapshotCursor};
use trandb_cluster::txn::{TxnApplied, TxnStep};
use trandb_cluster::wire::{KeyOp, KeyResult, RangePage, RangeScan, TraceContext};
use trandb_cluster::{EncodedKey, Error, NodeId, Timestamp, TxnId};
use trandb_runtime::raft::{CommittedEntry, LogApplied, LogId, Raft, StoredMembership};
use trandb_runtime::rpc::Reply;

/// What a partition's actor is sent. All but the last may come from a peer.
#[derive(Debug)]
pub enum PartitionMessage {
    /// Operations on keys of this partition; answered when all are done.
    Execute(Execute, Reply<Answer<Vec<Result<KeyResult, Error>>>>),
    /// This partition's part of a scan.
    Scan(ScanCall, Reply<Answer<RangePage>>),
    /// A step of a transaction; answered when it is applied.
    Txn(TxnCall, Reply<Answer<TxnApplied>>),
    /// What a transaction asks about key locks.
    Lock(LockCall, Reply<Answer<LockAnswer>>),
    /// The state's digest, at any replica.
    Digest(DigestCall, Reply<DigestReply>),
    /// The replica on that node says to its leader that it is wrong.
    Doubt(NodeId, Reply<()>),
    /// The leader has found this replica wrong.
    Suspect(SuspectCall, Reply<()>),
    /// Another replica, which is wrong, borrows the state of this one.
    Lend(LendCall, Reply<Result<LendAnswer, String>>),
    /// From this node only.
    Local(LocalPartition),
}

trandb_runtime::wire_message! {
    PartitionMessage {
        call Execute(Execute);
        call Scan(ScanCall);
        call Txn(TxnCall);
        call Lock(LockCall);
        call Digest(DigestCall);
        call Doubt(NodeId);
        call Suspect(SuspectCall);
        call Lend(LendCall);
    }
}

/// Operations that one session sends to one partition together.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Execute {
    /// In any order; results come in the same. Shared, since a misdirected call is sent again.
    pub ops: Arc<Vec<KeyOp>>,
    /// The span that asked; of the first one where several were batched.
    #[serde(default)]
    pub trace: Option<TraceContext>,
}

/// A scan of one partition.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScanCall {
    /// What to read.
    pub scan: RangeScan,
    /// The span that asked.
    #[serde(default)]
    pub trace: Option<TraceContext>,
}

/// A step of a transaction in one partition.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TxnCall {
    /// Shared, since a misdirected call is sent again.
    pub step: Arc<TxnStep>,
    /// The span that asked.
    #[serde(default)]
    pub trace: Option<TraceContext>,
}

/// What a transaction asks about key locks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LockCall {
    /// The transaction.
    pub txn: TxnId,
    /// What it asks.
    pub ask: LockAsk,
}

/// See [`LockCall`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum LockAsk {
    /// A key's lock.
    Lock {
        /// The key.
        key: EncodedKey,
        /// How long to wait for it.
        within_ms: u64,
    },
    /// Wait for a key's lock no more.
    GiveUp {
        /// The key.
        key: EncodedKey,
    },
    /// Let go of all.
    Release,
    /// Its coordinator is alive.
    Keep,
}

/// What a [`LockCall`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockAnswer {
    /// The lock is held.
    Granted,
    /// It was not got in time.
    TimedOut {
        /// Who holds it.
        holder: TxnId,
    },
    /// Done.
    Done,
}

/// What a leader answers, or where to ask instead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer<T> {
    /// Done.
    Done(T),
    /// Surely not done: this replica does not lead, or may not just now.
    NotLeader {
        /// Who does, as far as this replica knows.
        leader: Option<NodeId>,
    },
    /// Surely not done: this replica leads but has heard from no majority for so long that another may lead elsewhere,
    /// or its node has no room to write. To ask it again soon is of no use.
    CutOff(Error),
    /// Not done (or, with the code `unknown`, perhaps done), and why.
    Failed(Error),
}

/// Asks for a digest.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct DigestCall {
    /// At this log index; none means at the last applied one.
    pub at: Option<u64>,
}

/// A replica's digest.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct DigestReply {
    /// The last index applied.
    pub applied: u64,
    /// Digest and live keys at the index asked for; none when it is ahead of this replica or forgotten.
    pub digest: Option<(Digest, u64)>,
    /// Its memory is what was written, as far as it has been walked, and it was not found wrong otherwise.
    pub sound: bool,
}

/// Tells a replica that it is wrong.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SuspectCall {
    /// The log index at which it was found so.
    pub index: u64,
    /// How.
    pub fault: Fault,
    /// Nodes whose replicas are right.
    pub lenders: Vec<NodeId>,
}

/// What a node asks of its own partition actor.
#[derive(Debug)]
pub enum LocalPartition {
    /// The group's Raft has started.
    Attach(Raft),
    /// Raft committed these; answers one result each.
    Apply(Arc<Vec<CommittedEntry>>, ractor::RpcReplyPort<Vec<LogApplied>>),
    /// Read what it may without being the leader.
    Past(super::past::Past),
    /// Which entry was applied last, and the membership as of it.
    Applied(ractor::RpcReplyPort<(Option<LogId>, StoredMembership)>),
    /// The oracle's answer for the batch that waits for it.
    Granted(Result<Timestamp, Error>),
    /// A proposal has ended. What is still to be done of it comes back.
    Proposed {
        /// Which.
        sequence: u64,
        /// What is left.
        rest: super::proposing::Rest,
    },
    /// A push has ended: what became of a transaction that stands in the way.
    Chased {
        /// The transaction.
        txn: TxnId,
        /// Which push.
        push: u64,
        /// What its anchor answered.
        answer: Result<TxnApplied, Error>,
    },
    /// The time of some wait for a lock may be over.
    LocksDue,
    /// Look again after a transaction that stands in the way of writes.
    ChaseAgain(TxnId),
    /// Steps that were put off have waited long enough.
    DeferredDue,
    /// The other partitions of a commit were told, or not.
    Finished(TxnId),
    /// This replica leads but has heard from no majority for too long, or cannot write: what waits here is refused.
    CutOff,
    /// The read-index round has ended: whether this replica leads.
    Confirmed(bool),
    /// Stop answering and proposing; reply once nothing is in flight. For a leadership transfer.
    Pause(ractor::RpcReplyPort<()>),
    /// Go on after a pause.
    Resume,
    /// Freeze the current state for a snapshot.
    OpenSnapshot(ractor::RpcReplyPort<Option<(PartitionHeader, LogId, StoredMembership)>>),
    /// The versions of a frozen state after a key.
    SnapshotChunk {
        /// The frozen state's log index.
        index: u64,
        /// Resume after this key.
        after: Option<SnapshotCursor>,
        /// Versions, and where to resume; none when all were handed out.
        reply: ractor::RpcReplyPort<(Vec<StoredVersion>, Option<SnapshotCursor>)>,
    },
    /// A frozen state is not needed any more.
    CloseSnapshot(u64),
    /// Replace the state by a received one; answers when it is durable.
    Install {
        /// The entry that it covers.
        last: Option<LogId>,
        /// The membership as of it.
        membership: StoredMembership,
        /// A `PartitionState`.
        state: Box<dyn Any + Send>,
        /// Durable, or why not.
        reply: ractor::RpcReplyPort<std::io::Result<()>>,
    },
    /// Go on with the walk over the memory.
    Walk,
    /// What replicas say of themselves at a log index.
    Reported {
        /// The index.
        index: u64,
        /// The voters that were asked.
        voters: Vec<NodeId>,
        /// What those said that answered.
        reports: Vec<Report>,
    },
    /// An attempt to borrow another replica's state has ended.
    Borrowed(u64, Result<Box<super::rebuild::Borrowed>, String>),
    /// The state of an attempt that succeeded is durable, or cannot be made so.
    Rebuilt(u64, std::io::Result<()>),
    /// Time has passed: checkpoints, garbage collection, gauges.
    Tick,
    /// Forget more of the past.
    Collect,
    /// Write a checkpoint now, if there is anything to write.
    Checkpoint,
    /// What a checkpoint that is being written needs next.
    CheckpointStep(CheckpointStep),
    /// Die, to see the supervisor rebuild it. Exists in debug builds only.
    #[cfg(debug_assertions)]
    Panic,
    /// Change a byte of a key's value in memory, the digest along with it or not, and say whether there was one. Exists in
    /// debug builds only.
    #[cfg(debug_assertions)]
    Flip(EncodedKey, bool, ractor::RpcReplyPort<bool>),
}

/// What a checkpoint that is being written asks of its partition, in this order. Each takes less than a millisecond, whatever
/// the partition holds. A run that a received snapshot has overtaken gets no answer, which ends it.
#[derive(Debug)]
pub enum CheckpointStep {
    /// Begin: the run and its encoded meta, or none when there is nothing to write.
    Begin(ractor::RpcReplyPort<Option<(u64, bytes::Bytes)>>),
    /// The next versions to write; none when all were handed out.
    Puts(u64, ractor::RpcReplyPort<Option<Vec<StoredVersion>>>),
    /// The run was committed, or was not. Answers keys that the run has no more use for, to be dropped elsewhere.
    End(u64, bool, ractor::RpcReplyPort<Vec<EncodedKey>>),
    /// The next records that are not needed any more; when there are none, the run is over.
    Removes(u64, ractor::RpcReplyPort<Vec<(EncodedKey, Timestamp)>>),
}
