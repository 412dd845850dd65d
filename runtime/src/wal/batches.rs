//! The log at the end of the writer's queue: makes batches of what was submitted, and writes them.

use super::error::WalError;
use super::format::{Location, Record};
use super::log::Wal;
use super::writer::{Done, WriterOptions};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

/// Between two tries to write what there is no room for.
const FULL_PAUSE: Duration = Duration::from_millis(250);

/// What the writer is asked for.
pub(super) enum Request {
    Write { records: Vec<Record>, bytes: u64, done: Done },
    Inspect(Box<dyn FnOnce(&Wal) + Send>),
}

/// Lowers what `Writer::submit` raised.
pub(super) struct Gauge {
    pub(super) options: WriterOptions,
    pub(super) queued_bytes: Arc<AtomicU64>,
    pub(super) pressure: Arc<watch::Sender<bool>>,
    pub(super) failed: Arc<watch::Sender<Option<WalError>>>,
    pub(super) full: Arc<watch::Sender<Option<WalError>>>,
}

impl Gauge {
    fn written(&self, bytes: u64) {
        let left = self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        if left <= self.options.queue_bytes_max / 2 {
            self.pressure.send_if_modified(|full| std::mem::replace(full, false));
        }
    }

    /// Says that the log waits for room, or does not any more.
    fn full(&self, why: Option<&WalError>) {
        let news = self.full.send_if_modified(|full| {
            let news = full.is_some() != why.is_some();
            *full = why.cloned();
            news
        });
        match why {
            _ if !news => {}
            Some(why) => tracing::error!(%why, "the log waits for room on its disk; nothing is acknowledged"),
            None => tracing::info!("the log has room again"),
        }
        metrics::gauge!("trandb_wal_full").set(f64::from(u8::from(why.is_some())));
    }
}

/// One submission's share of a batch.
struct Waiter {
    records: usize,
    done: Done,
}

/// The log, and the batch that is being made of what was submitted.
pub(super) struct Batches {
    wal: Wal,
    gauge: Gauge,
    records: Vec<Record>,
    waiters: Vec<Waiter>,
    /// What came while there was no room.
    held: VecDeque<Request>,
}

impl Batches {
    pub(super) fn new(wal: Wal, gauge: Gauge) -> Self {
        gauge.full(None);
        Self { wal, gauge, records: Vec::new(), waiters: Vec::new(), held: VecDeque::new() }
    }

    /// Makes the next batch of this request and of `more` of them, as far as one goes. Its bytes.
    fn gather(&mut self, first: Request, mut more: impl FnMut() -> Option<Request>) -> u64 {
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                Request::Write { records: more, bytes: more_bytes, done } => {
                    self.waiters.push(Waiter { records: more.len(), done });
                    self.records.extend(more);
                    bytes += more_bytes;
                }
                Request::Inspect(look) => look(&self.wal),
            }
            let goes_on = bytes < self.gauge.options.batch_bytes_max;
            next = if goes_on { self.held.pop_front().or_else(&mut more) } else { None };
        }
        bytes
    }

    /// Writes the batch, which can be tried again if there is no room for it.
    fn write(&mut self) -> Result<Vec<Location>, WalError> {
        // A panic half way through leaves the log as unknown as a failed write does.
        let written = catch_unwind(AssertUnwindSafe(|| self.wal.write(&self.records))).unwrap_or_else(|_| {
            self.wal.poison();
            Err(WalError::Poisoned)
        });
        if let Err(full @ WalError::Full { .. }) = &written {
            self.gauge.full(Some(full));
        }
        written
    }

    /// What comes while there is no room is held, which the queue's bound covers.
    fn hold(&mut self, request: Request) {
        match request {
            Request::Inspect(look) => look(&self.wal),
            write @ Request::Write { .. } => self.held.push_back(write),
        }
    }

    fn end(&mut self, bytes: u64, written: Result<Vec<Location>, WalError>) {
        if lacks_room(&written) {
            // It was closed meanwhile.
            self.wal.poison();
        }
        self.gauge.full(None);
        if let Err(error) = &written {
            tracing::error!(%error, records = self.records.len(), "could not write to the log");
        }
        note_failure(&self.gauge.failed, &written);
        self.records.clear();
        self.gauge.written(bytes);
        tell(&mut self.waiters, written);
    }
}

fn lacks_room(written: &Result<Vec<Location>, WalError>) -> bool {
    matches!(written, Err(WalError::Full { .. }))
}

pub(super) fn run(mut batches: Batches, requests: &mpsc::Receiver<Request>) {
    while let Some(first) = batches.held.pop_front().or_else(|| requests.recv().ok()) {
        let bytes = batches.gather(first, || requests.try_recv().ok());
        let mut written = batches.write();
        while lacks_room(&written) && pause(&mut batches, requests) {
            written = batches.write();
        }
        batches.end(bytes, written);
    }
}

/// Lets some time pass and holds what comes meanwhile; false when the writer is closed.
fn pause(batches: &mut Batches, requests: &mpsc::Receiver<Request>) -> bool {
    let until = Instant::now() + FULL_PAUSE;
    loop {
        match requests.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(request) => batches.hold(request),
            Err(mpsc::RecvTimeoutError::Timeout) => return true,
            Err(mpsc::RecvTimeoutError::Disconnected) => return false,
        }
    }
}

/// [`run`], in simulated time.
pub(super) async fn run_slowly(
    mut batches: Batches,
    mut requests: UnboundedReceiver<Request>,
    mut takes: impl FnMut() -> Duration,
) {
    loop {
        let first = match batches.held.pop_front() {
            Some(held) => held,
            None => match requests.recv().await {
                Some(request) => request,
                None => return,
            },
        };
        let bytes = batches.gather(first, || requests.try_recv().ok());
        if !batches.records.is_empty() {
            sleep(takes()).await;
        }
        let mut written = batches.write();
        while lacks_room(&written) && pause_slowly(&mut batches, &mut requests).await {
            written = batches.write();
        }
        batches.end(bytes, written);
    }
}

/// [`pause`], in simulated time.
async fn pause_slowly(batches: &mut Batches, requests: &mut UnboundedReceiver<Request>) -> bool {
    let until = Instant::now() + FULL_PAUSE;
    loop {
        match timeout_at(until, requests.recv()).await {
            Ok(Some(request)) => batches.hold(request),
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}

/// Publishes the first failure after which the log takes nothing more. What is only too large was not begun.
pub(super) fn note_failure(
    failed: &watch::Sender<Option<WalError>>,
    written: &Result<Vec<Location>, WalError>,
) {
    if let Err(error) = written
        && !matches!(error, WalError::TooLarge { .. })
    {
        failed.send_if_modified(|first| {
            let news = first.is_none();
            first.get_or_insert_with(|| error.clone());
            news
        });
    }
}

fn tell(waiters: &mut Vec<Waiter>, written: Result<Vec<Location>, WalError>) {
    let mut locations = written.map(Vec::into_iter);
    for Waiter { records, done } in waiters.drain(..) {
        let outcome = match &mut locations {
            Ok(locations) => Ok(locations.by_ref().take(records).collect()),
            Err(error) => Err(error.clone()),
        };
        // One caller's panic must not leave the others waiting.
        if catch_unwind(AssertUnwindSafe(|| done(outcome))).is_err() {
            tracing::error!("a caller of the log panicked when told the outcome");
        }
    }
}
