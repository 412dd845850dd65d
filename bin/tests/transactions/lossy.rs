//! A connection on which some answers get lost, together with the connection.

use futures_util::future::BoxFuture;
use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use trandb_client::{BoxedStream, Dialer, Request, RequestFrame, ServerFrame, TcpDialer};
use trandb_cluster::txn::TxnRequest;
use trandb_cluster::wire;

/// Bytes of a frame's length.
const HEADER_BYTES: usize = 4;

/// Loses the answer to every so many-th request of some kind.
#[derive(Clone)]
pub(crate) struct Lossy {
    every: u64,
    picks: fn(&TxnRequest) -> bool,
    picked: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
}

impl Lossy {
    /// Counts what `picks` picks.
    pub(crate) fn new(every: u64, picks: fn(&TxnRequest) -> bool) -> Self {
        Self { every, picks, picked: Arc::default(), lost: Arc::default() }
    }

    /// Answers that were lost.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Dialer for Lossy {
    fn dial<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<BoxedStream>> {
        Box::pin(async move {
            let stream = LossyStream {
                inner: TcpDialer.dial(addr).await?,
                lossy: self.clone(),
                doomed: BTreeSet::new(),
                sent: Vec::new(),
                received: Vec::new(),
                passed: Vec::new(),
            };
            Ok(Box::new(stream) as BoxedStream)
        })
    }
}

struct LossyStream {
    inner: BoxedStream,
    lossy: Lossy,
    /// Requests whose answers will be lost.
    doomed: BTreeSet<u64>,
    /// The end of what was sent, from the last frame's beginning on.
    sent: Vec<u8>,
    /// The same of what was received, which is passed on frame by frame.
    received: Vec<u8>,
    passed: Vec<u8>,
}

/// Cuts the first frame off; its payload is what follows the header.
fn frame(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let end = HEADER_BYTES + u32::from_be_bytes(*header) as usize;
    (bytes.len() >= end).then(|| bytes.drain(..end).collect())
}

impl LossyStream {
    fn note_sent(&mut self, bytes: &[u8]) {
        self.sent.extend_from_slice(bytes);
        while let Some(frame) = frame(&mut self.sent) {
            let Ok(RequestFrame { id, body, .. }) = wire::decode(&frame[HEADER_BYTES..]) else { continue };
            if let Request::Txn(request) = body
                && (self.lossy.picks)(&request)
                && self.lossy.picked.fetch_add(1, Ordering::Relaxed) % self.lossy.every
                    == self.lossy.every - 1
            {
                self.doomed.insert(id);
            }
        }
    }

    /// Passes on what has come; an error instead of a doomed answer.
    fn pass(&mut self) -> io::Result<()> {
        while let Some(frame) = frame(&mut self.received) {
            if let Ok(ServerFrame::Response { id, .. }) = wire::decode(&frame[HEADER_BYTES..])
                && self.doomed.remove(&id)
            {
                self.lossy.lost.fetch_add(1, Ordering::Relaxed);
                return Err(io::Error::new(io::ErrorKind::ConnectionReset, "lost on purpose"));
            }
            self.passed.extend_from_slice(&frame);
        }
        Ok(())
    }
}

impl AsyncRead for LossyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.passed.is_empty() {
            let mut bytes = [0; 16 << 10];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.received.extend_from_slice(read.filled());
            this.pass()?;
        }
        let count = this.passed.len().min(buffer.remaining());
        buffer.put_slice(&this.passed[..count]);
        this.passed.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LossyStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes))?;
        self.note_sent(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
