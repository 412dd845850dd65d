//! What stands between this program and an engine that others wrote: a panic in it must not spread, and after a
//! failure that leaves it in doubt nothing is asked of it any more.

use super::EngineError;
use crate::priority::can_wait;
use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use trandb_cluster::PartitionId;

/// Lets calls through until one has failed for good.
pub(super) struct Guard {
    engine: &'static str,
    failed: AtomicBool,
}

impl Guard {
    /// For the engine of that name.
    pub(super) fn new(engine: &'static str) -> Self {
        Self { engine, failed: AtomicBool::new(false) }
    }

    /// Calls into the engine: turns its panics into its end.
    pub(super) fn call<T>(
        &self,
        action: &'static str,
        call: impl FnOnce() -> Result<T, Fault>,
    ) -> Result<T, EngineError> {
        if self.has_failed() {
            return Err(EngineError::failed("it failed before"));
        }
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(result) => result.map_err(|fault| {
                let error = fault.into_error(action);
                if matches!(error, EngineError::Io { .. } | EngineError::Failed { .. }) {
                    // It remembers such an error itself and answers nothing else any more.
                    self.fail();
                }
                error
            }),
            Err(panic) => {
                self.fail();
                Err(EngineError::failed(format!("{} panicked: {}", self.engine, panic_text(&*panic))))
            }
        }
    }

    /// No call is let through any more.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }
}

/// What a call fails with, before it is known what the call was for.
pub(super) enum Fault {
    Io(io::Error),
    Corrupt(String),
    Failed(String),
    Partition(PartitionId, Box<Fault>),
}

impl Fault {
    pub(super) fn of(self, partition: PartitionId) -> Self {
        Self::Partition(partition, Box::new(self))
    }

    pub(super) fn into_error(self, action: &'static str) -> EngineError {
        let (partition, fault) = match self {
            Self::Partition(partition, fault) => (Some(partition), *fault),
            fault => (None, fault),
        };
        match fault {
            Self::Corrupt(what) => EngineError::Corrupt { partition, what },
            Self::Io(error) => EngineError::Io { action, error },
            Self::Failed(what) => EngineError::failed(what),
            Self::Partition(_, fault) => fault.into_error(action),
        }
    }
}

/// Opens an engine where its own threads, which take their priority from whoever opens it, are let wait.
#[allow(clippy::disallowed_methods, reason = "this is the door: the simulation opens no engine on disk")]
pub(super) fn on_a_thread_that_can_wait<T: Send>(
    open: impl FnOnce() -> Result<T, EngineError> + Send,
) -> Result<T, EngineError> {
    let opened = std::thread::scope(|scope| {
        let opening = || {
            can_wait();
            open()
        };
        let thread = std::thread::Builder::new().name("trandb-engine".into());
        let opened = thread.spawn_scoped(scope, opening)?.join();
        opened.map_err(|_| io::Error::other("it panicked"))
    });
    opened.unwrap_or_else(|error| Err(EngineError::Io { action: "open on a thread of its own", error }))
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no reason given")
}
