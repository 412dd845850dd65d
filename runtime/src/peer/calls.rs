//! Calls, both ways.

use super::envelope::{Envelope, Head, Kind, Status};
use super::hub::Hub;
use super::link::{APPEAR_MAX, Link, Peer};
use super::reassembly::MESSAGE_BYTES_MAX;
use crate::planted::{Planted, is_planted};
use crate::rpc::{Reply, RpcError};
use bytes::Bytes;
use ractor::concurrency::{OneshotReceiver, oneshot};
use ractor::message::SerializedMessage;
use ractor::{ActorRef, Message};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use trandb_cluster::ids::NodeId;
use trandb_cluster::known_logs::LogExtent;

/// Longest that an incoming call is kept, whatever its sender says.
const DEADLINE_MAX: Duration = Duration::from_secs(600);

impl Hub {
    /// See [`super::PeerHub::call`].
    pub(super) async fn call<M: Message, T: DeserializeOwned + Send + 'static>(
        &self,
        node: NodeId,
        actor: &str,
        deadline: Duration,
        weight_bytes: usize,
        make: impl FnOnce(Reply<T>) -> M,
    ) -> Result<T, RpcError> {
        let me = self.node().ok_or(RpcError::Unreachable)?;
        if node == me {
            return self.call_here(actor, deadline, make).await;
        }
        let peer = self.peer(node).ok_or(RpcError::Unreachable)?;
        let started = Instant::now();
        let called = call_there(me, &peer, actor, started + deadline, weight_bytes, make).await;
        match called {
            Ok(_) => peer.metrics.answered(started.elapsed()),
            Err(error) => peer.metrics.failed(error),
        }
        called
    }

    async fn call_here<M: Message, T: Send + 'static>(
        &self,
        actor: &str,
        deadline: Duration,
        make: impl FnOnce(Reply<T>) -> M,
    ) -> Result<T, RpcError> {
        let cell = self.actors.borrow().get(actor).cloned().ok_or(RpcError::Unreachable)?;
        let (port, answer) = oneshot();
        ActorRef::<M>::from(cell)
            .send_message(make(Reply::Local(port.into())))
            .map_err(|_| RpcError::Unreachable)?;
        match timeout(deadline, answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) => Err(RpcError::Lost),
            Err(_) => Err(RpcError::Timeout),
        }
    }

    /// Whatever comes from a peer, on either lane.
    pub(super) fn received(self: &Arc<Self>, Envelope { head, body }: Envelope) {
        let Some(peer) = self.peer(head.from) else { return };
        let Some(link) = peer.link().filter(|link| link.id == head.link) else { return };
        link.heard();
        match head.kind {
            Kind::Beat { gossip, batch } => {
                self.hear_log(peer.id, LogExtent { batch, ..link.them.log() });
                if gossip {
                    self.heard.send_if_modified(|heard| {
                        let body = Bytes::from(body);
                        heard.insert(peer.id, body.clone()).is_none_or(|before| before != body)
                    });
                }
            }
            Kind::Answer { id, status } => link.answered(id, status.outcome(body)),
            Kind::Call { id, actor, variant, deadline_ms } => {
                let until = Instant::now() + Duration::from_millis(deadline_ms).min(DEADLINE_MAX);
                self.incoming(&peer, link, id, Request { actor, variant, body }, until);
            }
        }
    }

    /// Hands a request to its actor now, which keeps the order, and answers later.
    fn incoming(self: &Arc<Self>, peer: &Peer, link: Arc<Link>, id: u64, request: Request, until: Instant) {
        let Some(me) = self.node() else { return };
        let slot = peer.inbound.clone().try_acquire_owned();
        let delivered = slot.is_ok().then(|| self.deliver(request));
        let hub = self.clone();
        tokio::spawn(async move {
            let (status, body) = match delivered {
                None => (Status::Overloaded, Vec::new()),
                Some(delivered) => match timeout_at(until, hub.finish(delivered)).await {
                    Ok(answer) => answer,
                    // Its caller has given up as well.
                    Err(_) => return,
                },
            };
            let head = |status| Head { from: me, link: link.id, kind: Kind::Answer { id, status } };
            match timeout_at(until, link.carry(head(status), body)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(peer = %link.peer.id, %error, "an answer cannot be carried");
                    let _ = link.send(head(Status::Dropped), Vec::new());
                }
                Err(_) => {}
            }
            drop(slot);
        });
    }

    /// Puts a request into its actor's mailbox, exactly as ractor_cluster would.
    fn deliver(&self, request: Request) -> Result<OneshotReceiver<Vec<u8>>, Request> {
        let Some(cell) = self.actors.borrow().get(&request.actor).cloned() else { return Err(request) };
        let (port, answer) = oneshot();
        let Request { actor, variant, body } = request;
        let message = SerializedMessage::Call { variant, args: body, reply: port.into(), metadata: None };
        match cell.send_serialized(message) {
            Ok(()) => Ok(answer),
            Err(returned) => match *returned {
                ractor::MessagingErr::SendErr(SerializedMessage::Call { variant, args: body, .. }) => {
                    Err(Request { actor, variant, body })
                }
                _ => Err(Request { actor, variant: String::new(), body: Vec::new() }),
            },
        }
    }

    /// Waits for the actor if it is about to appear, and then for its answer.
    async fn finish(&self, delivered: Result<OneshotReceiver<Vec<u8>>, Request>) -> (Status, Vec<u8>) {
        let answer = match delivered {
            Ok(answer) => answer,
            Err(request) => match timeout(APPEAR_MAX, self.deliver_later(request)).await {
                Ok(answer) => answer,
                Err(_) => return (Status::NoActor, Vec::new()),
            },
        };
        match answer.await {
            Ok(body) if body.is_empty() => (Status::Undecodable, body),
            Ok(body) if body.len() > MESSAGE_BYTES_MAX => (Status::TooLarge, Vec::new()),
            Ok(body) => (Status::Answered, body),
            Err(_) => (Status::Dropped, Vec::new()),
        }
    }

    async fn deliver_later(&self, mut request: Request) -> OneshotReceiver<Vec<u8>> {
        let mut actors = self.actors.subscribe();
        loop {
            match self.deliver(request) {
                Ok(answer) => return answer,
                Err(returned) => request = returned,
            }
            if actors.changed().await.is_err() {
                // The hub is ending; the caller of this waits no longer than `APPEAR_MAX`.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// A request on its way to an actor.
struct Request {
    actor: String,
    variant: String,
    body: Vec<u8>,
}

async fn call_there<M: Message, T: DeserializeOwned>(
    me: NodeId,
    peer: &Peer,
    actor: &str,
    until: Instant,
    weight_bytes: usize,
    make: impl FnOnce(Reply<T>) -> M,
) -> Result<T, RpcError> {
    let link = peer.open_link().ok_or(RpcError::Unreachable)?;
    let _call = peer.calls.try_acquire().map_err(|_| RpcError::Overloaded)?;
    // One message that alone is above the whole budget takes all of it, else it could never be sent.
    let weight = weight_bytes.min(peer.bytes_budget);
    let _bytes = peer.bytes.try_acquire_many(weight as u32).map_err(|_| RpcError::Overloaded)?;

    // Only the encoded form travels; its reply port stays unused, since answers are matched by number.
    let (port, _) = oneshot();
    let SerializedMessage::Call { variant, args: body, .. } =
        make(Reply::Wire(port.into())).serialize().map_err(|_| RpcError::Decode)?
    else {
        return Err(RpcError::Decode);
    };
    if body.len() > MESSAGE_BYTES_MAX {
        return Err(RpcError::TooLarge);
    }
    let more = body.len().min(peer.bytes_budget).saturating_sub(weight);
    let _more = peer.bytes.try_acquire_many(more as u32).map_err(|_| RpcError::Overloaded)?;
    let _in_flight = peer.metrics.in_flight(weight + more);

    let mut expected = link.expect_answer()?;
    let deadline_ms = until.saturating_duration_since(Instant::now()).as_millis() as u64;
    let kind = Kind::Call { id: expected.id, actor: actor.to_owned(), variant, deadline_ms };
    let answered = timeout_at(until, async {
        if is_planted(Planted::DoubleSession) && peer.was_redialed() {
            link.carry(Head { from: me, link: link.id, kind: kind.clone() }, body.clone()).await?;
        }
        link.carry(Head { from: me, link: link.id, kind }, body).await?;
        expected.answer().await
    });
    let answer = answered.await.unwrap_or(Err(RpcError::Timeout))?;
    rmp_serde::from_slice(&answer).map_err(|_| RpcError::Decode)
}
