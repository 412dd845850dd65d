//! One peer, and one link to it at a time.

use super::bulk::Lane;
use super::envelope::{Envelope, Head};
use super::handshake::Identity;
use super::metrics::PeerMetrics;
use super::reassembly::CHUNK_BYTES;
use crate::rpc::RpcError;
use bytes::Bytes;
use ractor::ActorCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;
use trandb_cluster::ids::NodeId;

/// How long a message waits for something that is about to appear: the bulk lane of a fresh link, an actor
/// that is being restarted.
pub(super) const APPEAR_MAX: Duration = Duration::from_millis(200);

/// Incoming calls of one peer that may be under way, as a multiple of what it may have in flight: a call
/// that its caller has given up may still be worked on here.
const INBOUND_FACTOR: usize = 2;

/// Another node. Lives as long as it is a member, across links.
pub(super) struct Peer {
    pub(super) id: NodeId,
    addr: Mutex<String>,
    /// No member any more.
    pub(super) gone: CancellationToken,
    link: Mutex<Option<Arc<Link>>>,
    /// Links so far.
    links: AtomicU32,
    /// Budget of calls from here.
    pub(super) calls: Semaphore,
    /// Budget of request bytes from here.
    pub(super) bytes: Semaphore,
    pub(super) bytes_budget: usize,
    /// Budget of calls from there.
    pub(super) inbound: Arc<Semaphore>,
    pub(super) metrics: PeerMetrics,
}

impl Peer {
    pub(super) fn new(
        id: NodeId,
        addr: String,
        calls: usize,
        bytes: usize,
        gone: CancellationToken,
    ) -> Arc<Self> {
        let bytes_budget = bytes.min(u32::MAX as usize);
        Arc::new(Self {
            id,
            addr: Mutex::new(addr),
            gone,
            link: Mutex::default(),
            links: AtomicU32::new(0),
            calls: Semaphore::new(calls.min(Semaphore::MAX_PERMITS)),
            bytes: Semaphore::new(bytes_budget.min(Semaphore::MAX_PERMITS)),
            bytes_budget,
            inbound: Arc::new(Semaphore::new((calls * INBOUND_FACTOR).min(Semaphore::MAX_PERMITS))),
            metrics: PeerMetrics::new(id),
        })
    }

    pub(super) fn addr(&self) -> String {
        lock(&self.addr).clone()
    }

    pub(super) fn set_addr(&self, addr: String) {
        *lock(&self.addr) = addr;
    }

    /// The link, be it opening, open, or dying.
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        lock(&self.link).clone()
    }

    /// The link, if messages can be sent on it.
    pub(super) fn open_link(&self) -> Option<Arc<Link>> {
        self.link().filter(|link| link.is_open())
    }

    /// Whether this peer was linked before the link that it has now.
    pub(super) fn was_redialed(&self) -> bool {
        self.links.load(Ordering::Relaxed) > 1
    }

    /// Makes `link` the one link, unless there is one, which is answered.
    pub(super) fn occupy(&self, link: &Arc<Link>) -> Result<(), Arc<Link>> {
        let mut place = lock(&self.link);
        match &*place {
            Some(other) => Err(other.clone()),
            None => {
                *place = Some(link.clone());
                self.links.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Makes room, if `link` is the one link.
    pub(super) fn vacate(&self, link: &Arc<Link>) -> bool {
        let mut place = lock(&self.link);
        let was_there = place.as_ref().is_some_and(|other| Arc::ptr_eq(other, link));
        if was_there {
            *place = None;
        }
        was_there
    }
}

/// One connection to a peer, from its handshake to its end.
pub(super) struct Link {
    pub(super) peer: Arc<Peer>,
    /// The dialer's random name for it.
    pub(super) id: u64,
    /// Who is at the other end.
    pub(super) them: Identity,
    /// Whether we dialed.
    pub(super) dialer: bool,
    /// The kill switch: both halves of the stream fail once it is thrown.
    pub(super) kill: CancellationToken,
    /// The session is ready.
    pub(super) opened: CancellationToken,
    /// The session is gone.
    pub(super) closed: CancellationToken,
    /// Own heartbeats sent since anything was heard.
    pub(super) silent: AtomicU32,
    /// Version of the gossip last sent on this link.
    pub(super) gossip_sent: AtomicU64,
    port: OnceLock<ActorCell>,
    lane: watch::Sender<Option<Arc<Lane>>>,
    pending: Mutex<Pending>,
    next_call: AtomicU64,
}

/// Calls that wait for their answer.
#[derive(Default)]
struct Pending {
    closed: bool,
    // Ordered, so that a closing link wakes its callers in the same order each time.
    calls: BTreeMap<u64, oneshot::Sender<Result<Vec<u8>, RpcError>>>,
}

impl Link {
    pub(super) fn new(peer: Arc<Peer>, id: u64, them: Identity, dialer: bool) -> Arc<Self> {
        Arc::new(Self {
            peer,
            id,
            them,
            dialer,
            kill: CancellationToken::new(),
            opened: CancellationToken::new(),
            closed: CancellationToken::new(),
            silent: AtomicU32::new(0),
            gossip_sent: AtomicU64::new(0),
            port: OnceLock::new(),
            lane: watch::Sender::new(None),
            pending: Mutex::default(),
            next_call: AtomicU64::new(1),
        })
    }

    /// How the link is called in ractor_cluster's session events.
    pub(super) fn label(&self) -> String {
        format!("{}/{:016x}", self.peer.id, self.id)
    }

    /// Whether messages can be sent.
    pub(super) fn is_open(&self) -> bool {
        self.port.get().is_some() && !self.kill.is_cancelled()
    }

    /// The session is ready and has this proxy for the peer's port actor.
    pub(super) fn open(&self, port: ActorCell) {
        if self.port.set(port).is_ok() {
            self.opened.cancel();
        }
    }

    /// Cuts the connection; calls under way fail at once.
    pub(super) fn cut(&self) {
        self.kill.cancel();
        let waiting = {
            let mut pending = lock(&self.pending);
            pending.closed = true;
            std::mem::take(&mut pending.calls)
        };
        // Dropping their senders tells the callers.
        drop(waiting);
    }

    /// Sends what fits one chunk over the session.
    pub(super) fn send(&self, head: Head, body: Vec<u8>) -> Result<(), RpcError> {
        let port = self.port.get().filter(|_| !self.kill.is_cancelled()).ok_or(RpcError::Unreachable)?;
        let message = Envelope { head, body }.seal().map_err(|_| RpcError::Decode)?;
        port.send_serialized(message).map_err(|_| RpcError::Unreachable)
    }

    /// Sends a message on the lane that its size calls for. `Ok` says that it is on its way; an error, that
    /// it surely was not delivered.
    pub(super) async fn carry(&self, head: Head, body: Vec<u8>) -> Result<(), RpcError> {
        if !self.opened.is_cancelled() {
            // The peer's first messages can overtake our own news that the session is ready.
            let _ = tokio::time::timeout(APPEAR_MAX, self.opened.cancelled()).await;
        }
        if body.len() <= CHUNK_BYTES {
            return self.send(head, body);
        }
        let mut lane = self.lane.subscribe();
        let usable = |lane: &Option<Arc<Lane>>| lane.as_ref().is_some_and(|lane| !lane.closed.is_cancelled());
        let lane = tokio::time::timeout(APPEAR_MAX, lane.wait_for(usable))
            .await
            .ok()
            .and_then(Result::ok)
            .and_then(|lane| lane.clone())
            .ok_or(RpcError::Unreachable)?;
        lane.send(head, Bytes::from(body)).await
    }

    /// The bulk lane has come (or gone, with None). One from before is closed, on both sides, so that they
    /// never disagree on which one it is for long.
    pub(super) fn set_lane(&self, lane: Option<Arc<Lane>>) {
        if let Some(before) = self.lane.send_replace(lane) {
            before.closed.cancel();
        }
    }

    /// Takes a number for a call whose answer is expected.
    pub(super) fn expect_answer(&self) -> Result<Expected<'_>, RpcError> {
        let id = self.next_call.fetch_add(1, Ordering::Relaxed);
        let (tell, answer) = oneshot::channel();
        let mut pending = lock(&self.pending);
        if pending.closed {
            return Err(RpcError::Unreachable);
        }
        pending.calls.insert(id, tell);
        Ok(Expected { link: self, id, answer })
    }

    /// An answer has come; late ones find nobody.
    pub(super) fn answered(&self, id: u64, outcome: Result<Vec<u8>, RpcError>) {
        let waiting = lock(&self.pending).calls.remove(&id);
        if let Some(caller) = waiting {
            let _ = caller.send(outcome);
        }
    }

    /// Something was heard from the peer.
    pub(super) fn heard(&self) {
        self.silent.store(0, Ordering::Relaxed);
    }
}

/// A call whose answer is expected; forgotten when dropped.
pub(super) struct Expected<'a> {
    link: &'a Link,
    pub(super) id: u64,
    answer: oneshot::Receiver<Result<Vec<u8>, RpcError>>,
}

impl Expected<'_> {
    /// The answer, or that none will come.
    pub(super) async fn answer(&mut self) -> Result<Vec<u8>, RpcError> {
        (&mut self.answer).await.unwrap_or(Err(RpcError::Lost))
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        lock(&self.link.pending).calls.remove(&self.id);
    }
}

/// These locks are held for a few lines that cannot panic half-way.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
