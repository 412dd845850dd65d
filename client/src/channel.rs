//! A connection shared by many callers. One task owns the [`Connection`]; callers hand it encoded requests and
//! wait for their answer. Whatever is queued when the task runs goes out in one write.
//!
//! When the connection ends, every caller learns which of two things is true: its request was never
//! written ([`CallError::NotSent`], safe to send again) or it may have been received ([`CallError::Lost`]). The
//! task knows, because it counts the bytes that the system took, and because a node that ends the connection in
//! order says so after its last answer: then nothing that is left was begun.

use crate::connection::{Connection, ConnectionError};
use bytes::Bytes;
use futures_util::future::poll_fn;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use trandb_cluster::wire::{self, Request, RequestFrame, Response, ServerFrame, TraceContext};
use trandb_cluster::{Error, NodeId};

/// Requests in flight on one connection at the most, even if the node would take more: bounds what a dead
/// connection can take with it.
const IN_FLIGHT_MAX: usize = 4096;

/// Bytes waiting to be written after which no further request is taken up, so that a node that does not read
/// costs a bounded amount of memory.
const OUTBOX_BYTES: usize = 256 << 10;

/// A connection on which requests wait and nothing at all arrives for this long is probably stopped or cut off: it gets
/// no further requests as long as there are others. Wrong suspicion only costs a detour.
const STALL: Duration = Duration::from_millis(500);

/// The node is told a little less than the whole remaining time, so that its own, more exact error arrives before
/// the caller stops waiting: a tenth, but no more than this.
const DEADLINE_MARGIN: Duration = Duration::from_millis(100);

/// What a node answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) result: Result<Response, Error>,
    pub(crate) forwarded: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The request never left, or the node closed the connection without beginning it: it was surely not done.
    NotSent(ConnectionError),
    /// The request left, then the connection ended.
    Lost(ConnectionError),
    /// No room among the requests in flight before the deadline: surely not done.
    Full,
    /// The request left or was about to; nothing came before the deadline.
    Late {
        /// Nothing at all came from the node meanwhile.
        silent: bool,
    },
}

struct Outgoing {
    id: u64,
    frame: Bytes,
    reply: oneshot::Sender<Result<Answer, CallError>>,
    permit: OwnedSemaphorePermit,
}

/// What callers and the task share.
struct Shared {
    opened: Instant,
    /// Milliseconds after `opened` at which something last came or the first unanswered request was sent;
    /// [`NOTHING_DUE`] when no answer is due.
    waiting_since_ms: AtomicU64,
    /// The node asked for no further requests.
    draining: AtomicBool,
}

const NOTHING_DUE: u64 = u64::MAX;

impl Shared {
    fn now_ms(&self) -> u64 {
        self.opened.elapsed().as_millis() as u64
    }
}

/// A handle to the task; the connection closes when the last one is gone and every answer is in.
pub(crate) struct Channel {
    node: NodeId,
    queue: mpsc::Sender<Outgoing>,
    permits: Arc<Semaphore>,
    permits_max: usize,
    next_id: AtomicU64,
    shared: Arc<Shared>,
}

impl Channel {
    /// Takes over a connection.
    pub(crate) fn start(connection: Connection) -> Self {
        let permits_max = IN_FLIGHT_MAX.min(connection.welcome().in_flight_max as usize);
        // As long as the permits: a request that holds one always finds room.
        let (queue, incoming) = mpsc::channel(permits_max);
        let permits = Arc::new(Semaphore::new(permits_max));
        let shared = Arc::new(Shared {
            opened: Instant::now(),
            waiting_since_ms: AtomicU64::new(NOTHING_DUE),
            draining: AtomicBool::new(false),
        });
        let node = connection.welcome().node;
        let driver = Driver {
            connection,
            incoming,
            incoming_ended: false,
            pending: BTreeMap::new(),
            permits: permits.clone(),
            shared: shared.clone(),
            refusal: None,
        };
        tokio::spawn(driver.run());
        Self { node, queue, permits, permits_max, next_id: AtomicU64::new(1), shared }
    }

    /// The node at the other end.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// Whether new requests may be sent.
    pub(crate) fn is_open(&self) -> bool {
        !self.queue.is_closed() && !self.shared.draining.load(Ordering::Relaxed)
    }

    /// Whether requests wait and the node has been silent for suspiciously long.
    pub(crate) fn is_stalled(&self) -> bool {
        let since_ms = self.shared.waiting_since_ms.load(Ordering::Relaxed);
        since_ms != NOTHING_DUE && self.shared.now_ms().saturating_sub(since_ms) > STALL.as_millis() as u64
    }

    /// Requests sent or queued that have no answer yet.
    pub(crate) fn in_flight(&self) -> usize {
        self.permits_max - self.permits.available_permits()
    }

    /// Sends `body` and waits for the answer until `deadline`.
    pub(crate) async fn call(
        &self,
        body: Request,
        trace: Option<TraceContext>,
        deadline: Instant,
    ) -> Result<Answer, CallError> {
        let permit = match self.permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => match timeout_at(deadline, self.permits.clone().acquire_owned()).await {
                Ok(Ok(permit)) => permit,
                Ok(Err(_)) => return Err(CallError::NotSent(gone())),
                Err(_) => return Err(CallError::Full),
            },
        };
        let remaining = deadline.saturating_duration_since(Instant::now());
        let deadline_ms = (remaining - DEADLINE_MARGIN.min(remaining / 10)).as_millis();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        // Zero would mean the node's default.
        let deadline_ms = u32::try_from(deadline_ms).unwrap_or(u32::MAX).max(1);
        let frame = wire::encode(&RequestFrame { id, deadline_ms, trace, body }).into();
        let (reply, answer) = oneshot::channel();
        if self.queue.try_send(Outgoing { id, frame, reply, permit }).is_err() {
            return Err(CallError::NotSent(gone()));
        }
        match timeout_at(deadline, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(CallError::Lost(gone())),
            Err(_) => Err(CallError::Late { silent: self.is_stalled() }),
        }
    }
}

fn gone() -> ConnectionError {
    ConnectionError::Broken { addr: "the node".to_owned(), reason: "the connection has ended".to_owned() }
}

struct Pending {
    /// Where the request's first byte lies in all that was queued on the connection.
    offset: u64,
    reply: oneshot::Sender<Result<Answer, CallError>>,
    /// Held until the answer, even when the caller has left: the node still works on it.
    _permit: OwnedSemaphorePermit,
}

struct Driver {
    connection: Connection,
    incoming: mpsc::Receiver<Outgoing>,
    incoming_ended: bool,
    pending: BTreeMap<u64, Pending>,
    permits: Arc<Semaphore>,
    shared: Arc<Shared>,
    /// The node said that it is about to close, and why. What it has received it may still answer.
    refusal: Option<Error>,
}

impl Driver {
    async fn run(mut self) {
        let error = poll_fn(|cx| self.poll(cx)).await;
        // A node says farewell last: what it has not answered by then it has not begun.
        let farewell = self.refusal.is_some();
        let error = match self.refusal.take() {
            Some(error) => ConnectionError::Refused { addr: self.connection.addr().to_owned(), error },
            None => error,
        };
        self.permits.close();
        self.incoming.close();
        let written = self.connection.written_bytes();
        for pending in std::mem::take(&mut self.pending).into_values() {
            let outcome = match pending.offset {
                offset if offset < written && !farewell => CallError::Lost(error.clone()),
                _ => CallError::NotSent(error.clone()),
            };
            // A caller that has left does not care.
            let _ = pending.reply.send(Err(outcome));
        }
        while let Ok(outgoing) = self.incoming.try_recv() {
            let _ = outgoing.reply.send(Err(CallError::NotSent(error.clone())));
        }
    }

    /// Ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionError> {
        loop {
            // Reading comes first: a request that is taken up after the node's farewell was read is surely not done,
            // one that is written before it is read is not.
            match self.connection.poll_receive(cx) {
                Poll::Ready(Ok(frame)) => match self.accept(frame) {
                    Ok(()) => continue,
                    Err(error) => return Poll::Ready(error),
                },
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Pending => {}
            }
            let queued_bytes = self.connection.queued_bytes();
            self.take_up(cx);
            if self.connection.queued_bytes() > queued_bytes {
                continue;
            }
            let finished = self.incoming_ended || self.refusal.is_some();
            if finished && self.pending.is_empty() {
                return Poll::Ready(gone());
            }
            return Poll::Pending;
        }
    }

    /// Moves queued requests to the connection while there is room.
    fn take_up(&mut self, cx: &mut Context<'_>) {
        while !self.incoming_ended
            && self.refusal.is_none()
            && self.connection.unwritten_bytes() < OUTBOX_BYTES
        {
            match self.incoming.poll_recv(cx) {
                Poll::Ready(Some(outgoing)) => self.queue(outgoing),
                Poll::Ready(None) => self.incoming_ended = true,
                Poll::Pending => break,
            }
        }
    }

    fn queue(&mut self, outgoing: Outgoing) {
        let Outgoing { id, frame, reply, permit } = outgoing;
        if reply.is_closed() {
            return;
        }
        if self.pending.is_empty() {
            self.shared.waiting_since_ms.store(self.shared.now_ms(), Ordering::Relaxed);
        }
        let offset = self.connection.queued_bytes();
        if let Err(error) = self.connection.queue_encoded(frame) {
            // Only this request is at fault: it is over the frame limit, and nothing of it was queued.
            let _ = reply.send(Err(CallError::NotSent(error)));
            return;
        }
        self.pending.insert(id, Pending { offset, reply, _permit: permit });
    }

    fn accept(&mut self, frame: ServerFrame) -> Result<(), ConnectionError> {
        match frame {
            ServerFrame::Response { id, forwarded, result } => {
                let Some(pending) = self.pending.remove(&id) else {
                    return Err(ConnectionError::Garbled {
                        addr: self.connection.addr().to_owned(),
                        reason: format!("an answer to request {id}, which is not in flight"),
                    });
                };
                let _ = pending.reply.send(Ok(Answer { result, forwarded }));
                let since_ms = if self.pending.is_empty() { NOTHING_DUE } else { self.shared.now_ms() };
                self.shared.waiting_since_ms.store(since_ms, Ordering::Relaxed);
            }
            ServerFrame::Refused(error) => {
                self.shared.draining.store(true, Ordering::Relaxed);
                self.incoming.close();
                while let Ok(outgoing) = self.incoming.try_recv() {
                    let addr = self.connection.addr().to_owned();
                    let refused = ConnectionError::Refused { addr, error: error.clone() };
                    let _ = outgoing.reply.send(Err(CallError::NotSent(refused)));
                }
                self.refusal = Some(error);
            }
            ServerFrame::Welcome(_) => {
                return Err(ConnectionError::Garbled {
                    addr: self.connection.addr().to_owned(),
                    reason: "a second welcome".to_owned(),
                });
            }
        }
        Ok(())
    }
}
