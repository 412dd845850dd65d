//! The actor that owns one connection's life. Its pump, one task, moves the bytes; the actor tells it when
//! to end and why, notes how it ended, and takes it down when itself is stopped.

use super::connection::Closed;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::panic::AssertUnwindSafe;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use trandb_cluster::Error;

/// See the module.
pub(crate) struct Session;

/// What a session is told.
pub(crate) enum SessionMessage {
    /// By the door when the node stops: answer what is in flight, then close for this reason.
    Close(Error),
    /// By its pump: the connection is over.
    Ended(Closed),
}

impl ractor::Message for SessionMessage {}

/// What a session starts with.
pub(crate) struct SessionArguments {
    /// Serves the connection to its end.
    pub(crate) pump: BoxFuture<'static, Closed>,
    /// Tells the pump to end.
    pub(crate) close: oneshot::Sender<Error>,
    /// The door's name and the client's address, for the log.
    pub(crate) door: &'static str,
    pub(crate) peer: String,
}

pub(crate) struct SessionState {
    close: Option<oneshot::Sender<Error>>,
    door: &'static str,
    peer: String,
    _pump: Pump,
}

/// The pump's task; ends with the actor, however that ends.
struct Pump(JoinHandle<()>);

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Actor for Session {
    type Msg = SessionMessage;
    type State = SessionState;
    type Arguments = SessionArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<SessionMessage>,
        arguments: SessionArguments,
    ) -> Result<SessionState, ActorProcessingErr> {
        let SessionArguments { pump, close, door, peer } = arguments;
        let task = tokio::spawn(async move {
            let closed = AssertUnwindSafe(pump).catch_unwind().await.unwrap_or(Closed::Panicked);
            // The actor is gone only when it was stopped, and then nobody wants to know.
            let _ = myself.cast(SessionMessage::Ended(closed));
        });
        Ok(SessionState { close: Some(close), door, peer, _pump: Pump(task) })
    }

    async fn handle(
        &self,
        myself: ActorRef<SessionMessage>,
        message: SessionMessage,
        state: &mut SessionState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SessionMessage::Close(reason) => {
                if let Some(close) = state.close.take() {
                    // A pump that has ended meanwhile has closed the connection already.
                    let _ = close.send(reason);
                }
            }
            SessionMessage::Ended(closed) => {
                note(state.door, &state.peer, &closed);
                myself.stop(None);
            }
        }
        Ok(())
    }
}

/// Logs how a connection ended: loudly only when somebody should look.
fn note(door: &'static str, peer: &str, closed: &Closed) {
    match closed {
        Closed::ByClient => tracing::debug!(door, peer, "connection closed by its client"),
        Closed::Ordered(reason) => tracing::debug!(door, peer, %reason, "connection closed"),
        Closed::Fault(reason) => {
            let code = reason.code.row().name;
            metrics::counter!("trandb_connection_faults_total", "door" => door, "reason" => code)
                .increment(1);
            tracing::warn!(door, peer, %reason, "connection refused");
        }
        Closed::Io(error) => tracing::debug!(door, peer, %error, "connection lost"),
        Closed::Panicked => tracing::error!(door, peer, "connection ended by a panic"),
    }
}
