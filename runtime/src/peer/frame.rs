//! Bounded frames for what is said before a link exists: a big-endian `u32` length, then that many bytes.

use super::handshake::HandshakeError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Reads one frame, never allocating more than `bytes_max`, and exactly to its end, since the stream may be
/// handed on afterwards.
pub(super) async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    bytes_max: usize,
) -> Result<Vec<u8>, HandshakeError> {
    let bytes = stream.read_u32().await.map_err(closed)?;
    if bytes as usize > bytes_max {
        return Err(HandshakeError::FrameTooLarge { bytes });
    }
    let mut frame = vec![0; bytes as usize];
    stream.read_exact(&mut frame).await.map_err(closed)?;
    Ok(frame)
}

/// Writes one frame and flushes it.
pub(super) async fn write<S: AsyncWrite + Unpin>(stream: &mut S, frame: &[u8]) -> Result<(), HandshakeError> {
    let mut bytes = Vec::with_capacity(4 + frame.len());
    bytes.extend_from_slice(&(frame.len() as u32).to_be_bytes());
    bytes.extend_from_slice(frame);
    stream.write_all(&bytes).await.map_err(closed)?;
    stream.flush().await.map_err(closed)
}

/// Encodes the body of a frame.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("handshake types hold nothing that MessagePack lacks")
}

/// Decodes the body of a frame.
pub(super) fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, HandshakeError> {
    rmp_serde::from_slice(frame).map_err(|_| HandshakeError::Malformed)
}

/// An I/O error as the handshake sees it.
pub(super) fn closed(error: io::Error) -> HandshakeError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            HandshakeError::Closed
        }
        kind => HandshakeError::Io(kind),
    }
}
