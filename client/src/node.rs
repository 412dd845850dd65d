//! One node as the client knows it: its address, its breaker, and a small pool of connections.

use crate::breaker::Breaker;
use crate::channel::Channel;
use crate::connection::{Connection, ConnectionError};
use crate::options::Options;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use trandb_cluster::NodeId;

/// Requests in flight on a connection from which on a second one is worth its cost: below it, one
/// connection batches better than two.
const BUSY_REQUESTS: usize = 64;

/// A node that has not let the client in for this long is probably cut off: requests that have another node to go to
/// do not wait for it.
const SLOW_DIAL: Duration = Duration::from_millis(300);

/// Takes a lock whose holders cannot leave it half changed: they assign whole values.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Slot {
    channel: Mutex<Option<Arc<Channel>>>,
    /// When the attempt under way began.
    dialling_since: Mutex<Option<Instant>>,
    /// Held while dialling, so that callers wait for one attempt together and share its failure.
    dialling: tokio::sync::Mutex<Option<(Instant, ConnectionError)>>,
}

impl Slot {
    fn open_channel(&self) -> Option<Arc<Channel>> {
        lock(&self.channel).as_ref().filter(|channel| channel.is_open()).cloned()
    }

    fn is_slow_to_dial(&self) -> bool {
        lock(&self.dialling_since).is_some_and(|since| since.elapsed() > SLOW_DIAL)
    }
}

/// Forgets that dialling is under way, also when the caller who did it is gone.
struct Dialling<'a>(&'a Slot);

impl<'a> Dialling<'a> {
    fn start(slot: &'a Slot) -> Self {
        *lock(&slot.dialling_since) = Some(Instant::now());
        Self(slot)
    }
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        *lock(&self.0.dialling_since) = None;
    }
}

/// A node and the connections to it.
pub(crate) struct Node {
    addr: String,
    /// What the node or the topology said; zero while unknown.
    id: AtomicU64,
    breaker: Mutex<Breaker>,
    slots: Vec<Slot>,
}

impl Node {
    pub(crate) fn new(addr: String, id: NodeId, options: &Options) -> Self {
        Self {
            addr,
            id: AtomicU64::new(id.0),
            breaker: Mutex::new(Breaker::new(options.breaker)),
            slots: (0..options.connections_per_node.max(1)).map(|_| Slot::default()).collect(),
        }
    }

    pub(crate) fn addr(&self) -> &str {
        &self.addr
    }

    pub(crate) fn id(&self) -> NodeId {
        NodeId(self.id.load(Ordering::Relaxed))
    }

    pub(crate) fn set_id(&self, id: NodeId) {
        self.id.store(id.0, Ordering::Relaxed);
    }

    pub(crate) fn breaker(&self) -> MutexGuard<'_, Breaker> {
        lock(&self.breaker)
    }

    /// Whether calls should go here rather than elsewhere.
    pub(crate) fn is_healthy(&self) -> bool {
        self.breaker().is_closed() && !self.is_stalled()
    }

    /// Whether no open connection is getting answers, or none is open and opening one takes long.
    fn is_stalled(&self) -> bool {
        let mut open = self.slots.iter().filter_map(Slot::open_channel).peekable();
        match open.peek() {
            Some(_) => open.all(|channel| channel.is_stalled()),
            None => self.slots.iter().any(Slot::is_slow_to_dial),
        }
    }

    /// A connection to send on: the least busy one, or a new one while all are busy and the pool has room.
    pub(crate) async fn channel(
        &self,
        options: &Options,
        deadline: Instant,
    ) -> Result<Arc<Channel>, ConnectionError> {
        let best = self
            .slots
            .iter()
            .filter_map(Slot::open_channel)
            .min_by_key(|channel| (channel.is_stalled(), channel.in_flight()));
        if let Some(best) = &best
            && best.in_flight() < BUSY_REQUESTS
        {
            return Ok(best.clone());
        }
        let Some(empty) = self.slots.iter().find(|slot| slot.open_channel().is_none()) else {
            return Ok(best.expect("no slot is empty, so one has a connection"));
        };
        match (self.dial(empty, options, deadline).await, best) {
            (Err(_), Some(best)) => Ok(best),
            (dialled, _) => dialled,
        }
    }

    async fn dial(
        &self,
        slot: &Slot,
        options: &Options,
        deadline: Instant,
    ) -> Result<Arc<Channel>, ConnectionError> {
        let asked = Instant::now();
        let Ok(mut last_failure) = timeout_at(deadline, slot.dialling.lock()).await else {
            return Err(ConnectionError::Broken {
                addr: self.addr.clone(),
                reason: "no connection before the deadline".to_owned(),
            });
        };
        if let Some(channel) = slot.open_channel() {
            return Ok(channel);
        }
        if let Some((when, error)) = &*last_failure
            && *when >= asked
        {
            return Err(error.clone());
        }
        let _dialling = Dialling::start(slot);
        let timeout = options.connect_timeout.min(deadline.saturating_duration_since(asked));
        match Connection::open(options.dialer.as_ref(), &self.addr, &options.name, timeout).await {
            Ok(connection) => {
                let channel = Arc::new(Channel::start(connection));
                self.set_id(channel.node());
                *lock(&slot.channel) = Some(channel.clone());
                *last_failure = None;
                Ok(channel)
            }
            Err(error) => {
                *last_failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }
}
