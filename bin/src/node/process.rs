//! What belongs to the process rather than to the node in it: signals, panics, file descriptors.

use super::drive::EX_INTERRUPTED;
use std::io;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use trandb_runtime::config::Config;

/// Signals that may wait. The first two decide everything; later ones may be lost.
const SIGNALS_WAITING: usize = 2;

/// How long the frame may take to end in order after the second signal. It answers at once unless something
/// in the node blocks the thread that it runs on.
const SECOND_SIGNAL_PATIENCE: Duration = Duration::from_secs(1);

/// Descriptors that are not client connections: listeners, peer links, log segments, the engine, the runtime.
const DESCRIPTORS_RESERVED: u64 = 512;

/// Reports SIGTERM and SIGINT from now on, and ends the process if nobody else does after the second. Needs a
/// runtime.
pub(super) fn signals() -> io::Result<mpsc::Receiver<&'static str>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = mpsc::channel(SIGNALS_WAITING);
    tokio::spawn(async move {
        for count in 1_u32.. {
            let name = tokio::select! {
                biased;
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            // A full channel already holds the second signal, which ends the process.
            let _ = sender.try_send(name);
            if count >= 2 {
                tokio::time::sleep(SECOND_SIGNAL_PATIENCE).await;
                std::process::exit(EX_INTERRUPTED.into());
            }
        }
    });
    Ok(receiver)
}

/// Raises the limit of open files as far as it goes, and says so if the connections that one door may
/// have would not fit in.
pub(super) fn raise_file_limit(config: &Config) {
    let wanted = u64::from(config.limits.connections) + DESCRIPTORS_RESERVED;
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit < wanted => tracing::warn!(
            limit,
            wanted,
            "fewer files may be open than limits.connections needs; raise the hard limit (ulimit -Hn)"
        ),
        Ok(limit) => tracing::debug!(limit, "limit of open files raised"),
        Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised"),
    }
}

/// Sends panics to the log, where they are seen and keep its format. A supervisor deals with the consequences.
pub(super) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let backtrace = std::backtrace::Backtrace::capture();
        let message = panic.payload_as_str().unwrap_or("(no message)");
        tracing::error!(
            thread = thread.name().unwrap_or("unnamed"),
            location = panic.location().map(tracing::field::display),
            %backtrace,
            "panic: {message}"
        );
    }));
}
