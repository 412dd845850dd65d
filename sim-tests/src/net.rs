//! The network doors of nodes and clients, over the simulated network.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::{AsyncRead, AsyncWrite};
use trandb_client::Dialer;
use trandb_runtime::net::{BoxedStream, Listener, Net};
use turmoil::net::{TcpListener, TcpStream};

/// What the doors' methods return.
type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

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
            Ok((Box::new(stream) as BoxedStream, from))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

async fn connect(addr: &str) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
    let (host, port) = split(addr)?;
    TcpStream::connect((host, port)).await
}

fn split(addr: &str) -> io::Result<(&str, u16)> {
    addr.rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("not a host and a port: {addr}")))
}
