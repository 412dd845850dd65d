//! How log entries lie in the write-ahead log: a tag, then the command's bytes as they are, or their number and the bytes as
//! LZ4 has them.

use super::types::{LogId, Membership, Proposal, TypeConfig};
use crate::wal::RECORD_BYTES_MAX;
use bytes::{BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::type_config::alias::EntryOf;
use std::io;

const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;
const COMMAND_LZ4: u8 = 3;

/// What compression must save of a command, one part in so many, to be worth the time that reading it back takes.
const SAVED_MIN_PARTS: usize = 8;

/// The number of bytes before compression.
const LENGTH_BYTES: usize = 4;

/// Encodes an entry's payload; its term and index stand in the record around it. Commands of `lz4_from` bytes and more are
/// compressed where that saves something.
pub fn encode_entry(entry: &EntryOf<TypeConfig>, lz4_from: usize) -> Bytes {
    match &entry.payload {
        EntryPayload::Blank => Bytes::from_static(&[BLANK]),
        EntryPayload::Normal(Proposal(command)) => {
            if command.len() >= lz4_from
                && let Some(compressed) = compress(command)
            {
                return compressed;
            }
            let mut out = BytesMut::with_capacity(1 + command.len());
            out.put_u8(COMMAND);
            out.put_slice(command);
            out.freeze()
        }
        EntryPayload::Membership(membership) => {
            let mut out = vec![MEMBERSHIP];
            out.extend(trandb_cluster::wire::encode(membership));
            out.into()
        }
    }
}

/// Decodes what [`encode_entry`] wrote.
///
/// # Errors
/// `InvalidData` for bytes that it never writes.
pub fn decode_entry(log_id: LogId, payload: &Bytes) -> io::Result<EntryOf<TypeConfig>> {
    let bad =
        |what: String| io::Error::new(io::ErrorKind::InvalidData, format!("log entry {log_id}: {what}"));
    let tag = *payload.first().ok_or_else(|| bad("empty".into()))?;
    let payload = match tag {
        BLANK => EntryPayload::Blank,
        COMMAND => EntryPayload::Normal(Proposal(payload.slice(1..))),
        COMMAND_LZ4 => EntryPayload::Normal(Proposal(decompress(&payload[1..]).map_err(bad)?)),
        MEMBERSHIP => {
            let membership: Membership =
                trandb_cluster::wire::decode(&payload[1..]).map_err(|error| bad(error.message))?;
            EntryPayload::Membership(membership)
        }
        other => return Err(bad(format!("unknown kind {other}"))),
    };
    Ok(openraft::Entry { log_id, payload })
}

/// The command in what [`encode_entry`] wrote, if it is that of one.
///
/// # Errors
/// As [`decode_entry`].
pub fn decode_command(log_id: LogId, payload: &Bytes) -> io::Result<Option<Bytes>> {
    Ok(match decode_entry(log_id, payload)?.payload {
        EntryPayload::Normal(Proposal(command)) => Some(command),
        EntryPayload::Blank | EntryPayload::Membership(_) => None,
    })
}

/// None if it is not worth it.
fn compress(command: &[u8]) -> Option<Bytes> {
    let length = u32::try_from(command.len()).ok()?;
    let head = 1 + LENGTH_BYTES;
    let mut out = vec![0; head + lz4_flex::block::get_maximum_output_size(command.len())];
    out[0] = COMMAND_LZ4;
    out[1..head].copy_from_slice(&length.to_le_bytes());
    let compressed = lz4_flex::block::compress_into(command, &mut out[head..]).ok()?;
    if compressed + command.len() / SAVED_MIN_PARTS > command.len() {
        return None;
    }
    // Not as a part of what was allocated for the worst case: it stays until it is written.
    Some(Bytes::copy_from_slice(&out[..head + compressed]))
}

fn decompress(payload: &[u8]) -> Result<Bytes, String> {
    let (length, compressed) =
        payload.split_first_chunk::<LENGTH_BYTES>().ok_or_else(|| "its length is missing".to_owned())?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > RECORD_BYTES_MAX {
        return Err(format!("it claims {length} bytes, at most {RECORD_BYTES_MAX} are possible"));
    }
    let command = lz4_flex::block::decompress(compressed, length).map_err(|error| error.to_string())?;
    if command.len() != length {
        return Err(format!("it claims {length} bytes and has {}", command.len()));
    }
    Ok(command.into())
}

#[cfg(test)]
mod tests {
    use super::super::log::log_id;
    use super::*;

    fn entry(command: &[u8]) -> EntryOf<TypeConfig> {
        openraft::Entry {
            log_id: log_id(3, 9),
            payload: EntryPayload::Normal(Proposal(Bytes::copy_from_slice(command))),
        }
    }

    fn bytes(count: usize, of: impl Fn(usize) -> u8) -> Vec<u8> {
        (0..count).map(of).collect()
    }

    /// Bytes without a pattern.
    fn noise(count: usize) -> Vec<u8> {
        let mut state = 1_u64;
        bytes(count, |_| 0)
            .into_iter()
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) as u8
            })
            .collect()
    }

    #[test]
    fn large_commands_are_compressed_where_that_saves_something() {
        for (command, smaller) in [
            (bytes(999, |at| at as u8 / 16), false),
            (bytes(1000, |at| at as u8 / 16), true),
            (bytes(4 << 20, |at| (at / 100) as u8), true),
            (noise(5000), false),
            (Vec::new(), false),
        ] {
            let encoded = encode_entry(&entry(&command), 1000);
            assert_eq!(encoded.len() < command.len(), smaller, "{} bytes", command.len());
            assert_eq!(encoded.len() > command.len(), !smaller, "at most a tag is added");
            let decoded = decode_entry(log_id(3, 9), &encoded).expect("is what was encoded");
            assert!(decoded == entry(&command));
            assert_eq!(
                encode_entry(&entry(&command), usize::MAX).len(),
                command.len() + 1,
                "asked for never"
            );
        }
    }

    #[test]
    fn what_is_no_compressed_command_is_refused() {
        let good = encode_entry(&entry(&bytes(5000, |at| at as u8 / 32)), 0);
        let refused =
            |bytes: Vec<u8>| decode_entry(log_id(3, 9), &bytes.into()).expect_err("is damaged").to_string();
        for cut in 1..good.len() {
            refused(good[..cut].to_vec());
        }
        let mut long = good.to_vec();
        long[1..5].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(refused(long).contains("it claims 4294967295 bytes, at most"));
        let mut short = good.to_vec();
        short[1..5].copy_from_slice(&10_u32.to_le_bytes());
        refused(short);
        let mut more = good.to_vec();
        more[1..5].copy_from_slice(&6000_u32.to_le_bytes());
        assert!(refused(more).contains("it claims 6000 bytes and has 5000"));
    }
}
