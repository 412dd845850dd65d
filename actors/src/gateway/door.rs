//! A door: the actor above one listener and the sessions that came in through it.
//!
//! ```text
//! listener ── accept task ── Accepted ──▶ Door ── spawns, supervises ──▶ Session ── owns ──▶ pump task
//!                 │                        ▲
//!                 └── shutdown ── Drain ───┘
//! ```
//!
//! Stopping: the listener is closed, every session is told to finish what is in flight, and after
//! `drain_ms` those left are cut. A session that dies takes nothing with it.

use super::connection::{Closed, Connection, Slot, Slots};
use super::listen::{BoxedStream, Listener};
use super::session::{Session, SessionArguments, SessionMessage};
use futures_util::future::BoxFuture;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trandb_cluster::Error;

/// Pause after a failed accept: at the end of the file descriptors it fails at once and for as long as no
/// connection goes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections over the limit that are being told so; beyond it they are closed without a word.
const REFUSALS_MAX: usize = 64;

/// What is spoken through a door.
pub(crate) trait Protocol: Send + Sync + 'static {
    /// The door's name in logs and metrics.
    fn name(&self) -> &'static str;
    /// Serves one connection to its end.
    fn serve(&self, connection: Connection) -> BoxFuture<'static, Closed>;
    /// Tells a connection that it cannot come in, and closes it.
    fn refuse(&self, stream: BoxedStream, error: Error) -> BoxFuture<'static, ()>;
}

/// See the module.
pub(crate) struct Door;

/// What a door is told.
pub(crate) enum DoorMessage {
    /// By the accept task: a connection within the limit.
    Accepted { stream: BoxedStream, peer: String, slot: Slot },
    /// By the accept task: the node stops.
    Drain,
    /// By its timer: the time to drain is up.
    DrainExpired,
}

impl ractor::Message for DoorMessage {}

/// What a door starts with.
pub(crate) struct DoorArguments {
    pub(crate) listener: Box<dyn Listener>,
    pub(crate) protocol: Arc<dyn Protocol>,
    pub(crate) connections_max: usize,
    pub(crate) drain_ms: u64,
    pub(crate) shutdown: CancellationToken,
}

pub(crate) struct DoorState {
    protocol: Arc<dyn Protocol>,
    slots: Arc<Slots>,
    drain: Duration,
    draining: bool,
    accept: JoinHandle<()>,
}

impl Drop for DoorState {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl Actor for Door {
    type Msg = DoorMessage;
    type State = DoorState;
    type Arguments = DoorArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<DoorMessage>,
        arguments: DoorArguments,
    ) -> Result<DoorState, ActorProcessingErr> {
        let DoorArguments { listener, protocol, connections_max, drain_ms, shutdown } = arguments;
        let slots =
            Slots::new(connections_max, metrics::gauge!("trandb_connections", "door" => protocol.name()));
        let accept =
            tokio::spawn(accept(listener, myself, Arc::clone(&protocol), Arc::clone(&slots), shutdown));
        Ok(DoorState { protocol, slots, drain: Duration::from_millis(drain_ms), draining: false, accept })
    }

    async fn handle(
        &self,
        myself: ActorRef<DoorMessage>,
        message: DoorMessage,
        state: &mut DoorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            DoorMessage::Accepted { stream, peer, slot } => {
                let (close, closed) = oneshot::channel();
                let pump = state.protocol.serve(Connection { stream, close: closed, slot });
                let arguments = SessionArguments { pump, close, door: state.protocol.name(), peer };
                // A session has no way to fail its start; were it so, its connection ends here and others go on.
                if let Err(error) = Actor::spawn_linked(None, Session, arguments, myself.get_cell()).await {
                    tracing::error!(door = state.protocol.name(), %error, "session did not start");
                }
            }
            DoorMessage::Drain => {
                state.draining = true;
                for session in myself.get_cell().get_children() {
                    // One that has just ended needs no telling.
                    let _ = session
                        .send_message(SessionMessage::Close(Error::unavailable("the node is stopping")));
                }
                myself.send_after(state.drain, || DoorMessage::DrainExpired);
                stop_if_drained(&myself, state);
            }
            DoorMessage::DrainExpired => {
                tracing::warn!(
                    door = state.protocol.name(),
                    connections = state.slots.used(),
                    "time to drain is up, connections are cut"
                );
                myself.stop(None);
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<DoorMessage>,
        event: SupervisionEvent,
        state: &mut DoorState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(_, reason) => {
                tracing::error!(door = state.protocol.name(), %reason, "session failed");
                stop_if_drained(&myself, state);
            }
            SupervisionEvent::ActorTerminated(..) => stop_if_drained(&myself, state),
            _ => {}
        }
        Ok(())
    }
}

/// A pump gives its place back before its session ends, so the last session's end finds none taken.
fn stop_if_drained(myself: &ActorRef<DoorMessage>, state: &DoorState) {
    if state.draining && state.slots.used() == 0 {
        myself.stop(None);
    }
}

/// Accepts until the node stops; the listener closes with it.
async fn accept(
    listener: Box<dyn Listener>,
    door: ActorRef<DoorMessage>,
    protocol: Arc<dyn Protocol>,
    slots: Arc<Slots>,
    shutdown: CancellationToken,
) {
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match slots.take() {
                Some(slot) => {
                    if door.cast(DoorMessage::Accepted { stream, peer: peer.to_string(), slot }).is_err() {
                        return;
                    }
                }
                None => refuse(stream, peer, &protocol, slots.max(), &refusals),
            },
            // One client that went too soon says nothing about the next.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) => {}
            Err(error) => {
                tracing::warn!(door = protocol.name(), %error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Closed before the door is told, so that nobody comes in behind it.
    drop(listener);
    let _ = door.cast(DoorMessage::Drain);
}

/// Turns a connection over the limit away.
fn refuse(
    stream: BoxedStream,
    peer: SocketAddr,
    protocol: &Arc<dyn Protocol>,
    connections_max: usize,
    refusals: &Arc<Semaphore>,
) {
    metrics::counter!("trandb_connections_refused_total", "door" => protocol.name()).increment(1);
    tracing::warn!(door = protocol.name(), %peer, connections_max, "connection over the limit refused");
    if let Ok(permit) = Arc::clone(refusals).try_acquire_owned() {
        let error = Error::overloaded(format!("connection limit of {connections_max} reached"));
        let farewell = protocol.refuse(stream, error);
        tokio::spawn(async move {
            farewell.await;
            drop(permit);
        });
    }
}

/// Runs a door until `shutdown` and the drain after it. Dropping the future cuts everything off at once.
pub(crate) async fn run(arguments: DoorArguments) {
    struct StopOnDrop(ActorRef<DoorMessage>);
    impl Drop for StopOnDrop {
        fn drop(&mut self) {
            self.0.stop(None);
        }
    }
    let name = arguments.protocol.name();
    match Actor::spawn(None, Door, arguments).await {
        Ok((door, ended)) => {
            let _stop = StopOnDrop(door);
            // It is an error only when the actor's task was cancelled, which ends the door as well.
            let _ = ended.await;
        }
        Err(error) => tracing::error!(door = name, %error, "door did not start"),
    }
}
