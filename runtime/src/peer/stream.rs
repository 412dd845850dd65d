//! The byte stream that is handed to ractor_cluster, with a kill switch inside.
//!
//! Stopping a session leaves its writer task stuck in a write to a frozen peer, with socket and backlog;
//! only an error from the stream itself ends it. So both halves fail at once when the switch is thrown.

use crate::net::BoxedStream;
use ractor_cluster::{BoxRead, BoxWrite, ClusterBidiStream};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Read buffer of a session, which itself asks for a frame's length and body in small pieces.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// A stream for one session.
pub(super) struct LinkStream {
    pub(super) stream: BoxedStream,
    /// The link's label, by which session events are told apart.
    pub(super) label: String,
    pub(super) kill: CancellationToken,
}

impl ClusterBidiStream for LinkStream {
    fn split(self: Box<Self>) -> (BoxRead, BoxWrite) {
        let (read, write) = tokio::io::split(self.stream);
        let read = Killable { half: read, killed: Box::pin(self.kill.clone().cancelled_owned()) };
        let write = Killable { half: write, killed: Box::pin(self.kill.cancelled_owned()) };
        (Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, read)), Box::new(write))
    }

    fn peer_label(&self) -> Option<String> {
        Some(self.label.clone())
    }
}

struct Killable<H> {
    half: H,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<H> Killable<H> {
    /// Fails when killed, and otherwise sees to it that the task wakes up when it is.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.killed.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<H: AsyncRead + Unpin> AsyncRead for Killable<H> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.half).poll_read(context, into)
    }
}

impl<H: AsyncWrite + Unpin> AsyncWrite for Killable<H> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.half).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.half).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.half).poll_shutdown(context))?;
        Poll::Ready(Ok(()))
    }
}
