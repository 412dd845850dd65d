//! A stream that knows what it is waiting for, so that a slow client is told from an idle one.
//!
//! hyper's own header timeout also ends connections that are idle between requests; ours starts with the
//! first byte of a head. A response that the client does not take ends the connection as well.

use crate::gateway::listen::BoxedStream;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long a head may take from its first byte to its last.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take nothing of a response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a connection is between its requests; shared by the stream and the service above it. Counts the
/// beginnings and ends of requests, so it is odd while one is being answered. Reading is on the service's
/// clock then, not on the stream's.
#[derive(Debug, Clone, Default)]
pub(super) struct Turn(Arc<AtomicU64>);

impl Turn {
    /// A request begins or ends.
    pub(super) fn advance(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// See the module.
pub(super) struct PacedStream {
    inner: BoxedStream,
    turn: Turn,
    /// The turn that `head` belongs to.
    seen: u64,
    /// Running while a head has begun and is not complete.
    head: Option<Pin<Box<Sleep>>>,
    /// Running while the client takes nothing.
    write: Option<Pin<Box<Sleep>>>,
}

impl PacedStream {
    pub(super) fn new(inner: BoxedStream, turn: Turn) -> Self {
        Self { inner, turn, seen: 0, head: None, write: None }
    }

    pub(super) fn into_inner(self) -> BoxedStream {
        self.inner
    }

    /// Ready with an error when the client has taken nothing for too long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let timer = self.write.get_or_insert_with(|| sleep(WRITE_TIMEOUT));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(timed_out(format!("no response was taken within {} s", WRITE_TIMEOUT.as_secs())))
    }
}

fn sleep(duration: Duration) -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep_until(Instant::now() + duration))
}

fn timed_out(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, message)
}

impl AsyncRead for PacedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let filled = buffer.filled().len();
        let turn = this.turn.get();
        if turn != this.seen {
            this.seen = turn;
            this.head = None;
        }
        if turn % 2 == 1 {
            return Pin::new(&mut this.inner).poll_read(cx, buffer);
        }
        match Pin::new(&mut this.inner).poll_read(cx, buffer) {
            Poll::Ready(result) => {
                if result.is_ok() && buffer.filled().len() > filled {
                    this.head.get_or_insert_with(|| sleep(HEAD_TIMEOUT));
                }
                Poll::Ready(result)
            }
            Poll::Pending => match &mut this.head {
                Some(timer) => {
                    ready!(timer.as_mut().poll(cx));
                    Poll::Ready(Err(timed_out(format!("the head took over {} s", HEAD_TIMEOUT.as_secs()))))
                }
                None => Poll::Pending,
            },
        }
    }
}

impl AsyncWrite for PacedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.inner).poll_write(cx, bytes) {
            Poll::Ready(result) => {
                self.write = None;
                Poll::Ready(result)
            }
            Poll::Pending => self.poll_stalled(cx).map(Err),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
