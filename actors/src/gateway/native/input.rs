//! Frames out of a stream of bytes: each a 32-bit big-endian length and that many bytes.
//!
//! An idle connection holds no buffer: the first bytes of a frame are read onto the stack, and a buffer that
//! is used up is given back. A frame that is small comes in with its neighbours; a large one is read into a
//! buffer of its size, which its caller has budgeted for first.

use super::super::listen::BoxedStream;
use super::super::options::LARGE_BYTES;
use bytes::{Buf, BytesMut};
use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use trandb_cluster::Error;

/// Bytes of a frame's length.
pub(super) const HEADER_BYTES: usize = 4;

/// What one read takes at the most, unless it continues a large frame. Small enough for the stack, large
/// enough that a pipelining client's requests come in tens.
const READ_BYTES: usize = 16 << 10;

/// Bytes of frames after which a run ends: bounds one step of decoding and one claim on the budget.
const RUN_BYTES_MAX: usize = 256 << 10;

/// What stands at the front of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Front {
    /// Nothing.
    Empty,
    /// The beginning of a small frame.
    Partial,
    /// The beginning of a large frame of so many bytes, header included.
    PartialLarge { bytes: usize },
    /// Whole frames: so many, of so many bytes together. A large frame comes alone.
    Whole { frames: usize, bytes: usize },
}

/// Bytes that were received and not yet consumed.
pub(super) struct Input {
    buffer: BytesMut,
    frame_bytes_max: usize,
}

impl Input {
    /// Takes frames of up to `frame_bytes_max` bytes.
    pub(super) fn new(frame_bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), frame_bytes_max }
    }

    /// Changes the largest frame that is taken.
    pub(super) fn set_frame_bytes_max(&mut self, bytes: usize) {
        self.frame_bytes_max = bytes;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// What has been received, as far as it matters: at most `frames_max` frames are counted.
    ///
    /// # Errors
    /// `too_large` when a frame claims more than the limit; `invalid` when it claims nothing.
    pub(super) fn front(&self, frames_max: usize) -> Result<Front, Error> {
        let mut frames = 0;
        let mut end = 0;
        while frames < frames_max {
            let Some(header) = self.buffer.get(end..end + HEADER_BYTES) else { break };
            let length = u32::from_be_bytes(header.try_into().expect("sliced to four bytes")) as usize;
            if length > self.frame_bytes_max || length == 0 {
                // Frames in front of it are whole and are answered first.
                if frames > 0 {
                    break;
                }
                return Err(if length == 0 {
                    Error::invalid("a frame of 0 bytes")
                } else {
                    Error::too_large(format!(
                        "a frame of {length} bytes, the limit is {}",
                        self.frame_bytes_max
                    ))
                });
            }
            let bytes = HEADER_BYTES + length;
            let whole = self.buffer.len() >= end + bytes;
            if bytes > LARGE_BYTES {
                return Ok(match (frames, whole) {
                    (0, true) => Front::Whole { frames: 1, bytes },
                    (0, false) => Front::PartialLarge { bytes },
                    _ => Front::Whole { frames, bytes: end },
                });
            }
            if !whole || (frames > 0 && end + bytes > RUN_BYTES_MAX) {
                break;
            }
            frames += 1;
            end += bytes;
        }
        Ok(match frames {
            0 if self.buffer.is_empty() => Front::Empty,
            0 => Front::Partial,
            _ => Front::Whole { frames, bytes: end },
        })
    }

    /// The payloads of the first `frames` frames, which must be whole.
    pub(super) fn frames(&self, frames: usize) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.buffer[..];
        (0..frames).map(move |_| {
            let (header, tail) = rest.split_at(HEADER_BYTES);
            let length = u32::from_be_bytes(header.try_into().expect("split at four bytes")) as usize;
            let (payload, tail) = tail.split_at(length);
            rest = tail;
            payload
        })
    }

    /// Forgets the first `bytes`.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.buffer.advance(bytes);
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// Makes room for a frame of `bytes` at the front, which has been budgeted for.
    pub(super) fn reserve_large(&mut self, bytes: usize) {
        self.buffer.reserve(bytes.saturating_sub(self.buffer.len()));
    }

    /// Reads once. Zero bytes: the client has closed its side.
    pub(super) fn poll_read(
        &mut self,
        stream: &mut BoxedStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.buffer.is_empty() {
            let mut space = [MaybeUninit::uninit(); READ_BYTES];
            let mut space = ReadBuf::uninit(&mut space);
            ready!(Pin::new(stream).poll_read(cx, &mut space))?;
            self.buffer.extend_from_slice(space.filled());
            return Poll::Ready(Ok(space.filled().len()));
        }
        if self.buffer.capacity() == self.buffer.len() {
            self.buffer.reserve(READ_BYTES);
        }
        pin!(stream.read_buf(&mut self.buffer)).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(bytes: &[u8]) -> Input {
        Input { buffer: BytesMut::from(bytes), frame_bytes_max: 1 << 20 }
    }

    fn frame(length: usize) -> Vec<u8> {
        let mut bytes = (length as u32).to_be_bytes().to_vec();
        bytes.resize(HEADER_BYTES + length, 7);
        bytes
    }

    #[test]
    fn whole_frames_are_counted_and_a_partial_one_waits() {
        let mut bytes = [frame(3), frame(5)].concat();
        bytes.extend_from_slice(&frame(9)[..6]);
        let mut input = input(&bytes);
        assert_eq!(input.front(10), Ok(Front::Whole { frames: 2, bytes: 16 }));
        assert_eq!(input.front(1), Ok(Front::Whole { frames: 1, bytes: 7 }));
        assert_eq!(input.frames(2).map(<[u8]>::len).collect::<Vec<_>>(), [3, 5]);
        input.consume(16);
        assert_eq!(input.front(10), Ok(Front::Partial));
        input.consume(6);
        assert_eq!(input.front(10), Ok(Front::Empty));
        assert_eq!(input.buffer.capacity(), 0);
    }

    #[test]
    fn a_large_frame_comes_alone() {
        let large = frame(LARGE_BYTES);
        let bytes = [frame(1), large.clone(), frame(1)].concat();
        let mut input = input(&bytes);
        assert_eq!(input.front(10), Ok(Front::Whole { frames: 1, bytes: 5 }));
        input.consume(5);
        assert_eq!(input.front(10), Ok(Front::Whole { frames: 1, bytes: large.len() }));
        input.consume(large.len());
        assert_eq!(input.front(10), Ok(Front::Whole { frames: 1, bytes: 5 }));
    }

    #[test]
    fn a_large_claim_is_known_before_its_bytes_are_there() {
        assert_eq!(
            input(&frame(LARGE_BYTES)[..HEADER_BYTES]).front(1),
            Ok(Front::PartialLarge { bytes: HEADER_BYTES + LARGE_BYTES })
        );
    }

    #[test]
    fn a_claim_over_the_limit_is_a_fault_after_the_frames_before_it() {
        let bytes = [frame(1), u32::MAX.to_be_bytes().to_vec()].concat();
        let mut input = input(&bytes);
        assert_eq!(input.front(10), Ok(Front::Whole { frames: 1, bytes: 5 }));
        input.consume(5);
        let error = input.front(10).expect_err("4 GiB");
        assert_eq!(error.to_string(), "too_large: a frame of 4294967295 bytes, the limit is 1048576");
    }

    #[test]
    fn a_run_ends_at_its_limit() {
        let bytes: Vec<u8> = std::iter::repeat_with(|| frame(60 << 10)).take(10).flatten().collect();
        assert!(
            matches!(input(&bytes).front(10), Ok(Front::Whole { frames: 4, bytes }) if bytes <= RUN_BYTES_MAX)
        );
    }
}
