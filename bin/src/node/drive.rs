//! From a running node to the exit code.

use std::fmt;
use std::future::Future;
use tokio::sync::mpsc;

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
}

impl Failure {
    /// A failure with its exit code.
    pub fn new(message: impl Into<String>, exit_code: u8) -> Self {
        Self { message: message.into(), exit_code }
    }
}

/// Starts a node, announces it, and sees it to its end.
pub(super) async fn drive<S: Service>(
    start: impl Future<Output = Result<S, Failure>>,
    signals: &mut mpsc::Receiver<&'static str>,
    announce: impl FnOnce(&Addresses),
) -> u8 {
    let mut service = tokio::select! {
        biased;
        signal = next(signals) => {
            tracing::info!(signal, "stopped before it was started");
            return 0;
        }
        started = start => match started {
            Ok(service) => service,
            Err(failure) => return failed(&failure, "cannot start"),
        },
    };
    announce(&service.addresses());
    let signal = tokio::select! {
        biased;
        signal = next(signals) => signal,
        failure = service.ended() => return failed(&failure, "cannot go on"),
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
    use std::future::{pending, ready};
    use std::time::Duration;

    /// A node that ends by itself after `ends_ms` and takes `drain_ms` to shut down.
    struct Fake {
        ends_ms: u64,
        drain_ms: u64,
    }

    impl Service for Fake {
        fn addresses(&self) -> Addresses {
            Addresses { native: "a:1".into(), peer: "a:2".into(), http: "a:3".into() }
        }

        async fn ended(&mut self) -> Failure {
            tokio::time::sleep(Duration::from_millis(self.ends_ms)).await;
            Failure::new("the log cannot be synced", 74)
        }

        async fn shutdown(self) -> Result<(), Failure> {
            tokio::time::sleep(Duration::from_millis(self.drain_ms)).await;
            Ok(())
        }
    }

    /// An hour: what is meant not to happen within a test.
    const NEVER_MS: u64 = 3_600_000;

    /// Exit code and what was announced.
    async fn run(fake: Fake, signals_at_ms: &[u64]) -> (u8, Option<String>) {
        let (sender, mut signals) = mpsc::channel(4);
        let at = signals_at_ms.to_vec();
        let started = tokio::time::Instant::now();
        tokio::spawn(async move {
            for ms in at {
                tokio::time::sleep_until(started + Duration::from_millis(ms)).await;
                sender.send("SIGTERM").await.expect("somebody listens");
            }
            pending::<()>().await;
        });
        let mut announced = None;
        let code =
            drive(ready(Ok(fake)), &mut signals, |addresses| announced = Some(addresses.to_string())).await;
        (code, announced)
    }

    #[tokio::test]
    async fn a_signal_drains_and_exits_with_zero() {
        let (code, announced) = run(Fake { ends_ms: NEVER_MS, drain_ms: 5 }, &[5]).await;
        assert_eq!(code, 0);
        assert_eq!(announced.as_deref(), Some("native a:1, peer a:2, http http://a:3"));
    }

    #[tokio::test]
    async fn a_second_signal_exits_at_once() {
        let (code, _) = run(Fake { ends_ms: NEVER_MS, drain_ms: NEVER_MS }, &[5, 10]).await;
        assert_eq!(code, EX_INTERRUPTED);
    }

    #[tokio::test]
    async fn a_node_that_cannot_go_on_ends_with_its_code() {
        let (code, _) = run(Fake { ends_ms: 5, drain_ms: NEVER_MS }, &[]).await;
        assert_eq!(code, 74);
    }

    #[tokio::test]
    async fn a_node_that_does_not_start_is_not_announced() {
        let (_sender, mut signals) = mpsc::channel(1);
        let start = ready(Err::<Fake, _>(Failure::new("port 7400 is in use", 69)));
        let code = drive(start, &mut signals, |_| panic!("it did not start")).await;
        assert_eq!(code, 69);

        let (sender, mut signals) = mpsc::channel(1);
        sender.send("SIGTERM").await.expect("there is room");
        let code = drive(pending::<Result<Fake, _>>(), &mut signals, |_| panic!("it did not start")).await;
        assert_eq!(code, 0);
    }
}
