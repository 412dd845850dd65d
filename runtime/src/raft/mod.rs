//! Raft, by `openraft`. Only this module names that crate's traits, so that another Raft could take its place.
//!
//! ```text
//!   proposals ──▶ Raft ──append──▶ GroupLog ──records──▶ the node's shared write-ahead log
//!                  │ ▲                                     │ one fdatasync for all groups
//!                  │ └──────────── durable ◀───────────────┘
//!                  ├──▶ PeerNetwork ──RaftMessage──▶ the peers' ReplicaGroup actors
//!                  │        └─ Heartbeats ──BeatsMessage──▶ the same, all groups of a node together
//!                  └──apply──▶ StateMachine ──▶ Applier: the actor that owns the state
//! ```
//!
//! - [`GroupLog`] is one group's view of the shared log: an index over it with the recent entries in memory.
//! - [`StateMachine`] hands committed entries to whoever owns the state and waits for the results.
//! - [`PeerNetwork`] turns Raft's calls into messages to the same group's actor on another node; [`Heartbeats`] puts those
//!   that carry nothing together, or an idle node would be busy with them, and [`Snapshots`] says when a state is sent.
//!
//! Caveats. Leases assume that clocks of different nodes run at nearly the same speed (not that they agree):
//! [`LEASE_MARGIN_PERCENT`] is what a leader gives away for it. A restarted node has forgotten which leases it
//! granted, so the group's actor keeps it from voting for one full lease after start.

mod beats;
mod codec;
mod commits;
mod lease;
mod log;
mod machine;
mod message;
mod network;
mod snapshots;
mod types;
pub mod witness;

pub use beats::{BEATS_ACTOR, Beat, BeatsAnswer, BeatsCall, BeatsMessage, Heartbeats};
pub use codec::{decode_command, decode_entry, encode_entry};
pub use lease::{GivenAway, heard_within, lease_valid};
pub use log::{GroupLog, LogSink, log_id};
pub use machine::{Applier, ChunkSource, OpenSnapshot, SnapshotData, StateMachine};
pub use message::{AppendCall, LocalRaft, RaftMessage, SnapshotPart, TransferCall, VoteCall};
pub use network::{PeerNetwork, Reverted, SNAPSHOT_RESUME_MAX};
pub use snapshots::Snapshots;
pub use types::{
    CommittedEntry, EntryBody, LogApplied, LogId, Membership, Proposal, Raft, RaftMetrics, StoredMembership,
    TypeConfig, Vote, members, raft_config, unfinished, voters,
};

/// The parts of openraft's vocabulary that actors speak.
pub use openraft::async_runtime::watch::WatchReceiver;
pub use openraft::errors::{ClientWriteError, RaftError};
pub use openraft::raft::{
    ReadPolicy, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse, VoteResponse,
};
pub use openraft::{ChangeMembers, EntryPayload, ServerState, Snapshot, SnapshotMeta};

/// How much of a lease its holder does not use, in percent: the rate by which clocks may drift apart.
pub const LEASE_MARGIN_PERCENT: u32 = 10;
