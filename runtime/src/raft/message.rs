//! What Raft says to the same group on another node, and the mailbox of the actor that hears it.

use super::types::{LogId, StoredMembership, TypeConfig, Vote};
use crate::rpc::Reply;
use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderResponse, VoteRequest,
    VoteResponse,
};
use serde::{Deserialize, Serialize};
use trandb_cluster::{Epoch, NodeId};

/// The mailbox of a replica group's actor. The variants with a reply may come from a peer; the others are
/// local.
#[derive(Debug)]
pub enum RaftMessage {
    /// The leader replicates entries, or says that it is alive.
    Append(AppendCall, Reply<Result<AppendEntriesResponse<TypeConfig>, String>>),
    /// A candidate asks for a vote, or (pre-vote) whether it would get one.
    Vote(VoteCall, Reply<Result<VoteResponse<TypeConfig>, String>>),
    /// The leader wants this node, or another one, to take over.
    Transfer(TransferCall, Reply<Result<TransferLeaderResponse<TypeConfig>, String>>),
    /// A part of a snapshot.
    Snapshot(SnapshotPart, Reply<Result<Option<SnapshotResponse<TypeConfig>>, String>>),
    /// Local: what this node wants of its member of the group.
    Local(LocalRaft),
}

crate::wire_message! {
    RaftMessage {
        call Append(AppendCall);
        call Vote(VoteCall);
        call Transfer(TransferCall);
        call Snapshot(SnapshotPart);
    }
}

/// An append-entries call.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AppendCall(pub AppendEntriesRequest<TypeConfig>);

/// A vote call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VoteCall {
    /// What Raft asks.
    pub request: VoteRequest<TypeConfig>,
    /// Only asks whether the vote would be granted; nothing is recorded.
    pub pre: bool,
}

/// A leadership transfer call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TransferCall {
    /// The leader that gives up.
    pub from: Vote,
    /// Who should lead.
    pub to: u64,
    /// The leader's last entry: whoever lacks it must not take over.
    pub last_log_id: Option<LogId>,
}

/// A part of a snapshot, in order; the answer to the last one is the snapshot's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SnapshotPart {
    /// Tells transfers apart; a part of an older one is refused.
    pub transfer: u64,
    /// Counts from zero.
    pub sequence: u64,
    /// The sending leader.
    pub vote: Vote,
    /// The last entry that the snapshot covers.
    pub last_log_id: Option<LogId>,
    /// The membership as of that entry.
    pub membership: StoredMembership,
    /// What the applier's own source produced: opaque here.
    pub data: Bytes,
    /// Nothing follows.
    pub last: bool,
}

/// What a node asks of its own member of a group.
#[derive(Debug)]
pub enum LocalRaft {
    /// A peer's link broke or went silent: if it led this group, elect another leader.
    PeerLost(NodeId),
    /// A peer's link is there: if it votes and no leader was found since one was lost, try again with it.
    PeerFound(NodeId),
    /// A checkpoint was committed: entries up to the one before it may go.
    Checkpointed,
    /// Make the group's members these, learners first; answers when it is done or cannot be.
    Reconfigure {
        /// Which map wants that.
        map: Epoch,
        /// Voters, exactly.
        voters: Vec<NodeId>,
        /// Further members that only follow.
        learners: Vec<NodeId>,
        /// Done, or why not.
        reply: ractor::RpcReplyPort<Result<(), String>>,
    },
    /// Hand leadership to this node, once nothing is in flight.
    TransferTo(NodeId, ractor::RpcReplyPort<Result<(), String>>),
    /// Looks at the group's state: leases that ran out, leaders that changed.
    Tick,
}
