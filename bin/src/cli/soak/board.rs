//! What the clients of one kind of work share: the history, and whether to go on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use trandb_client::{Error, ErrorCode};
use trandb_judge::{Micro, Recorder};

/// How long a client rests after a failure: a cluster that is being elected needs no crowd.
const PAUSE: Duration = Duration::from_millis(10);

/// Notes of what is wrong beyond the history, at most.
const WRONG_MAX: usize = 1000;

pub(super) struct Board {
    started: Instant,
    stop: AtomicBool,
    recorder: Mutex<Recorder>,
    wrong: Mutex<Vec<String>>,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            stop: AtomicBool::default(),
            recorder: Mutex::default(),
            wrong: Mutex::default(),
        }
    }
}

impl Board {
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something that is wrong and that no history shows.
    pub(super) fn complain(&self, what: String) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.len() < WRONG_MAX {
            wrong.push(what);
        }
    }

    pub(super) fn wrong(&self) -> Vec<String> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Lets a client do a transaction of these steps, and notes what came of it: `run` returns them with what it read.
    /// Whether it is committed.
    pub(super) async fn record(
        &self,
        client: usize,
        steps: &[Micro],
        run: impl Future<Output = Result<Vec<Micro>, Error>>,
    ) -> bool {
        self.recorder().begin(client, self.now(), steps);
        let result = run.await;
        let committed = self.note(client, steps, result);
        if !committed {
            tokio::time::sleep(PAUSE).await;
        }
        committed
    }

    fn note(&self, client: usize, steps: &[Micro], result: Result<Vec<Micro>, Error>) -> bool {
        let (mut recorder, now) = (self.recorder(), self.now());
        match result {
            Ok(steps) => {
                recorder.committed(client, now, steps);
                return true;
            }
            // What an error means is in its code alone.
            Err(error) if error.code == ErrorCode::Unknown => recorder.unknown(client, now, steps),
            Err(error) if error.code == ErrorCode::Internal => {
                recorder.unknown(client, now, steps);
                self.complain(error.to_string());
            }
            Err(_) => recorder.failed(client, now, steps),
        }
        false
    }
}
