//! Clients that write distinct keys as fast as they are answered, and remember what they were told.

use crate::figures::Figures;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use trandb_client::{Client, ErrorCode};

/// Before a client whose write failed tries the next one: a refusal must not turn into a storm of them.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(20);

/// How long reading one key back may take; it is no part of what is measured.
const READ_BACK_TIMEOUT: Duration = Duration::from_secs(60);

/// Messages kept of each kind of failure.
const EXAMPLES: usize = 3;

/// What one writer was told. Its keys are numbered from zero.
#[derive(Default)]
struct Told {
    written: u64,
    /// Writes that were not acknowledged: they may be there or not.
    open: BTreeSet<u64>,
    failures: BTreeMap<String, Vec<String>>,
    latencies: Vec<Duration>,
}

/// Writers at work.
pub(crate) struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Told>>,
    started: Instant,
}

impl Writers {
    /// `clients` clients of their own connections. Each knows all of `addrs`; every other one asks the leaders
    /// directly, the rest all nodes in turn.
    pub(crate) fn start(runtime: &Runtime, addrs: &[String], clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let tasks = (0..clients)
            .map(|writer| {
                let mut addrs = addrs.to_vec();
                let first = writer % addrs.len();
                addrs.rotate_left(first);
                let _within = runtime.enter();
                let client = Client::builder()
                    .connections_per_node(1)
                    .leader_hints(writer % 2 == 0)
                    .build(addrs)
                    .expect("there are addresses");
                runtime.spawn(write(client, writer, stop.clone(), acknowledged.clone()))
            })
            .collect();
        Self { stop, acknowledged, tasks, started: Instant::now() }
    }

    /// Writes acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Ends them; what they wrote and were told.
    pub(crate) fn stop(self, runtime: &Runtime) -> Record {
        self.stop.store(true, Ordering::Relaxed);
        let took = self.started.elapsed();
        let told = self
            .tasks
            .into_iter()
            .map(|task| runtime.block_on(task).expect("a writer does not panic"))
            .collect();
        Record { told, took }
    }
}

async fn write(client: Client, writer: usize, stop: Arc<AtomicBool>, acknowledged: Arc<AtomicU64>) -> Told {
    let mut told = Told::default();
    while !stop.load(Ordering::Relaxed) {
        let number = told.written;
        told.written += 1;
        let began = Instant::now();
        match client.put(key(writer, number), value(writer, number)).await {
            Ok(_) => {
                told.latencies.push(began.elapsed());
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                told.open.insert(number);
                let kind = match error.code {
                    ErrorCode::Unknown => "unknown outcome".to_owned(),
                    code => format!("failed ({})", code.row().name),
                };
                told.failures.entry(kind).or_default().push(error.to_string());
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
    told
}

fn key(writer: usize, number: u64) -> String {
    format!("chaos/w{writer}/{number}")
}

fn value(writer: usize, number: u64) -> Bytes {
    format!("written by {writer} as its number {number}").into()
}

/// All that was written, and how it went.
pub(crate) struct Record {
    told: Vec<Told>,
    took: Duration,
}

impl Record {
    /// Writes that were not acknowledged.
    pub(crate) fn not_acknowledged(&self) -> usize {
        self.told.iter().map(|told| told.open.len()).sum()
    }

    /// Adds throughput, latencies and failures to a table.
    pub(crate) fn note(&self, figures: &mut Figures) {
        let latencies: Vec<Duration> = self.told.iter().flat_map(|told| &told.latencies).copied().collect();
        figures.note("writes acknowledged", latencies.len());
        figures.note(
            "writes acknowledged per second",
            format_args!("{:.0}", latencies.len() as f64 / self.took.as_secs_f64()),
        );
        if !latencies.is_empty() {
            figures.spread("write", &latencies, None);
        }
        let mut failures: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (kind, messages) in self.told.iter().flat_map(|told| &told.failures) {
            failures.entry(kind).or_default().extend(messages.iter().map(String::as_str));
        }
        for (kind, messages) in failures {
            figures.note(format!("writes, {kind}"), messages.len());
            for message in messages.iter().collect::<BTreeSet<_>>().into_iter().take(EXAMPLES) {
                println!("{kind}, for example: {message}");
            }
        }
    }

    /// Reads every acknowledged write back, through any node. Answers how many there are, and which are not as
    /// they were written.
    pub(crate) fn read_back(&self, runtime: &Runtime, addrs: &[String]) -> (u64, Vec<String>) {
        let readers: Vec<_> = self
            .told
            .iter()
            .enumerate()
            .map(|(writer, told)| {
                let _within = runtime.enter();
                let client = Client::builder()
                    .connections_per_node(1)
                    .timeout(READ_BACK_TIMEOUT)
                    .build(addrs.to_vec())
                    .expect("there are addresses");
                let numbers: Vec<u64> =
                    (0..told.written).filter(|number| !told.open.contains(number)).collect();
                runtime.spawn(read(client, writer, numbers))
            })
            .collect();
        let mut total = 0;
        let mut lost = Vec::new();
        for reader in readers {
            let (read, missing) = runtime.block_on(reader).expect("a reader does not panic");
            total += read;
            lost.extend(missing);
        }
        for example in lost.iter().take(EXAMPLES) {
            println!("not as written: {example}");
        }
        (total, lost)
    }
}

async fn read(client: Client, writer: usize, numbers: Vec<u64>) -> (u64, Vec<String>) {
    let mut lost = Vec::new();
    let total = numbers.len() as u64;
    for number in numbers {
        let key = key(writer, number);
        match client.get(&key).await {
            Ok(Some(found)) if found.value == value(writer, number) => {}
            Ok(found) => lost.push(format!("{key}: {found:?}")),
            Err(error) => lost.push(format!("{key}: {error}")),
        }
    }
    (total, lost)
}
