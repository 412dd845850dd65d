//! Runs the log: gathers what is submitted while a sync is under way into the next batch.
//!
//! On a thread of its own in real nodes. In a simulation, which has no threads, inside whoever submits, so that nothing happens
//! between a write and its sync; or in a task, where a batch takes as long as its plan says.

use super::batches::{Batches, Gauge, Request, note_failure, run, run_slowly};
use super::error::WalError;
use super::format::{Location, Record};
use super::index::Pinned;
use super::log::{Durable, Wal, WalStats};
use super::reader::WalReader;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Called once with the outcome of a submission, on the writer's thread or inline: everyone behind it waits, so it
/// only passes the word on. It must not close the writer.
pub type Done = Box<dyn FnOnce(Result<Vec<Location>, WalError>) + Send>;

/// The bounds of a writer.
#[derive(Debug, Clone, Copy)]
pub struct WriterOptions {
    /// Bytes of records waiting to be written. Beyond, submissions are refused; from half of it on,
    /// [`Writer::pressure`] asks the callers to hold back.
    pub queue_bytes_max: u64,
    /// A batch is closed once it holds this many bytes: bounds the wait of those in it.
    pub batch_bytes_max: u64,
}

impl Default for WriterOptions {
    /// A quarter of a second's worth of a slow disk's bandwidth, and batches that it writes within about 50 ms.
    fn default() -> Self {
        Self { queue_bytes_max: 64 << 20, batch_bytes_max: 8 << 20 }
    }
}

/// A submission that was not taken.
pub struct Refused {
    /// Whether there was no room, as opposed to a writer that has stopped.
    pub full: bool,
    /// What was to be written.
    pub records: Vec<Record>,
    /// Whom to tell.
    pub done: Done,
}

/// The log behind a queue. Cheap to clone; the writer stops when the last clone is gone or one is closed.
#[derive(Clone)]
pub struct Writer {
    shared: Arc<Shared>,
    reader: WalReader,
    durable: Durable,
}

struct Shared {
    mode: Mode,
    options: WriterOptions,
    queued_bytes: Arc<AtomicU64>,
    pressure: Arc<watch::Sender<bool>>,
    failed: Arc<watch::Sender<Option<WalError>>>,
    full: Arc<watch::Sender<Option<WalError>>>,
}

enum Mode {
    Queued { queue: Mutex<Option<Queue>>, runs: Mutex<Option<Runs>> },
    Inline(Mutex<Option<Wal>>),
}

/// Gives the request back when nobody takes any more.
type Queue = Box<dyn Fn(Request) -> Result<(), Request> + Send>;

/// What takes from the queue.
enum Runs {
    Thread(Thread),
    Task(JoinHandle<()>),
}

#[allow(clippy::disallowed_types, reason = "the log's own thread: syncing must not hold up a runtime's")]
type Thread = std::thread::JoinHandle<()>;

impl Writer {
    /// Runs the log on a thread of its own.
    ///
    /// # Errors
    /// When the system gives no thread.
    #[allow(clippy::disallowed_methods, reason = "the log's own thread")]
    pub fn threaded(wal: Wal, options: WriterOptions) -> std::io::Result<Self> {
        let (queue, requests) = mpsc::channel();
        let queue: Queue = Box::new(move |request| queue.send(request).map_err(|refused| refused.0));
        Self::queued(wal, options, queue, |batches| {
            let thread = std::thread::Builder::new().name("wal".into());
            Ok(Runs::Thread(thread.spawn(move || run(batches, &requests))?))
        })
    }

    /// Runs the log in a task, where each batch takes as long as `takes` says before it is written: for the simulation. What is
    /// not written when it is closed never is, as if the power had been cut.
    pub fn slow(wal: Wal, takes: impl FnMut() -> Duration + Send + 'static) -> Self {
        let (queue, requests) = unbounded_channel();
        let queue: Queue = Box::new(move |request| queue.send(request).map_err(|refused| refused.0));
        Self::queued(wal, WriterOptions::default(), queue, |batches| {
            Ok(Runs::Task(tokio::spawn(run_slowly(batches, requests, takes))))
        })
        .expect("a task is always given")
    }

    fn queued(
        wal: Wal,
        options: WriterOptions,
        queue: Queue,
        begin: impl FnOnce(Batches) -> std::io::Result<Runs>,
    ) -> std::io::Result<Self> {
        let (reader, durable) = (wal.reader(), wal.durable());
        let queued_bytes = Arc::new(AtomicU64::new(0));
        let pressure = Arc::new(watch::Sender::new(false));
        let failed = Arc::new(watch::Sender::new(None));
        let full = Arc::new(watch::Sender::new(None));
        let gauge = Gauge {
            options,
            queued_bytes: queued_bytes.clone(),
            pressure: pressure.clone(),
            failed: failed.clone(),
            full: full.clone(),
        };
        let runs = begin(Batches::new(wal, gauge))?;
        let mode = Mode::Queued { queue: Mutex::new(Some(queue)), runs: Mutex::new(Some(runs)) };
        let shared = Arc::new(Shared { mode, options, queued_bytes, pressure, failed, full });
        Ok(Self { shared, reader, durable })
    }

    /// Runs the log inside the callers: everything is written before [`Writer::submit`] returns. For the simulation,
    /// where nobody can wait for room: a full disk ends the log like any other failure.
    pub fn inline(wal: Wal) -> Self {
        let (reader, durable) = (wal.reader(), wal.durable());
        let shared = Shared {
            mode: Mode::Inline(Mutex::new(Some(wal))),
            options: WriterOptions::default(),
            queued_bytes: Arc::default(),
            pressure: Arc::new(watch::Sender::new(false)),
            failed: Arc::new(watch::Sender::new(None)),
            full: Arc::new(watch::Sender::new(None)),
        };
        Self { shared: Arc::new(shared), reader, durable }
    }

    /// Queues records to be written together, in order after all that were submitted before; `done` is called once
    /// they are durable or have failed. Submissions larger than the queue are taken when it is empty.
    ///
    /// # Errors
    /// Gives everything back when the queue is full or the writer has stopped; nothing was written then.
    pub fn submit(&self, records: Vec<Record>, done: Done) -> Result<(), Refused> {
        match &self.shared.mode {
            Mode::Inline(wal) => {
                let mut guard = lock(wal);
                let Some(wal) = guard.as_mut() else {
                    return Err(Refused { full: false, records, done });
                };
                let written = wal.write(&records);
                if matches!(written, Err(WalError::Full { .. })) {
                    wal.poison();
                }
                drop(guard);
                note_failure(&self.shared.failed, &written);
                done(written);
                Ok(())
            }
            Mode::Queued { queue, .. } => {
                // Under the queue's lock, so that two callers cannot both take the last room.
                let guard = lock(queue);
                let Some(send) = guard.as_ref() else {
                    return Err(Refused { full: false, records, done });
                };
                let bytes: u64 = records.iter().map(Record::bytes).sum();
                let queued = self.shared.queued_bytes.load(Ordering::Relaxed);
                if queued > 0 && queued + bytes > self.shared.options.queue_bytes_max {
                    return Err(Refused { full: true, records, done });
                }
                self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
                match send(Request::Write { records, bytes, done }) {
                    Ok(()) => {
                        if queued + bytes > self.shared.options.queue_bytes_max / 2 {
                            self.shared.pressure.send_if_modified(|full| !std::mem::replace(full, true));
                        }
                        Ok(())
                    }
                    Err(Request::Write { records, done, .. }) => {
                        self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
                        Err(Refused { full: false, records, done })
                    }
                    Err(Request::Inspect(_)) => unreachable!("a write was sent"),
                }
            }
        }
    }

    /// [`Writer::submit`] as a future, for callers that wait for one write.
    ///
    /// # Errors
    /// Those of [`Wal::write`]; [`WalError::Closed`] when the writer has stopped or its queue is full.
    pub async fn write(&self, records: Vec<Record>) -> Result<Vec<Location>, WalError> {
        let (tell, told) = oneshot::channel();
        let done: Done = Box::new(move |written| drop(tell.send(written)));
        self.submit(records, done).map_err(|_| WalError::Closed)?;
        told.await.unwrap_or(Err(WalError::Closed))
    }

    /// True while the queue is more than half full: callers should hold back new work.
    pub fn pressure(&self) -> watch::Receiver<bool> {
        self.shared.pressure.subscribe()
    }

    /// Why the log takes no more writes, once that is so: the first failure, which says more than those after it.
    pub fn failed(&self) -> watch::Receiver<Option<WalError>> {
        self.shared.failed.subscribe()
    }

    /// Why the log waits for room on its disk, as long as it does. What was submitted is written when there is room.
    pub fn full(&self) -> watch::Receiver<Option<WalError>> {
        self.shared.full.subscribe()
    }

    /// Reads records that were written.
    pub fn reader(&self) -> WalReader {
        self.reader.clone()
    }

    /// As [`Wal::durable`].
    pub fn durable(&self) -> Durable {
        self.durable.clone()
    }

    /// As [`Wal::pinned_by`].
    ///
    /// # Errors
    /// [`WalError::Closed`] when the writer has stopped.
    pub async fn pinned_by(&self, segments_behind: usize) -> Result<Vec<Pinned>, WalError> {
        self.inspect(move |wal| wal.pinned_by(segments_behind)).await
    }

    /// As [`Wal::stats`].
    ///
    /// # Errors
    /// [`WalError::Closed`] when the writer has stopped.
    pub async fn stats(&self) -> Result<WalStats, WalError> {
        self.inspect(Wal::stats).await
    }

    /// Writes what was submitted, then stops and waits for the thread to end. Blocks for that long. A slow one stops at once.
    pub fn close(&self) {
        match &self.shared.mode {
            Mode::Inline(wal) => drop(lock(wal).take()),
            Mode::Queued { queue, runs } => {
                drop(lock(queue).take());
                let runs = lock(runs).take();
                match runs {
                    // The thread's panics were caught and reported where they happened.
                    Some(Runs::Thread(thread)) => drop(thread.join()),
                    Some(Runs::Task(task)) => task.abort(),
                    None => {}
                }
            }
        }
    }

    async fn inspect<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Wal) -> T + Send + 'static,
    ) -> Result<T, WalError> {
        let told = match &self.shared.mode {
            Mode::Inline(wal) => return lock(wal).as_ref().map(look).ok_or(WalError::Closed),
            Mode::Queued { queue, .. } => {
                let (tell, told) = oneshot::channel();
                let request = Request::Inspect(Box::new(move |wal| drop(tell.send(look(wal)))));
                let guard = lock(queue);
                let send = guard.as_ref().ok_or(WalError::Closed)?;
                send(request).map_err(|_| WalError::Closed)?;
                told
            }
        };
        told.await.map_err(|_| WalError::Closed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}
