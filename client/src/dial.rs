//! The network door: how a client gets a byte stream to a node.

use futures_util::future::BoxFuture;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connected byte stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A [`Stream`] of whichever kind the [`Dialer`] makes.
pub type BoxedStream = Box<dyn Stream>;

/// Opens streams to nodes. The default is [`TcpDialer`]; a simulation brings its own.
pub trait Dialer: Send + Sync + 'static {
    /// Connects to `addr`, a `host:port`. The caller bounds the time.
    fn dial<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<BoxedStream>>;
}

/// Dials TCP without delay of small segments: the client batches by itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpDialer;

impl Dialer for TcpDialer {
    fn dial<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<BoxedStream>> {
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxedStream)
        })
    }
}
