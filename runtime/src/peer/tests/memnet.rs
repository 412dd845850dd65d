//! A network in memory, which freezes on demand: streams stay open, and nothing moves on them any more.

use super::*;
use crate::net::BoxedStream;
use futures_util::future::BoxFuture;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::mpsc;

/// What one direction holds, like a socket's buffers.
const BUFFER_BYTES: usize = 64 << 10;

#[derive(Clone, Default)]
pub(super) struct MemNet {
    listeners: Arc<Mutex<BTreeMap<String, mpsc::UnboundedSender<BoxedStream>>>>,
    frozen: Arc<Mutex<Arc<AtomicBool>>>,
    pub(super) dialed: Arc<AtomicU64>,
}

impl MemNet {
    /// Freezes all streams there are, and those dialed before [`MemNet::thaw`].
    pub(super) fn freeze(&self) {
        self.frozen.lock().expect("no test panics in here").store(true, Ordering::Relaxed);
    }

    /// Streams dialed from now on work; frozen ones stay so.
    pub(super) fn thaw(&self) {
        *self.frozen.lock().expect("no test panics in here") = Arc::default();
    }
}

impl Net for MemNet {
    fn dial<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<BoxedStream>> {
        Box::pin(async move {
            self.dialed.fetch_add(1, Ordering::Relaxed);
            let frozen = self.frozen.lock().expect("no test panics in here").clone();
            let (near, far) = duplex(BUFFER_BYTES);
            let far = Box::new(Freezing { stream: far, frozen: frozen.clone() });
            let listeners = self.listeners.lock().expect("no test panics in here");
            let listener = listeners.get(addr).ok_or(io::ErrorKind::ConnectionRefused)?;
            listener.send(far).map_err(|_| io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(Freezing { stream: near, frozen }) as BoxedStream)
        })
    }

    fn bind<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let (sender, accepted) = mpsc::unbounded_channel();
            self.listeners.lock().expect("no test panics in here").insert(addr.into(), sender);
            let accepted = tokio::sync::Mutex::new(accepted);
            Ok(Box::new(MemListener { accepted }) as Box<dyn Listener>)
        })
    }
}

struct MemListener {
    accepted: tokio::sync::Mutex<mpsc::UnboundedReceiver<BoxedStream>>,
}

impl Listener for MemListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxedStream, SocketAddr)>> {
        Box::pin(async move {
            match self.accepted.lock().await.recv().await {
                Some(stream) => Ok((stream, SocketAddr::from(([10, 0, 0, 1], 1)))),
                None => std::future::pending().await,
            }
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([10, 0, 0, 1], 1)))
    }
}

struct Freezing {
    stream: DuplexStream,
    frozen: Arc<AtomicBool>,
}

impl AsyncRead for Freezing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.frozen.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Freezing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            // That the other end is gone does not come through either.
            Poll::Ready(Err(_)) if self.frozen.load(Ordering::Relaxed) => Poll::Pending,
            written => written,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
