//! The names that the rest of the project uses for Raft's types.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use trandb_cluster::command::Applied;
use trandb_cluster::placement::Members;
use trandb_cluster::system::SystemApplied;
use trandb_cluster::{NodeId, PartitionId};

openraft::declare_raft_types!(
    /// One Raft for all groups: entries are opaque bytes, nodes are found by the partition map.
    pub TypeConfig:
        D = Proposal,
        R = LogApplied,
        NodeId = u64,
        Node = (),
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
);

/// A group's Raft handle.
pub type Raft = openraft::Raft<TypeConfig, super::StateMachine>;
/// What a Raft says about itself.
pub type RaftMetrics = openraft::RaftMetrics<TypeConfig>;
/// Term and index of an entry.
pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// Term, candidate, and whether a quorum granted it: Raft's hard state.
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// A membership and the entry that set it.
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
/// Voters and learners.
pub type Membership = openraft::Membership<u64, ()>;

/// An encoded command: `trandb_cluster::command::Command` in a data partition, `SystemCommand` in the system
/// group.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Proposal(#[serde(with = "trandb_cluster::shared")] pub Bytes);

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying an entry answered. It never leaves the node; Raft's types ask for it to be serializable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogApplied {
    /// Blank and membership entries.
    Nothing,
    /// A data partition's command.
    Data(Applied),
    /// A system command.
    System(SystemApplied),
}

/// A committed entry on its way to the state.
#[derive(Debug, Clone)]
pub struct CommittedEntry {
    /// Its place in the log.
    pub log_id: LogId,
    /// What it holds.
    pub body: EntryBody,
}

/// What a log entry holds.
#[derive(Debug, Clone)]
pub enum EntryBody {
    /// A new leader's first entry.
    Blank,
    /// An encoded command.
    Command(Bytes),
    /// A new membership.
    Membership(Membership),
}

/// Entries are purged in batches of this many, or of as many as are kept if those are fewer.
const PURGE_BATCH: u64 = 256;

/// Raft's settings for one group.
///
/// Heartbeats, elections and leases come from the node's configuration. The rest is fixed: snapshots are
/// taken when a checkpoint was written, never by log length; a follower gets a snapshot only when the
/// entries that it misses are gone.
///
/// # Panics
/// When the timings contradict each other, which validating the configuration rules out.
pub fn raft_config(
    group: PartitionId,
    heartbeat_ms: u64,
    election_min_ms: u64,
    election_max_ms: u64,
    kept_entries: u64,
) -> Arc<openraft::Config> {
    let config = openraft::Config {
        cluster_name: group.to_string(),
        heartbeat_interval: heartbeat_ms,
        election_timeout_min: election_min_ms,
        election_timeout_max: election_max_ms,
        // Entries are capped by bytes in `GroupLog`; this bounds the count of small ones.
        max_payload_entries: 512,
        // Covers a bulk transfer of a whole snapshot; each chunk has its own, shorter deadline.
        install_snapshot_timeout: 120_000,
        replication_lag_threshold: u64::MAX / 2,
        snapshot_policy: openraft::SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: kept_entries,
        purge_batch_size: PURGE_BATCH.min(kept_entries.max(1)),
        api_channel_size: Some(4096),
        notification_channel_size: Some(8192),
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        backoff: "20ms 40ms 80ms ...250ms".into(),
        ..openraft::Config::default()
    };
    Arc::new(config.validate().expect("the node's configuration has been validated"))
}

/// The voters of a membership, in order.
pub fn voters(membership: &StoredMembership) -> Vec<NodeId> {
    membership.voter_ids().map(NodeId).collect()
}

/// The members of a membership.
pub fn members(membership: &StoredMembership) -> Members {
    let voters: BTreeSet<NodeId> = membership.voter_ids().map(NodeId).collect();
    let learners =
        membership.nodes().map(|(&node, ())| NodeId(node)).filter(|node| !voters.contains(node)).collect();
    Members { voters, learners }
}

/// The voters that a change of members, which its leader did not live to finish, was to end with.
pub fn unfinished(membership: &StoredMembership) -> Option<BTreeSet<u64>> {
    let configs = membership.get_joint_config();
    (configs.len() > 1).then(|| configs.last().cloned().unwrap_or_default())
}
