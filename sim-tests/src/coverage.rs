//! Counts what happened inside of nodes: rare paths, so that a sweep can say which it never took, and how high
//! bounded queues stood.
//!
//! It stands where Prometheus does in a real node and receives the same metrics. All nodes of a simulation share
//! a metric, since its labels do not name the node.

use crate::observe::Observer;
use crate::trace::Trace;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How the names of paths begin that are done to nodes; others are what nodes do.
pub const FAULT: &str = "fault: ";

/// A rare path: its name, and where it is counted.
type Path = (&'static str, Source);

enum Source {
    /// A counter, or the observations of a histogram, all labels together.
    Metric(&'static str),
    /// A line that nodes log, or what is done to them.
    Line(&'static str),
    /// Messages that arrived.
    Delivered,
    /// Messages that the network lost or held back.
    Withheld,
}

/// What sweeps report on: what was done to nodes, and what they did.
const PATHS: &[Path] = &[
    ("fault: planned", Source::Line("fault begins")),
    ("fault: segment lost and sent again", Source::Line("a segment is lost and sent again")),
    ("fault: connection broken", Source::Line("a connection breaks")),
    ("fault: message lost or held back", Source::Withheld),
    ("fault: sync takes long", Source::Line("a sync takes long")),
    ("fault: message taken up late", Source::Line("an actor takes up a message late")),
    ("fault: disk call failed", Source::Line("the disk fails a call")),
    ("fault: machine without power", Source::Line("power off")),
    ("messages delayed, each by its own time", Source::Delivered),
    ("elections", Source::Metric("trandb_raft_elections_total")),
    ("leader changes", Source::Metric("trandb_raft_leader_changes_total")),
    ("checkpoints", Source::Metric("trandb_checkpoint_seconds")),
    ("snapshots installed", Source::Metric("trandb_raft_snapshots_installed_total")),
    ("stale timestamps", Source::Line("a batch came late and is stamped again")),
    ("read-index rounds", Source::Metric("trandb_read_index_rounds_total")),
    ("chunked messages", Source::Metric("trandb_peer_bulk_messages_total")),
    ("links redialed", Source::Metric("trandb_peer_redials_total")),
    ("peers suspected", Source::Line("peer missed its heartbeats")),
    ("failed peer calls", Source::Metric("trandb_peer_rpc_errors_total")),
    ("transactions", Source::Metric("trandb_txn_commits_total")),
    ("transactions aborted", Source::Metric("trandb_txn_aborts_total")),
    ("pushes", Source::Metric("trandb_txn_pushes_total")),
    ("outcomes asked for", Source::Metric("trandb_txn_inquiries_total")),
    ("recoveries by strangers", Source::Line("a transaction in the way was aborted")),
    ("key locks", Source::Metric("trandb_txn_lock_wait_seconds")),
    ("lock timeouts", Source::Line("a key's lock was not had in time")),
    ("deadlocks", Source::Metric("trandb_txn_deadlocks_total")),
    ("reads by followers", Source::Metric("trandb_follower_reads_total")),
    ("full memories", Source::Metric("trandb_memory_refused_writes_total")),
    ("actors restarted", Source::Metric("trandb_actor_restarts_total")),
    ("nodes failed", Source::Line("the node failed, as it must")),
    ("disks replaced", Source::Line("power off, and the disk is replaced")),
    ("boots", Source::Line("booted")),
];

/// All metrics of this process. Clones are the same.
#[derive(Clone, Default)]
pub struct Coverage(Arc<Mutex<BTreeMap<String, Arc<Cell>>>>);

impl Coverage {
    /// Receives every metric of this process from now on.
    ///
    /// # Panics
    /// When something else does already.
    pub fn install() -> Self {
        let coverage = Self::default();
        metrics::set_global_recorder(coverage.clone())
            .expect("a simulation is the only thing in its process");
        coverage
    }

    /// How often each rare path was taken.
    pub fn paths(&self, observer: &Observer, trace: &Trace) -> Vec<(&'static str, u64)> {
        PATHS
            .iter()
            .map(|(name, source)| match source {
                Source::Metric(metric) => (*name, self.sum(metric)),
                Source::Line(line) => (*name, observer.count(line)),
                Source::Delivered => (*name, trace.delivered()),
                Source::Withheld => (*name, trace.withheld()),
            })
            .collect()
    }

    /// The highest value that a gauge has had under any of its labels.
    pub fn highest(&self, gauge: &str) -> u64 {
        self.cells(gauge).iter().map(|cell| cell.highest.load(Ordering::Relaxed)).max().unwrap_or_default()
    }

    fn sum(&self, metric: &str) -> u64 {
        self.cells(metric).iter().map(|cell| cell.count.load(Ordering::Relaxed)).sum()
    }

    fn cells(&self, name: &str) -> Vec<Arc<Cell>> {
        let cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let named = |key: &String| key.split(' ').next() == Some(name);
        cells.iter().filter(|(key, _)| named(key)).map(|(_, cell)| cell.clone()).collect()
    }

    fn cell(&self, key: &Key) -> Arc<Cell> {
        let mut name = key.name().to_owned();
        for label in key.labels() {
            name.push_str(&format!(" {}={}", label.key(), label.value()));
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().clone()
    }
}

/// One metric under one set of labels.
#[derive(Default)]
struct Cell {
    count: AtomicU64,
    /// A gauge's value; nodes' gauges are whole numbers where it matters.
    value: AtomicU64,
    highest: AtomicU64,
}

impl Cell {
    fn to(&self, value: u64) {
        self.value.store(value, Ordering::Relaxed);
        self.highest.fetch_max(value, Ordering::Relaxed);
    }
}

impl CounterFn for Cell {
    fn increment(&self, by: u64) {
        self.count.fetch_add(by, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.count.fetch_max(value, Ordering::Relaxed);
    }
}

impl GaugeFn for Cell {
    fn increment(&self, by: f64) {
        self.to(self.value.load(Ordering::Relaxed).saturating_add(by as u64));
    }

    fn decrement(&self, by: f64) {
        self.to(self.value.load(Ordering::Relaxed).saturating_sub(by as u64));
    }

    fn set(&self, value: f64) {
        self.to(value as u64);
    }
}

impl HistogramFn for Cell {
    fn record(&self, _: f64) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Recorder for Coverage {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.cell(key))
    }
}
