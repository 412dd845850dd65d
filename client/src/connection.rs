//! One connection, driven by whoever owns it: frames are queued, and [`Connection::receive`] writes what is
//! queued while it waits for the next frame. No task, no lock; [`crate::channel`] shares one of these
//! among many callers, and load generators use it directly.
//!
//! ```text
//! queue(..) ──▶ outbox ──▶ stream ──▶ inbox ──▶ receive()
//!                 both move whenever receive() or flush() is polled
//! ```
//!
//! Because reading and writing go on together, a node that answers before it reads on can never
//! lock up with a client that sends before it reads.

use crate::dial::{BoxedStream, Dialer};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::poll_fn;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio_util::codec::{Decoder, Encoder, LengthDelimitedCodec};
use trandb_cluster::limits::CLIENT_FRAME_BYTES_MAX;
use trandb_cluster::wire::{self, Hello, PROTOCOL, RequestFrame, ServerFrame, Welcome};
use trandb_cluster::{Error, ErrorCode};

/// What is set aside for reading at a time: large enough that a pipelined burst costs one system call.
const READ_BYTES: usize = 32 << 10;

/// A buffer that grew beyond this for one large value is given back once it is empty, so that a thousand
/// connections do not keep four mebibytes each.
const BUFFER_BYTES_KEPT: usize = 256 << 10;

/// Why a connection is of no use (any more).
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectionError {
    /// No stream, no answer to the Hello in time, or the stream broke.
    #[error("connection to {addr} failed: {reason}")]
    Broken {
        /// The node's address.
        addr: String,
        /// What the system said.
        reason: String,
    },
    /// The node refused the connection and said why.
    #[error("{addr} refused the connection: {error}")]
    Refused {
        /// The node's address.
        addr: String,
        /// The node's words.
        error: Error,
    },
    /// The peer sent what no node sends.
    #[error("{addr} does not speak the protocol: {reason}")]
    Garbled {
        /// The node's address.
        addr: String,
        /// What was wrong.
        reason: String,
    },
}

impl ConnectionError {
    /// The error that a caller sees when nothing was sent, or nothing that matters: `denied` or `invalid`
    /// if the node said so, otherwise `unavailable`.
    pub fn into_error(self) -> Error {
        match &self {
            Self::Refused { error, .. } if matches!(error.code, ErrorCode::Denied | ErrorCode::Invalid) => {
                Error { message: self.to_string(), ..error.clone() }
            }
            _ => Error::unavailable(self.to_string()),
        }
    }
}

/// A framed stream to one node after the exchange of Hello and Welcome.
pub struct Connection {
    addr: String,
    stream: BoxedStream,
    codec: LengthDelimitedCodec,
    inbox: BytesMut,
    outbox: BytesMut,
    queued_bytes: u64,
    written_bytes: u64,
    welcome: Welcome,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("addr", &self.addr).field("welcome", &self.welcome).finish()
    }
}

impl Connection {
    /// Dials `addr` and introduces itself as `client`, all within `timeout`.
    ///
    /// # Errors
    /// [`ConnectionError`] when there is no stream, no Welcome in time, or a refusal.
    pub async fn open(
        dialer: &dyn Dialer,
        addr: &str,
        client: &str,
        timeout: Duration,
    ) -> Result<Self, ConnectionError> {
        match tokio::time::timeout(timeout, Self::handshake(dialer, addr, client)).await {
            Ok(result) => result,
            Err(_) => Err(broken(addr, format!("no welcome within {} ms", timeout.as_millis()))),
        }
    }

    async fn handshake(dialer: &dyn Dialer, addr: &str, client: &str) -> Result<Self, ConnectionError> {
        let stream = dialer.dial(addr).await.map_err(|error| broken(addr, error))?;
        let mut connection = Self {
            addr: addr.to_owned(),
            stream,
            codec: LengthDelimitedCodec::builder().max_frame_length(CLIENT_FRAME_BYTES_MAX).new_codec(),
            inbox: BytesMut::new(),
            outbox: BytesMut::new(),
            queued_bytes: 0,
            written_bytes: 0,
            welcome: Welcome {
                protocol: 0,
                node: Default::default(),
                cluster: None,
                version: String::new(),
                in_flight_max: 0,
            },
        };
        let hello = Hello { protocol: PROTOCOL, client: client.to_owned() };
        connection.queue_encoded(wire::encode(&hello).into())?;
        match connection.receive().await? {
            ServerFrame::Welcome(welcome) if welcome.in_flight_max > 0 => connection.welcome = welcome,
            ServerFrame::Refused(error) => {
                return Err(ConnectionError::Refused { addr: addr.to_owned(), error });
            }
            other => return Err(garbled(addr, format!("a welcome was due, got {}", name_of(&other)))),
        }
        Ok(connection)
    }

    /// What the node said of itself.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// The address that was dialled.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Queues a request. Nothing is written until [`receive`](Self::receive) or [`flush`](Self::flush) is polled.
    ///
    /// # Errors
    /// As [`queue_encoded`](Self::queue_encoded).
    pub fn queue(&mut self, frame: &RequestFrame) -> Result<(), ConnectionError> {
        self.queue_encoded(wire::encode(frame).into())
    }

    /// Queues a frame that is encoded already, without its length.
    ///
    /// # Errors
    /// [`ConnectionError::Garbled`] when it is over the frame limit, which the node would not survive reading.
    pub fn queue_encoded(&mut self, frame: Bytes) -> Result<(), ConnectionError> {
        let before = self.outbox.len();
        self.codec
            .encode(frame, &mut self.outbox)
            .map_err(|error| garbled(&self.addr, format!("frame not sent: {error}")))?;
        self.queued_bytes += (self.outbox.len() - before) as u64;
        Ok(())
    }

    /// Bytes queued over the life of the connection. A frame whose first byte is at or beyond
    /// [`written_bytes`](Self::written_bytes) never left this machine.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    /// Bytes handed to the system over the life of the connection.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Bytes queued and not yet written.
    pub fn unwritten_bytes(&self) -> usize {
        self.outbox.len()
    }

    /// The next frame, decoded. Writes what is queued meanwhile. Cancelling it loses nothing.
    ///
    /// # Errors
    /// [`ConnectionError`] when the stream ended or broke, or held something undecodable. The connection
    /// is of no use afterwards.
    pub async fn receive(&mut self) -> Result<ServerFrame, ConnectionError> {
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// The next frame's bytes, for callers that look at less than all of it.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub async fn receive_encoded(&mut self) -> Result<BytesMut, ConnectionError> {
        poll_fn(|cx| self.poll_receive_encoded(cx)).await
    }

    /// A frame that has arrived already, without touching the stream.
    ///
    /// # Errors
    /// [`ConnectionError::Garbled`] for a frame over the limit.
    pub fn buffered(&mut self) -> Result<Option<BytesMut>, ConnectionError> {
        match self.codec.decode(&mut self.inbox) {
            Ok(frame) => Ok(frame),
            Err(error) => Err(garbled(&self.addr, error)),
        }
    }

    /// Writes all that is queued.
    ///
    /// # Errors
    /// [`ConnectionError::Broken`] when the stream broke.
    pub async fn flush(&mut self) -> Result<(), ConnectionError> {
        poll_fn(|cx| self.poll_write(cx)).await
    }

    /// Polls for [`receive`](Self::receive).
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<ServerFrame, ConnectionError>> {
        let frame = ready!(self.poll_receive_encoded(cx))?;
        Poll::Ready(wire::decode(&frame).map_err(|error| garbled(&self.addr, error.message)))
    }

    fn poll_receive_encoded(&mut self, cx: &mut Context<'_>) -> Poll<Result<BytesMut, ConnectionError>> {
        // A failed write is not reported before what can still be read: a node that refuses says why, then
        // closes, and the reason must not be lost to the broken pipe.
        let writing = self.poll_write(cx);
        loop {
            if let Some(frame) = self.buffered()? {
                return Poll::Ready(Ok(frame));
            }
            if self.inbox.is_empty() && self.inbox.capacity() > BUFFER_BYTES_KEPT {
                self.inbox = BytesMut::new();
            }
            // Only when full: the codec has made room for exactly the frame that is arriving, and a large one
            // must not be copied again for a few bytes beyond it.
            if self.inbox.capacity() == self.inbox.len() {
                self.inbox.reserve(READ_BYTES);
            }
            let read = pin!(self.stream.read_buf(&mut self.inbox)).poll(cx);
            match read {
                Poll::Ready(Ok(0)) => {
                    let reason =
                        if self.inbox.is_empty() { "closed by the node" } else { "cut within a frame" };
                    return Poll::Ready(Err(broken(&self.addr, reason)));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(broken(&self.addr, error))),
                Poll::Pending => break,
            }
        }
        match writing {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Pending,
        }
    }

    /// Writes as much of what is queued as the stream takes; ready when nothing is left.
    ///
    /// # Errors
    /// [`ConnectionError::Broken`] when the stream broke.
    pub fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        while !self.outbox.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.outbox)) {
                Ok(0) => return Poll::Ready(Err(broken(&self.addr, "the stream takes no more bytes"))),
                Ok(count) => {
                    self.outbox.advance(count);
                    self.written_bytes += count as u64;
                }
                Err(error) => return Poll::Ready(Err(broken(&self.addr, error))),
            }
        }
        if self.outbox.capacity() > BUFFER_BYTES_KEPT {
            self.outbox = BytesMut::new();
        }
        match ready!(Pin::new(&mut self.stream).poll_flush(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(broken(&self.addr, error))),
        }
    }
}

fn broken(addr: &str, reason: impl ToString) -> ConnectionError {
    ConnectionError::Broken { addr: addr.to_owned(), reason: reason.to_string() }
}

fn garbled(addr: &str, reason: impl ToString) -> ConnectionError {
    ConnectionError::Garbled { addr: addr.to_owned(), reason: reason.to_string() }
}

fn name_of(frame: &ServerFrame) -> &'static str {
    match frame {
        ServerFrame::Welcome(_) => "a welcome without room for requests",
        ServerFrame::Refused(_) => "a refusal",
        ServerFrame::Response { .. } => "a response",
    }
}
