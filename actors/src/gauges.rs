//! The node's gauges and counters that actors set. Names and meanings stand in the telemetry's table.

use metrics::{counter, gauge, histogram};
use std::time::Duration;
use trandb_cluster::{NodeId, PartitionId};

/// Sets a node's gauges. Cheap to call: every use is once per tick or per rare event.
#[derive(Debug, Default)]
pub struct Gauges;

impl Gauges {
    /// A data partition's size and queue.
    pub fn partition(&self, id: PartitionId, keys: u64, versions: u64, bytes: u64, queued_bytes: usize) {
        let label = id.0.to_string();
        gauge!("trandb_partition_keys", "partition" => label.clone()).set(keys as f64);
        gauge!("trandb_partition_versions", "partition" => label.clone()).set(versions as f64);
        gauge!("trandb_partition_bytes", "partition" => label.clone()).set(bytes as f64);
        gauge!("trandb_queue_bytes", "partition" => label).set(queued_bytes as f64);
    }

    /// Undecided transactions that hold keys of a partition, keys that they are going to write, and keys that are locked.
    pub fn held(&self, id: PartitionId, transactions: usize, intents: usize, locked: usize) {
        let label = id.0.to_string();
        gauge!("trandb_txn_held", "partition" => label.clone()).set(transactions as f64);
        gauge!("trandb_txn_intents", "partition" => label.clone()).set(intents as f64);
        gauge!("trandb_txn_locked_keys", "partition" => label).set(locked as f64);
    }

    /// A group's Raft.
    pub fn raft(&self, id: PartitionId, term: u64, leads: bool, applied: u64, lag_entries: u64) {
        let label = id.0.to_string();
        gauge!("trandb_raft_term", "partition" => label.clone()).set(term as f64);
        gauge!("trandb_raft_is_leader", "partition" => label.clone()).set(f64::from(u8::from(leads)));
        gauge!("trandb_raft_applied_index", "partition" => label.clone()).set(applied as f64);
        gauge!("trandb_raft_lag_entries", "partition" => label).set(lag_entries as f64);
    }

    /// This node stood for election.
    pub fn election(&self, id: PartitionId) {
        counter!("trandb_raft_elections_total", "partition" => id.0.to_string()).increment(1);
    }

    /// A group has a leader that it had not before.
    pub fn leader_changed(&self, id: PartitionId) {
        counter!("trandb_raft_leader_changes_total", "partition" => id.0.to_string()).increment(1);
    }

    /// An entry with this many writes was proposed and, after this long, applied.
    pub fn proposed(&self, writes: usize, took: Duration) {
        histogram!("trandb_raft_batch_writes").record(writes as f64);
        histogram!("trandb_raft_commit_seconds").record(took.as_secs_f64());
    }

    /// A checkpoint was committed.
    pub fn checkpointed(&self, took: Duration) {
        histogram!("trandb_checkpoint_seconds").record(took.as_secs_f64());
    }

    /// A step of a checkpoint kept its partition from everything else for so long.
    pub fn checkpoint_stepped(&self, took: Duration) {
        histogram!("trandb_checkpoint_step_seconds").record(took.as_secs_f64());
    }

    /// A checkpoint failed.
    pub fn checkpoint_failed(&self) {
        counter!("trandb_checkpoint_failures_total").increment(1);
    }

    /// A snapshot was received and installed.
    pub fn snapshot_installed(&self, id: PartitionId) {
        counter!("trandb_raft_snapshots_installed_total", "partition" => id.0.to_string()).increment(1);
    }

    /// This node's replica is wrong, or is right again.
    pub fn wrong(&self, id: PartitionId, wrong: bool) {
        gauge!("trandb_replica_wrong", "partition" => id.0.to_string()).set(f64::from(u8::from(wrong)));
    }

    /// This node leads a partition and found that the replica on `node` is wrong.
    pub fn divergence_found(&self, id: PartitionId, node: NodeId) {
        let labels = [("partition", id.0.to_string()), ("node", node.0.to_string())];
        counter!("trandb_replica_divergences_total", &labels).increment(1);
    }

    /// This node's replica was rebuilt from another one.
    pub fn rebuilt(&self, id: PartitionId) {
        counter!("trandb_replica_rebuilds_total", "partition" => id.0.to_string()).increment(1);
    }

    /// An actor died and is started again.
    pub fn restarted(&self, actor: &'static str) {
        counter!("trandb_actor_restarts_total", "actor" => actor).increment(1);
    }
}
