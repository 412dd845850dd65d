//! Frames on their way to the client. Replies are encoded one after another into one buffer, and as much of
//! it is written as the network takes: at low load one reply per write, at high load many.

use super::super::listen::BoxedStream;
use super::input::HEADER_BYTES;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;
use trandb_cluster::wire::ServerFrame;

/// Unwritten bytes after which no more replies are encoded and no more requests are read: a client that
/// does not read its replies waits for itself. Replies themselves are small or shared until then.
const OUTPUT_BYTES_MAX: usize = 256 << 10;

/// An emptied buffer up to this size is kept while requests are in flight.
const KEEP_BYTES: usize = 64 << 10;

/// Encoded frames, and how much of them is written.
#[derive(Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    written: usize,
}

impl Output {
    /// Appends a frame.
    pub(super) fn push(&mut self, frame: &ServerFrame) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEADER_BYTES]);
        rmp_serde::encode::write_named(&mut self.bytes, frame)
            .expect("plain data always encodes into memory");
        let length =
            u32::try_from(self.bytes.len() - start - HEADER_BYTES).expect("frames stay far below 4 GiB");
        self.bytes[start..start + HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether the client should read first.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() - self.written >= OUTPUT_BYTES_MAX
    }

    /// All that is not yet written.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// Writes once and says how much went out.
    pub(super) fn poll_write(
        &mut self,
        stream: &mut BoxedStream,
        keep: bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(stream).poll_write(cx, &self.bytes[self.written..]))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.written += written;
        if self.written == self.bytes.len() {
            self.written = 0;
            if keep && self.bytes.capacity() <= KEEP_BYTES {
                self.bytes.clear();
            } else {
                self.bytes = Vec::new();
            }
        }
        Poll::Ready(Ok(written))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trandb_cluster::wire::{Response, decode};

    #[test]
    fn frames_carry_their_length() {
        let frame = ServerFrame::Response { id: 9, forwarded: false, result: Ok(Response::Pong) };
        let mut output = Output::default();
        output.push(&frame);
        output.push(&frame);
        let half = output.rest().len() / 2;
        let bytes = &output.rest()[half..];
        assert_eq!(bytes[..HEADER_BYTES], (half as u32 - 4).to_be_bytes());
        assert_eq!(decode::<ServerFrame>(&bytes[HEADER_BYTES..]), Ok(frame));
    }
}
