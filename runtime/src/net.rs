//! The network's door: whoever dials or listens gets a [`Net`], which is TCP in production and a simulated
//! network in tests. What comes out of it is a plain byte stream, so TLS would wrap it here too.

use futures_util::future::BoxFuture;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A connected, bidirectional byte stream.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for S {}

/// A byte stream of any kind.
pub type BoxedStream = Box<dyn ByteStream>;

/// Opens connections and listeners.
pub trait Net: Send + Sync + 'static {
    /// Connects to `addr`, a `host:port`. Has no deadline of its own: the caller sets one.
    fn dial<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<BoxedStream>>;

    /// Listens on `addr`, a `host:port`; port 0 takes any free one.
    fn bind<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
}

/// Accepts connections.
pub trait Listener: Send + Sync + 'static {
    /// The next connection and where it comes from. Dropping the future loses no connection.
    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxedStream, SocketAddr)>>;

    /// Where it listens; the real port when 0 was asked for.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// TCP without Nagle's delay, since every writer above flushes whole batches.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealNet;

impl Net for RealNet {
    fn dial<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<BoxedStream>> {
        Box::pin(async move {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxedStream)
        })
    }

    fn bind<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { Ok(Box::new(TcpListener::bind(addr).await?) as Box<dyn Listener>) })
    }
}

impl Listener for TcpListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxedStream, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = TcpListener::accept(self).await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as BoxedStream, from))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }
}
