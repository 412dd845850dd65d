//! One connection's belongings: its place among the door's connections, the order to close, and how it
//! says goodbye.

use super::listen::BoxedStream;
use metrics::Gauge;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use trandb_cluster::Error;

/// How long a closing connection waits for its client to read the last words and close. Closing a TCP
/// socket with unread input sends a reset, which destroys what the client has not read yet.
const LINGER: Duration = Duration::from_secs(2);

/// Input that a closing connection throws away at the most: two of the largest frames.
const LINGER_BYTES_MAX: usize = 8 << 20;

/// A connection on its way to whoever serves it.
pub(crate) struct Connection {
    pub(crate) stream: BoxedStream,
    /// Gets the reason when the connection is to end: answer what is in flight, then go.
    pub(crate) close: oneshot::Receiver<Error>,
    /// Held as long as the connection counts.
    pub(crate) slot: Slot,
}

/// Why a connection ended.
#[derive(Debug)]
pub(crate) enum Closed {
    /// The client went, with nothing left to answer.
    ByClient,
    /// It was told to, with this reason.
    Ordered(Error),
    /// The client broke the rules of the protocol.
    Fault(Error),
    /// The network failed.
    Io(io::Error),
    /// A fault of ours.
    Panicked,
}

/// Counts a door's connections.
#[derive(Debug)]
pub(crate) struct Slots {
    used: AtomicUsize,
    max: usize,
    gauge: Gauge,
}

impl Slots {
    pub(crate) fn new(max: usize, gauge: Gauge) -> Arc<Self> {
        gauge.set(0.0);
        Arc::new(Self { used: AtomicUsize::new(0), max, gauge })
    }

    /// A place for one more connection, if there is one.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Slot> {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| (used < self.max).then_some(used + 1))
            .ok()?;
        self.gauge.increment(1.0);
        Some(Slot(Arc::clone(self)))
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }
}

/// One connection's place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::AcqRel);
        self.0.gauge.decrement(1.0);
    }
}

/// Writes the last words, if any, and closes so that the client can still read them.
pub(crate) async fn farewell(stream: &mut BoxedStream, last_words: &[u8]) {
    let goodbye = async {
        stream.write_all(last_words).await?;
        stream.shutdown().await?;
        let mut left = LINGER_BYTES_MAX;
        let mut scrap = vec![0; 16 << 10];
        loop {
            match stream.read(&mut scrap).await? {
                0 => return Ok::<_, io::Error>(()),
                read => left = left.saturating_sub(read),
            }
            if left == 0 {
                return Ok(());
            }
        }
    };
    // Whether it arrived makes no difference to us: the connection is over either way.
    let _ = tokio::time::timeout(LINGER, goodbye).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_and_come_back() {
        let slots = Slots::new(2, Gauge::noop());
        let first = slots.take().expect("free");
        let _second = slots.take().expect("free");
        assert!(slots.take().is_none());
        drop(first);
        assert_eq!(slots.used(), 1);
        assert!(slots.take().is_some());
    }
}
