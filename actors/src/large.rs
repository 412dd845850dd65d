//! Large values on their way through this node: how many at once, and how fast, so that small requests are not held up.
//!
//! Each is copied and checksummed several times on its way and takes a core for that time. More at once get nothing
//! done sooner and stand in front of small requests, so half of the worker threads stay free of them
//! (`at_once`). On a machine whose cores are all taken even those are woken late; while large values are written, a task
//! measures how late, and after each value its turn rests for as long as [`Pace`] says.
//!
//! Only writes that came in here take turns. What replicas write for other nodes costs as much, and is paced there. Checkpoints of
//! large values rest as long as their writers do, but so shortly that they keep up with what all nodes' writers send.

use metrics::gauge;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use trandb_cluster::Error;
use trandb_cluster::pace::{LARGE_VALUES, Pace};

/// Between two samples of lag.
const SAMPLE: Duration = Duration::from_millis(2);

/// The longest rest of a checkpoint after each part of it: with rests as long as its pace asks for, checkpoints fell behind
/// writers, and the log grew without end.
const CHECKPOINT_REST_MAX: Duration = Duration::from_millis(25);

/// Large values that are being written at once by so many worker threads; zero is one per core.
pub(crate) fn at_once(threads: usize) -> usize {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        given => given,
    };
    (threads / 2).max(1)
}

/// See the [module](self).
#[derive(Debug, Clone)]
pub struct LargeWrites {
    turns: Arc<Semaphore>,
    pace: Arc<Mutex<Pace>>,
}

impl LargeWrites {
    pub(crate) fn new(at_once: usize) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(at_once)),
            pace: Arc::new(Mutex::new(Pace::fastest(LARGE_VALUES))),
        }
    }

    /// Waits for the turn of a write with so many bytes of large values. It is over when what this answers is dropped,
    /// and the next one's begins after a rest.
    ///
    /// # Errors
    /// `overloaded` at the deadline.
    pub(crate) async fn turn(&self, bytes: usize, deadline: Instant) -> Result<Turn, Error> {
        match tokio::time::timeout_at(deadline, self.turns.clone().acquire_owned()).await {
            Ok(permit) => {
                let permit = permit.expect("the semaphore is never closed");
                let (over, is_over) = tokio::sync::oneshot::channel();
                tokio::spawn(watch(permit, self.pace.clone(), bytes as u64, is_over));
                Ok(Turn { _over: over })
            }
            Err(_) => Err(Error::overloaded("other large values were being written until the deadline")),
        }
    }

    /// How long who has put so many bytes of large values into a checkpoint rests.
    pub(crate) fn rest_of_checkpoint(&self, bytes: usize) -> Duration {
        let pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        Duration::from_millis(pace.rest_ms(bytes as u64)).min(CHECKPOINT_REST_MAX)
    }
}

/// A write's turn; dropped, it is over.
#[derive(Debug)]
pub(crate) struct Turn {
    _over: tokio::sync::oneshot::Sender<()>,
}

/// Holds a turn until it is over, and then for its rest; measures lag meanwhile.
async fn watch(
    _permit: OwnedSemaphorePermit,
    pace: Arc<Mutex<Pace>>,
    bytes: u64,
    mut is_over: tokio::sync::oneshot::Receiver<()>,
) {
    // Poisoned or not, it is a pace.
    let pace = || pace.lock().unwrap_or_else(PoisonError::into_inner);
    let mut rest_until = None;
    while rest_until.is_none_or(|until| Instant::now() < until) {
        let due = Instant::now() + SAMPLE;
        if rest_until.is_some() {
            tokio::time::sleep_until(due).await;
        } else if tokio::time::timeout_at(due, &mut is_over).await.is_ok() {
            rest_until = Some(Instant::now() + Duration::from_millis(pace().rest_ms(bytes)));
            continue;
        }
        pace().sample(due.elapsed().as_millis() as u64);
    }
    gauge!("trandb_large_writes_pace_bytes").set(pace().per_second() as f64);
}

#[cfg(test)]
#[path = "large_tests.rs"]
mod tests;
