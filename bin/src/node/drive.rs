//! From a running node to the exit code.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Exit code after a second signal, as shells know it from ctrl-c.
pub(super) const EX_INTERRUPTED: u8 = 130;

/// A node as the frame sees it.
pub trait Service: Send + Sized {
    /// What it is bound to.
    fn addresses(&self) -> Addresses;

    /// Ends only if the node cannot go on, with the reason.
    fn ended(&mut self) -> impl Future<Output = Failure> + Send;

    /// Not ready, leadership handed over, drained, synced. Bounded by the configured drain time.
    ///
    /// # Errors
    /// What could not be done; the data is as safe as after a crash.
    fn shutdown(self) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// What a node is bound to, ports as they really are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// The native protocol.
    pub native: String,
    /// Other nodes.
    pub peer: String,
    /// HTTP.
    pub http: String,
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "native {}, peer {}, http http://{}", self.native, self.peer, self.http)
    }
}

/// Why a node does not start or go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Lower case, what happened, then the values.
    pub message: String,
    /// The process's exit code (sysexits).
    pub exit_code: u8,
    /// Whether a node that is started anew, from what is on disk, may do better.
    pub rebuild: bool,
}

impl Failure {
    /// A failure with its exit code, which ends the process.
    pub fn new(message: impl Into<String>, exit_code: u8) -> Self {
        Self { message: message.into(), exit_code, rebuild: false }
    }
}

/// Exit code of a node whose data is not what was written.
pub(super) const EX_DATAERR: u8 = 65;

/// Times that a node is started anew within [`REBUILDS_WITHIN`]; one more ends the process, since something is wrong that
/// does not go away.
const REBUILDS_MAX: usize = 5;
const REBUILDS_WITHIN: Duration = Duration::from_secs(600);

/// Exit codes for what may be otherwise in a moment: a port or directory in use, an I/O error.
const MAY_PASS: [u8; 3] = [69, 74, 75];

/// How long a node that cannot go on may take to let go of what it holds.
const LET_GO_MAX: Duration = Duration::from_secs(30);

/// Before a node is started anew: a disk that is just failing may need a moment, and so do ports.
const REBUILD_PAUSE: Duration = Duration::from_millis(500);

/// Starts a node, announces it, and sees it to its end. One that cannot go on, though what is on disk is good, is
/// started anew; so is one whose data is damaged, where `mend` says that it has done something about that.
pub(super) async fn drive<S: Service, F: Future<Output = Result<S, Failure>>>(
    mut start: impl FnMut() -> F,
    mut mend: impl FnMut(&Failure) -> Result<bool, Failure>,
    signals: &mut mpsc::Receiver<&'static str>,
    mut announce: impl FnMut(&Addresses),
) -> u8 {
    let mut rebuilds: VecDeque<Instant> = VecDeque::new();
    let (signal, service) = loop {
        let started = tokio::select! {
            biased;
            signal = next(signals) => {
                tracing::info!(signal, "stopped before it was started");
                return 0;
            }
            started = start() => started,
        };
        let (failure, what) = match started {
            Ok(mut service) => {
                announce(&service.addresses());
                let failure = tokio::select! {
                    biased;
                    signal = next(signals) => break (signal, service),
                    failure = service.ended() => failure,
                };
                let anew = failure.rebuild || failure.exit_code == EX_DATAERR;
                if anew && tokio::time::timeout(LET_GO_MAX, service.shutdown()).await.is_err() {
                    tracing::warn!("the node still holds some of its resources");
                }
                (failure, "cannot go on")
            }
            // What it had may not be free yet, and a disk may fail again.
            Err(failure) if !rebuilds.is_empty() && MAY_PASS.contains(&failure.exit_code) => {
                (Failure { rebuild: true, ..failure }, "cannot start")
            }
            Err(failure) => (failure, "cannot start"),
        };
        match mend(&failure) {
            Ok(true) => {
                tokio::time::sleep(REBUILD_PAUSE).await;
                continue;
            }
            Ok(false) => {}
            Err(worse) => return failed(&worse, what),
        }
        rebuilds.retain(|at| at.elapsed() < REBUILDS_WITHIN);
        if !failure.rebuild || rebuilds.len() >= REBUILDS_MAX {
            return failed(&failure, what);
        }
        rebuilds.push_back(Instant::now());
        tracing::error!(count = rebuilds.len(), "the node starts anew from what is on disk: {failure}");
        tokio::time::sleep(REBUILD_PAUSE).await;
    };
    tracing::info!(signal, "shutting down; a second signal exits at once");
    tokio::select! {
        biased;
        signal = next(signals) => {
            tracing::warn!(signal, "exiting without draining");
            EX_INTERRUPTED
        }
        done = service.shutdown() => match done {
            Ok(()) => {
                tracing::info!("shut down");
                0
            }
            Err(failure) => failed(&failure, "not shut down cleanly"),
        },
    }
}

fn failed(failure: &Failure, what: &str) -> u8 {
    tracing::error!(exit_code = failure.exit_code, "{what}: {failure}");
    failure.exit_code
}

/// The next signal; waits for ever once there can be none.
async fn next(signals: &mut mpsc::Receiver<&'static str>) -> &'static str {
    match signals.recv().await {
        Some(signal) => signal,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::{pending, ready};
    use std::time::Duration;

    /// A node that ends by itself after `ends_ms` and takes `drain_ms` to shut down.
    #[derive(Default, Clone, Copy)]
    struct Fake {
        ends_ms: u64,
        drain_ms: u64,
        rebuild: bool,
    }

    impl Service for Fake {
        fn addresses(&self) -> Addresses {
            Addresses { native: "a:1".into(), peer: "a:2".into(), http: "a:3".into() }
        }

        async fn ended(&mut self) -> Failure {
            tokio::time::sleep(Duration::from_millis(self.ends_ms)).await;
            Failure { rebuild: self.rebuild, ..Failure::new("the log cannot be synced", 74) }
        }

        async fn shutdown(self) -> Result<(), Failure> {
            tokio::time::sleep(Duration::from_millis(self.drain_ms)).await;
            Ok(())
        }
    }

    /// An hour: what is meant not to happen within a test.
    const NEVER_MS: u64 = 3_600_000;

    fn nothing(_: &Failure) -> Result<bool, Failure> {
        Ok(false)
    }

    /// Exit code and what was announced.
    async fn run(fake: Fake, signals_at_ms: &[u64]) -> (u8, Option<String>) {
        let (sender, mut signals) = mpsc::channel(4);
        let at = signals_at_ms.to_vec();
        let started = Instant::now();
        tokio::spawn(async move {
            for ms in at {
                tokio::time::sleep_until(started + Duration::from_millis(ms)).await;
                sender.send("SIGTERM").await.expect("somebody listens");
            }
            pending::<()>().await;
        });
        let mut announced = None;
        let code = drive(
            || ready(Ok(fake)),
            nothing,
            &mut signals,
            |addresses| announced = Some(addresses.to_string()),
        )
        .await;
        (code, announced)
    }

    #[tokio::test]
    async fn a_signal_drains_and_exits_with_zero() {
        let (code, announced) = run(Fake { ends_ms: NEVER_MS, drain_ms: 5, ..Fake::default() }, &[5]).await;
        assert_eq!(code, 0);
        assert_eq!(announced.as_deref(), Some("native a:1, peer a:2, http http://a:3"));
    }

    #[tokio::test]
    async fn a_second_signal_exits_at_once() {
        let (code, _) =
            run(Fake { ends_ms: NEVER_MS, drain_ms: NEVER_MS, ..Fake::default() }, &[5, 10]).await;
        assert_eq!(code, EX_INTERRUPTED);
    }

    #[tokio::test]
    async fn a_node_that_cannot_go_on_ends_with_its_code() {
        let (code, _) = run(Fake { ends_ms: 5, drain_ms: NEVER_MS, ..Fake::default() }, &[]).await;
        assert_eq!(code, 74);
    }

    #[tokio::test]
    async fn a_node_that_may_do_better_is_started_anew_but_not_for_ever() {
        let (_sender, mut signals) = mpsc::channel(1);
        let starts = Cell::new(0);
        let start = |fake: Fake| {
            starts.set(starts.get() + 1);
            // The first attempt of each rebuild finds a port that is not free yet.
            let in_use = starts.get() == 2;
            ready(if in_use { Err(Failure::new("port 7400 is in use", 69)) } else { Ok(fake) })
        };
        let broken = Fake { ends_ms: 5, drain_ms: 5, rebuild: true };
        let code = drive(|| start(broken), nothing, &mut signals, |_| ()).await;
        assert_eq!((code, starts.get()), (74, 1 + REBUILDS_MAX));
    }

    #[tokio::test]
    async fn a_node_that_was_mended_is_started_again() {
        for mended in [Ok(true), Err(Failure::new("nobody to rebuild it from", 65))] {
            let (_sender, mut signals) = mpsc::channel(1);
            let starts = Cell::new(0);
            let start = || {
                starts.set(starts.get() + 1);
                ready(match starts.get() {
                    1 => Err(Failure::new("wal/1 is corrupt", EX_DATAERR)),
                    _ => Ok(Fake { ends_ms: 5, ..Fake::default() }),
                })
            };
            let mend = |failure: &Failure| {
                if failure.exit_code == EX_DATAERR { mended.clone() } else { Ok(false) }
            };
            let code = drive(start, mend, &mut signals, |_| ()).await;
            assert_eq!((code, starts.get()), if mended.is_ok() { (74, 2) } else { (65, 1) });
        }
    }

    #[tokio::test]
    async fn a_node_that_does_not_start_is_not_announced() {
        let (_sender, mut signals) = mpsc::channel(1);
        let start = || ready(Err::<Fake, _>(Failure::new("port 7400 is in use", 69)));
        let code = drive(start, nothing, &mut signals, |_| panic!("it did not start")).await;
        assert_eq!(code, 69);

        let (sender, mut signals) = mpsc::channel(1);
        sender.send("SIGTERM").await.expect("there is room");
        let code =
            drive(pending::<Result<Fake, _>>, nothing, &mut signals, |_| panic!("it did not start")).await;
        assert_eq!(code, 0);
    }
}
