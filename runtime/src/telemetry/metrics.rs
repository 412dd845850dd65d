//! The table of metrics, and the recorder behind `/metrics`.
//!
//! Code counts with the macros of the `metrics` crate and handles made once. A name stands in [`METRICS`] or a
//! test fails: there is one place to look up what a number means. Labels are bounded: kinds, outcomes, doors,
//! partitions and peers of this node, never keys, clients or addresses of clients.

use super::TelemetryError;
use super::process::ProcessUsage;
use MetricKind::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use std::time::Duration;

/// What kind of number a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows; ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets.
    Histogram(Buckets),
}

/// Upper bounds of a histogram's buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buckets {
    /// 50 µs to 10 s, for durations in seconds.
    Seconds,
    /// 1 to 4096 in powers of two, for sizes of batches.
    Count,
    /// 64 B to 16 MiB in powers of four.
    Bytes,
}

impl Buckets {
    /// The bounds, ascending.
    pub fn bounds(self) -> &'static [f64] {
        match self {
            Self::Seconds => &[
                0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5,
                1.0, 2.0, 5.0, 10.0,
            ],
            Self::Count => {
                &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0]
            }
            Self::Bytes => &[
                64.0,
                256.0,
                1024.0,
                4096.0,
                16_384.0,
                65_536.0,
                262_144.0,
                1_048_576.0,
                4_194_304.0,
                16_777_216.0,
            ],
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// `trandb_`, what, unit.
    pub name: &'static str,
    /// What kind of number.
    pub kind: MetricKind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// One line for people.
    pub help: &'static str,
}

const fn row(
    name: &'static str,
    kind: MetricKind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, labels, help }
}

const SECONDS: MetricKind = Histogram(Buckets::Seconds);
const COUNT: MetricKind = Histogram(Buckets::Count);
const BYTES: MetricKind = Histogram(Buckets::Bytes);

/// Every metric of a node.
pub const METRICS: &[Metric] = &[
    row("trandb_build_info", Gauge, &["version", "commit"], "Always 1; the labels say what is running."),
    // Clients.
    row("trandb_requests_total", Counter, &["kind", "outcome"], "Requests answered, by kind and outcome."),
    row("trandb_request_seconds", SECONDS, &["kind"], "Time from a request's arrival to its answer."),
    row("trandb_connections", Gauge, &["door"], "Client connections open."),
    row("trandb_connections_refused_total", Counter, &["door"], "Connections refused at the limit."),
    row(
        "trandb_connection_faults_total",
        Counter,
        &["door", "reason"],
        "Connections closed for what they sent.",
    ),
    // Consensus, per group with a replica here.
    row("trandb_raft_term", Gauge, &["partition"], "Current term."),
    row("trandb_raft_is_leader", Gauge, &["partition"], "1 where this node leads."),
    row("trandb_raft_applied_index", Gauge, &["partition"], "Last log index applied."),
    row("trandb_raft_lag_entries", Gauge, &["partition"], "Log entries known and not yet applied here."),
    row("trandb_raft_elections_total", Counter, &["partition"], "Elections that this node stood for."),
    row("trandb_raft_leader_changes_total", Counter, &["partition"], "New leaders that this node saw."),
    row("trandb_raft_batch_writes", COUNT, &[], "Writes in one replicated log entry."),
    row("trandb_raft_commit_seconds", SECONDS, &[], "Time from proposing an entry to its being applied."),
    row(
        "trandb_raft_snapshots_installed_total",
        Counter,
        &["partition"],
        "Snapshots received and installed.",
    ),
    row(
        "trandb_raft_snapshot_sent_bytes_total",
        Counter,
        &["partition"],
        "Bytes of snapshots that other replicas have taken.",
    ),
    row(
        "trandb_raft_snapshot_pace_bytes",
        Gauge,
        &[],
        "Bytes of snapshots per second that this node sends at the most, all together, while it sends some.",
    ),
    row(
        "trandb_raft_snapshots_resumed_total",
        Counter,
        &["partition"],
        "Snapshots that this node sent on where the stream to the receiver had broken.",
    ),
    row("trandb_read_index_rounds_total", Counter, &[], "Rounds that asked a majority before reads."),
    row(
        "trandb_follower_reads_total",
        Counter,
        &[],
        "Calls for the past that this node's replica answered without leading.",
    ),
    // Transactions.
    row("trandb_txn_open", Gauge, &[], "Transactions that are open on this node."),
    row(
        "trandb_txn_commits_total",
        Counter,
        &["kind"],
        "Commits: of reads only, in one partition, in several.",
    ),
    row("trandb_txn_aborts_total", Counter, &["cause"], "Transactions that ended without effect, by cause."),
    row(
        "trandb_txn_conflicts_total",
        Counter,
        &["keyspace", "cause"],
        "Commits refused for a key of the keyspace: it had changed, or another transaction holds it.",
    ),
    row(
        "trandb_txn_retries_total",
        Counter,
        &["kind"],
        "Transactions and batches that clients ran again, and steps that were tried again as something was in the way.",
    ),
    row("trandb_txn_commit_seconds", SECONDS, &["kind"], "Time from a commit's request to its decision."),
    row(
        "trandb_txn_prepare_seconds",
        SECONDS,
        &[],
        "Time until all partitions but the anchor have prepared, or one refused.",
    ),
    row("trandb_txn_decide_seconds", SECONDS, &[], "Time from the last preparation to the decision."),
    row(
        "trandb_txn_pushes_total",
        Counter,
        &[],
        "Questions what became of a transaction that stood in the way.",
    ),
    row(
        "trandb_txn_inquiries_total",
        Counter,
        &[],
        "Questions to all partitions what became of a transaction.",
    ),
    row("trandb_txn_held", Gauge, &["partition"], "Undecided transactions that hold keys of the partition."),
    row(
        "trandb_txn_intents",
        Gauge,
        &["partition"],
        "Keys of the partition that undecided ones are going to write.",
    ),
    row("trandb_txn_locked_keys", Gauge, &["partition"], "Keys of the partition that are locked."),
    row("trandb_txn_lock_wait_seconds", SECONDS, &[], "Time that a transaction waited for a key's lock."),
    row("trandb_txn_deadlocks_total", Counter, &[], "Transactions of this node that gave way in a deadlock."),
    // Large values.
    row(
        "trandb_large_writes_pace_bytes",
        Gauge,
        &[],
        "Bytes of large values per second for which small requests leave room, as last measured; 1 GiB is no limit.",
    ),
    // Log.
    row("trandb_wal_sync_seconds", SECONDS, &[], "Time of one write and fdatasync of the log."),
    row("trandb_wal_batch_records", COUNT, &[], "Records that shared one fdatasync."),
    row("trandb_wal_batch_bytes", BYTES, &[], "Bytes that shared one fdatasync."),
    row("trandb_wal_bytes_total", Counter, &[], "Bytes written to the log."),
    row(
        "trandb_wal_full",
        Gauge,
        &[],
        "1 while the log waits for room on its disk and nothing is acknowledged.",
    ),
    row("trandb_wal_segments", Gauge, &[], "Log segments on disk."),
    row("trandb_wal_bytes", Gauge, &[], "Size of all log segments."),
    // Checkpoints.
    row("trandb_checkpoint_seconds", SECONDS, &[], "Time of one partition's checkpoint."),
    row(
        "trandb_checkpoint_step_seconds",
        SECONDS,
        &[],
        "Time of one step of a checkpoint, during which its partition does nothing else.",
    ),
    row("trandb_checkpoint_sync_seconds", SECONDS, &[], "Time of making a checkpoint durable."),
    row("trandb_checkpoint_failures_total", Counter, &[], "Checkpoints that failed."),
    // Peers.
    row("trandb_peer_up", Gauge, &["peer"], "1 while the link to the peer works."),
    row("trandb_peer_calls_in_flight", Gauge, &["peer"], "Calls waiting for the peer's answer."),
    row("trandb_peer_bytes_in_flight", Gauge, &["peer"], "Bytes of calls waiting for the peer's answer."),
    row("trandb_peer_rpc_seconds", SECONDS, &["peer"], "Time of a call to the peer."),
    row("trandb_peer_rpc_errors_total", Counter, &["peer", "kind"], "Calls to the peer that failed."),
    row("trandb_peer_handshakes_failed_total", Counter, &["reason"], "Handshakes refused."),
    row("trandb_peer_bulk_messages_total", Counter, &[], "Messages large enough for the bulk lane."),
    row("trandb_peer_redials_total", Counter, &["peer"], "Times the link was dialled again."),
    // Queues and budgets.
    row("trandb_queue_bytes", Gauge, &["partition"], "Bytes of requests waiting at a partition."),
    // Memory as a budget.
    row("trandb_memory_limit_bytes", Gauge, &[], "What the process may use."),
    row("trandb_memory_allocated_bytes", Gauge, &[], "What the process asked of its allocator and holds."),
    row("trandb_memory_resident_bytes", Gauge, &[], "Resident memory, as the budget last saw it."),
    row("trandb_memory_full", Gauge, &[], "1 while no values are put for lack of memory."),
    row(
        "trandb_memory_refused_writes_total",
        Counter,
        &[],
        "Puts refused for lack of memory, here or at a replica.",
    ),
    // Data, per partition with a replica here.
    row("trandb_partition_keys", Gauge, &["partition"], "Live keys."),
    row("trandb_partition_versions", Gauge, &["partition"], "Versions held, live and past."),
    row("trandb_partition_bytes", Gauge, &["partition"], "Bytes of keys and values held."),
    row(
        "trandb_replica_wrong",
        Gauge,
        &["partition"],
        "1 from when this node's replica is found wrong until it is rebuilt and durable.",
    ),
    row(
        "trandb_replica_divergences_total",
        Counter,
        &["partition", "node"],
        "Replicas that this node, as their leader, found wrong, by the node that they are on.",
    ),
    row(
        "trandb_replica_rebuilds_total",
        Counter,
        &["partition"],
        "Times that this node's replica was rebuilt from another one.",
    ),
    row("trandb_actor_restarts_total", Counter, &["actor"], "Actors restarted by their supervisor."),
    // Process.
    row("trandb_process_resident_bytes", Gauge, &[], "Resident memory."),
    row("trandb_process_cpu_seconds", Gauge, &[], "Processor time used since the start."),
    row("trandb_process_open_fds", Gauge, &[], "Open file descriptors."),
    row("trandb_process_max_fds", Gauge, &[], "File descriptors that may be open."),
    row("trandb_process_threads", Gauge, &[], "Threads."),
];

/// Between two runs of upkeep. A histogram keeps every observation until then: at 200,000 a second this is
/// a few MiB.
pub const UPKEEP_INTERVAL_MS: u64 = 2000;

/// The process's metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Makes a recorder that receives every metric of this process from now on. Once per process.
    ///
    /// # Errors
    /// Metrics are already recorded.
    pub fn install(version: &'static str, commit: &'static str) -> Result<Self, TelemetryError> {
        let recorder = recorder();
        let metrics = Self { handle: recorder.handle() };
        metrics::set_global_recorder(recorder)
            .map_err(|error| TelemetryError::AlreadyStarted(error.to_string()))?;
        describe();
        metrics::gauge!("trandb_build_info", "version" => version, "commit" => commit).set(1.0);
        Ok(metrics)
    }

    /// Everything in Prometheus's text format, the process's own figures as they are now.
    pub fn render(&self) -> String {
        if let Some(usage) = ProcessUsage::read() {
            metrics::gauge!("trandb_process_resident_bytes").set(usage.resident_bytes as f64);
            metrics::gauge!("trandb_process_cpu_seconds").set(usage.cpu_seconds);
            metrics::gauge!("trandb_process_open_fds").set(usage.open_fds as f64);
            metrics::gauge!("trandb_process_max_fds").set(usage.max_fds as f64);
            metrics::gauge!("trandb_process_threads").set(usage.threads as f64);
        }
        self.handle.render()
    }

    /// Folds observations into buckets again and again; without it they pile up until somebody renders. Never
    /// ends: run it as a task.
    pub async fn upkeep(self) {
        let mut tick = tokio::time::interval(Duration::from_millis(UPKEEP_INTERVAL_MS));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.handle.run_upkeep();
        }
    }

    #[cfg(test)]
    pub(super) fn of(recorder: &PrometheusRecorder) -> Self {
        Self { handle: recorder.handle() }
    }
}

/// A recorder whose histograms have the buckets of the table.
pub(super) fn recorder() -> PrometheusRecorder {
    let mut builder = PrometheusBuilder::new();
    for metric in METRICS {
        if let Histogram(buckets) = metric.kind {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(metric.name.into()), buckets.bounds())
                .expect("no list of bounds is empty");
        }
    }
    builder.build_recorder()
}

/// Gives the current recorder the help texts.
pub(super) fn describe() {
    for metric in METRICS {
        match metric.kind {
            Counter => metrics::describe_counter!(metric.name, metric.help),
            Gauge => metrics::describe_gauge!(metric.name, metric.help),
            Histogram(_) => metrics::describe_histogram!(metric.name, metric.help),
        }
    }
}
