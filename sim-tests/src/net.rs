//! The network doors of nodes and clients, over the simulated network.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use trandb_client::Dialer;
use trandb_runtime::net::{BoxedStream, Listener, Net};
use turmoil::net::{TcpListener, TcpStream};
use xxhash_rust::xxh3::xxh3_64;

/// Target of the events that say what was read from a stream, as a hash over the bytes: what the network itself says of
/// them is text, which takes long to write.
pub const READS: &str = "trandb_reads";

/// What the doors' methods return.
type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Dials and listens on the simulated host that calls it.
#[derive(Debug, Default, Clone, Copy)]
pub struct SimNet;

impl Net for SimNet {
    fn dial<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<BoxedStream>> {
        Box::pin(async move { Ok(Box::new(connect(addr).await?) as BoxedStream) })
    }

    fn bind<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            // Simulated hosts listen on all of their addresses, of which they have one.
            let (_, port) = split(addr)?;
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
            Ok(Box::new(SimListener(listener)) as Box<dyn Listener>)
        })
    }
}

/// A client's tunnel to one node: whichever it dials, it reaches this one, so that what it is told is what this
/// node says.
#[derive(Debug, Clone)]
pub struct Tunnel {
    /// Where it leads, a `host:port`.
    pub to: String,
}

impl Dialer for Tunnel {
    fn dial<'a>(&'a self, _addr: &'a str) -> BoxFuture<'a, io::Result<trandb_client::BoxedStream>> {
        Box::pin(async move { Ok(Box::new(connect(&self.to).await?) as trandb_client::BoxedStream) })
    }
}

struct SimListener(TcpListener);

impl Listener for SimListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxedStream, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = self.0.accept().await?;
            Ok((Box::new(Traced(stream)) as BoxedStream, from))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

async fn connect(addr: &str) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
    let (host, port) = split(addr)?;
    Ok(Traced(TcpStream::connect((host, port)).await?))
}

/// A stream whose reader's bytes are part of the trace.
struct Traced(TcpStream);

impl AsyncRead for Traced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.0).poll_read(context, into))?;
        let read = &into.filled()[before..];
        tracing::trace!(target: READS, bytes = read.len() as u64, hash = xxh3_64(read));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Traced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

fn split(addr: &str) -> io::Result<(&str, u16)> {
    addr.rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("not a host and a port: {addr}")))
}
