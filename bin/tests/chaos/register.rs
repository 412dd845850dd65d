//! A register per partition that only grows, written through some nodes and read through another: a value lower than
//! the last one acknowledged before the read was sent is a read from the past.

use crate::probe::{self, Line};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use trandb_client::{Connection, PartitionId, RequestFrame, Response, ServerFrame, TcpDialer};

/// Between two writes of a register: often enough to see an outage, seldom enough to be no load.
const WRITE_GAP: Duration = Duration::from_millis(10);

/// How long a node may take over one write.
const WRITE_TRY_MS: u32 = 500;

/// Between two reads that are sent, whether or not the ones before are answered: a paused node finds many waiting.
const READ_GAP: Duration = Duration::from_millis(100);

/// A read that waits in a paused node must still be wanted when it goes on.
const READ_DEADLINE_MS: u32 = 60_000;

/// Of the reads still under way at the end.
const READS_END: Duration = Duration::from_secs(30);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What the readers saw.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) reads: u64,
    pub(crate) failures: u64,
    pub(crate) stale: Vec<String>,
}

/// Writers and readers of all registers, at work.
pub(crate) struct Registers {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<Duration>>,
    readers: Vec<JoinHandle<Seen>>,
}

impl Registers {
    /// Writes through the node at `write_addr`, reads through the one at `read_addr`.
    pub(crate) fn start(
        runtime: &Runtime,
        keys: &BTreeMap<PartitionId, String>,
        write_addr: &str,
        read_addr: &str,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = Vec::new();
        let mut readers = Vec::new();
        for key in keys.values() {
            let acknowledged = Arc::new(AtomicU64::new(0));
            writers.push(runtime.spawn(write(
                write_addr.to_owned(),
                key.clone(),
                acknowledged.clone(),
                stop.clone(),
            )));
            readers.push(runtime.spawn(read(read_addr.to_owned(), key.clone(), acknowledged, stop.clone())));
        }
        Self { stop, writers, readers }
    }

    /// Ends them: the longest time that each register took no write, and all that was read.
    pub(crate) fn stop(self, runtime: &Runtime) -> (Vec<Duration>, Seen) {
        self.stop.store(true, Ordering::Relaxed);
        let join = |task| runtime.block_on(task);
        let gaps = self.writers.into_iter().map(|task| runtime.block_on(task).expect("no panic")).collect();
        let mut all = Seen::default();
        for seen in self.readers.into_iter().map(join) {
            let seen = seen.expect("no panic");
            all.reads += seen.reads;
            all.failures += seen.failures;
            all.stale.extend(seen.stale);
        }
        (gaps, all)
    }
}

async fn write(addr: String, key: String, acknowledged: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Duration {
    let mut line = Line::open(&addr).await;
    let mut longest = Duration::ZERO;
    let mut last = None;
    for number in 1_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if line.ask(WRITE_TRY_MS, probe::put(&key, number.to_string())).await.is_ok() {
            acknowledged.store(number, Ordering::SeqCst);
            let now = Instant::now();
            if let Some(last) = last.replace(now) {
                longest = longest.max(now.duration_since(last));
            }
        }
        tokio::time::sleep(WRITE_GAP).await;
    }
    longest
}

async fn read(addr: String, key: String, acknowledged: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Seen {
    let mut connection = Connection::open(&TcpDialer, &addr, "chaos", CONNECT_TIMEOUT)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    let mut seen = Seen::default();
    let mut waiting: BTreeMap<u64, u64> = BTreeMap::new();
    let mut next_id = 0;
    let mut ticks = tokio::time::interval(READ_GAP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut until: Option<Instant> = None;
    loop {
        let stopped = stop.load(Ordering::Relaxed);
        if stopped {
            let until = *until.get_or_insert_with(|| Instant::now() + READS_END);
            if waiting.is_empty() || Instant::now() >= until {
                break;
            }
        }
        tokio::select! {
            frame = connection.receive() => match frame.unwrap_or_else(|error| panic!("{error}")) {
                ServerFrame::Response { id, result, .. } => {
                    let floor = waiting.remove(&id).expect("an answer to a request under way");
                    judge(&mut seen, &key, floor, result.map_err(|error| error.to_string()));
                }
                other => panic!("{other:?}"),
            },
            _ = ticks.tick() => if !stopped {
                next_id += 1;
                waiting.insert(next_id, acknowledged.load(Ordering::SeqCst));
                let body = probe::get(&key);
                let frame = RequestFrame { id: next_id, deadline_ms: READ_DEADLINE_MS, trace: None, body };
                // It is written when an answer is waited for.
                connection.queue(&frame).expect("a small frame");
            },
        }
    }
    seen.failures += waiting.len() as u64;
    seen
}

fn judge(seen: &mut Seen, key: &str, floor: u64, result: Result<Response, String>) {
    let found = match result {
        Ok(Response::Value(found)) => number(found.map(|found| found.value)),
        Ok(other) => panic!("{other:?}"),
        Err(_) => {
            seen.failures += 1;
            return;
        }
    };
    seen.reads += 1;
    if found < floor {
        seen.stale.push(format!("{key} was {found}, though {floor} had been acknowledged before"));
    }
}

fn number(value: Option<Bytes>) -> u64 {
    value.map_or(0, |value| std::str::from_utf8(&value).expect("digits").parse().expect("digits"))
}

#[test]
fn a_lower_value_than_acknowledged_is_stale() {
    let value = |text: &'static str| {
        let value = Bytes::from_static(text.as_bytes());
        Ok(Response::Value(Some(trandb_client::Versioned { value, version: Default::default() })))
    };
    let mut seen = Seen::default();
    judge(&mut seen, "k", 5, value("5"));
    judge(&mut seen, "k", 5, value("6"));
    judge(&mut seen, "k", 5, Err("unavailable".to_owned()));
    assert_eq!((seen.reads, seen.failures, seen.stale.len()), (2, 1, 0));
    judge(&mut seen, "k", 5, value("4"));
    judge(&mut seen, "k", 1, Ok(Response::Value(None)));
    assert_eq!(seen.stale.len(), 2);
}
