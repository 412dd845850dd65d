//! The network doors of nodes and clients, over the simulated network.

use crate::weather::{Fate, Weather};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
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
#[derive(Debug, Clone)]
pub struct SimNet {
    /// What becomes of what is sent to this host.
    pub weather: Weather,
}

impl Net for SimNet {
    fn dial<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<BoxedStream>> {
        Box::pin(async move { Ok(Box::new(connect(addr, &self.weather).await?) as BoxedStream) })
    }

    fn bind<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            // Simulated hosts listen on all of their addresses, of which they have one.
            let (_, port) = split(addr)?;
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
            let weather = self.weather.clone();
            Ok(Box::new(SimListener { listener, weather }) as Box<dyn Listener>)
        })
    }
}

/// A client's tunnel to one node: whichever it dials, it reaches this one, so that what it is told is what this
/// node says.
#[derive(Debug, Clone)]
pub struct Tunnel {
    /// Where it leads, a `host:port`.
    pub to: String,
    /// What becomes of its answers.
    pub weather: Weather,
}

impl Dialer for Tunnel {
    fn dial<'a>(&'a self, _addr: &'a str) -> BoxFuture<'a, io::Result<trandb_client::BoxedStream>> {
        Box::pin(async move {
            Ok(Box::new(connect(&self.to, &self.weather).await?) as trandb_client::BoxedStream)
        })
    }
}

struct SimListener {
    listener: TcpListener,
    weather: Weather,
}

impl Listener for SimListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxedStream, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = self.listener.accept().await?;
            Ok((Box::new(Exposed::new(stream, self.weather.clone())) as BoxedStream, from))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

async fn connect(addr: &str, weather: &Weather) -> io::Result<Exposed> {
    let (host, port) = split(addr)?;
    Ok(Exposed::new(TcpStream::connect((host, port)).await?, weather.clone()))
}

/// A stream that is exposed to the weather, and whose reader's bytes are part of the trace.
struct Exposed {
    stream: TcpStream,
    weather: Weather,
    /// Until the segment that comes next has been sent again.
    late: Option<Pin<Box<Sleep>>>,
    broken: bool,
}

impl Exposed {
    fn new(stream: TcpStream, weather: Weather) -> Self {
        Self { stream, weather, late: None, broken: false }
    }

    fn intact(&self) -> io::Result<()> {
        if self.broken { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }

    /// Waits for a segment, and for as long as the weather makes it late.
    fn poll_segment(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.late.is_none() {
            let mut one = [0; 1];
            ready!(self.stream.poll_peek(context, &mut ReadBuf::new(&mut one)))?;
            match self.weather.segment() {
                Fate::Arrives => {}
                Fate::Late(by) => self.late = Some(Box::pin(sleep(by))),
                Fate::Broken => self.broken = true,
            }
        }
        if let Some(late) = &mut self.late {
            ready!(late.as_mut().poll(context));
            self.late = None;
        }
        Poll::Ready(self.intact())
    }
}

impl AsyncRead for Exposed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.intact()?;
        if self.late.is_some() || self.weather.rages() {
            ready!(self.poll_segment(context))?;
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        let read = &into.filled()[before..];
        tracing::trace!(target: READS, bytes = read.len() as u64, hash = xxh3_64(read));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Exposed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.intact()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

fn split(addr: &str) -> io::Result<(&str, u16)> {
    addr.rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("not a host and a port: {addr}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    /// A byte is sent to a reader in this weather, and one more once the first has been answered; returns what the reader has of
    /// both, and how late it was.
    fn read_in(weather: Weather) -> io::Result<(Vec<u8>, Duration)> {
        let mut sim =
            turmoil::Builder::new().rng_seed(7).max_message_latency(Duration::from_millis(1)).build();
        sim.host("sender", || async {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 7000)).await?;
            let (mut stream, _) = listener.accept().await?;
            for byte in [1, 2] {
                stream.write_u8(byte).await?;
                // The reader may find its connection broken, and not answer.
                if stream.read_u8().await.is_err() {
                    break;
                }
            }
            Ok(())
        });
        let read = std::rc::Rc::new(std::cell::RefCell::new(None));
        let found = read.clone();
        sim.client("reader", async move {
            let mut stream = connect("sender:7000", &weather).await?;
            let start = Instant::now();
            let got = take(&mut stream).await;
            if got.is_err() {
                let left = stream.write_u8(0).await.expect_err("a broken connection takes nothing");
                assert_eq!(left.kind(), io::ErrorKind::ConnectionReset);
            }
            *found.borrow_mut() = Some(got.map(|bytes| (bytes, start.elapsed())));
            Ok(())
        });
        sim.run().expect("the simulation ends");
        read.take().expect("the reader has read")
    }

    async fn take(stream: &mut Exposed) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for _ in 0..2 {
            bytes.push(stream.read_u8().await?);
            stream.write_u8(0).await?;
        }
        Ok(bytes)
    }

    #[test]
    fn a_lost_segment_is_late_and_whole() {
        let (fair, fast) = read_in(Weather::raging(0, 0)).expect("nothing goes wrong");
        let (rough, slow) = read_in(Weather::raging(1_000_000, 0)).expect("nothing breaks");
        assert_eq!((fair, rough), (vec![1, 2], vec![1, 2]));
        assert!(
            slow >= fast + Duration::from_millis(2),
            "{slow:?} after {fast:?}: each is late by a millisecond at least"
        );
    }

    #[test]
    fn a_broken_connection_is_broken_in_both_directions() {
        let broken = read_in(Weather::raging(0, 1_000_000)).expect_err("its first segment breaks it");
        assert_eq!(broken.kind(), io::ErrorKind::ConnectionReset);
    }
}
