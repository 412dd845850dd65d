//! A node of three is away for a million writes and catches up, while clients write at a steady rate: what they notice of it.

use crate::figures::{Figures, Spread};
use crate::harness::{Cluster, Node};
use crate::restart::{SETTLED, client, fill};
use crate::{process, settings};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use trandb_client::Client;

/// Writes per second of those whose time is taken: far from all that the machine can do.
const RATE: u64 = 500;

/// How long they write beside nothing else.
const CALM: Duration = Duration::from_secs(20);

/// Entries, of all partitions together, that a replica may be behind without being away: those under way.
const NEAR: u64 = 200;

/// Between two looks at whether it has caught up.
const LOOK: Duration = Duration::from_millis(250);

/// How long it may take.
const BACK_MAX: Duration = Duration::from_secs(300);

#[test]
#[ignore = "takes four minutes: just chaos away"]
fn away() {
    let keys = settings::number("TRANDB_CHAOS_KEYS", 1_000_000);
    let runtime = Runtime::new().expect("a runtime");
    let mut cluster = Cluster::start(3, &[]);
    let addrs: Vec<String> = cluster.nodes.iter().map(|node| node.ports.native.clone()).collect();
    let mut figures = Figures::new("a node that was away for many writes");
    figures.note("writes meanwhile", keys);

    let writers = Writers::start(&runtime, client(&addrs));
    std::thread::sleep(CALM);
    let before = writers.stop(&runtime);
    figures.spread("put, all three there", &before, None);

    cluster.nodes[2].kill9();
    runtime.block_on(fill(&addrs[..2], keys));
    // What so many writes leave to do is not what the third one costs, nor is what two do alone.
    std::thread::sleep(SETTLED);
    let writers = Writers::start(&runtime, client(&addrs[..2]));
    std::thread::sleep(CALM);
    let without = writers.stop(&runtime);
    figures.spread("put, two alone", &without, None);

    let writers = Writers::start(&runtime, client(&addrs[..2]));
    let began = Instant::now();
    cluster.nodes[2].restart();
    figures.note("ready after, s", format_args!("{:.1}", began.elapsed().as_secs_f64()));
    let busy = process::processor_percent(&cluster.nodes, || {
        while applied(&cluster.nodes[2]) + NEAR < applied(&cluster.nodes[0]) {
            assert!(began.elapsed() < BACK_MAX, "it does not catch up");
            std::thread::sleep(LOOK);
        }
    });
    let took = began.elapsed();
    let during = writers.stop(&runtime);
    figures.note("all caught up after, s", format_args!("{:.1}", took.as_secs_f64()));
    for (place, percent) in busy.into_iter().enumerate() {
        figures.note(format!("node {}, % of a core", place + 1), format_args!("{percent:.0}"));
    }
    figures.spread("put, while it catches up", &during, None);
    let p99 = |samples: &[Duration]| Spread::of(samples).expect("there are samples").p99.as_secs_f64();
    figures.note(
        "p99 while it catches up, in times of that of two alone",
        format_args!("{:.1}", p99(&during) / p99(&without)),
    );
    figures.at_most("p99 while it catches up, in times of that before", p99(&during) / p99(&before), 2.0);
    cluster.wait_identical(3);
    figures.finish();
}

/// Entries that a node's replicas have applied.
fn applied(node: &Node) -> u64 {
    node.metric("trandb_raft_applied_index", &[]) as u64
}

/// Puts at a steady rate, each timed from when it was due.
struct Writers {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<Duration>>,
}

impl Writers {
    fn start(runtime: &Runtime, client: Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = runtime.spawn(write(client, stop.clone()));
        Self { stop, task }
    }

    fn stop(self, runtime: &Runtime) -> Vec<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        runtime.block_on(self.task).expect("writers do not panic")
    }
}

async fn write(client: Client, stop: Arc<AtomicBool>) -> Vec<Duration> {
    let mut due = tokio::time::interval(Duration::from_secs(1) / RATE as u32);
    let mut puts = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let since = due.tick().await;
        let (client, number) = (client.clone(), puts.len());
        puts.push(tokio::spawn(async move {
            client.put(format!("timed/{number}"), number.to_string()).await.expect("is written");
            since.elapsed()
        }));
    }
    let mut took = Vec::with_capacity(puts.len());
    for put in puts {
        took.push(put.await.expect("a put does not panic"));
    }
    took
}
