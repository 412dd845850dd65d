//! How log entries lie in the write-ahead log: a tag, then the command's bytes as they are.

use super::types::{LogId, Membership, Proposal, TypeConfig};
use bytes::{BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::type_config::alias::EntryOf;
use std::io;

const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Encodes an entry's payload; its term and index stand in the record around it.
pub fn encode_entry(entry: &EntryOf<TypeConfig>) -> Bytes {
    match &entry.payload {
        EntryPayload::Blank => Bytes::from_static(&[BLANK]),
        EntryPayload::Normal(Proposal(command)) => {
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
        MEMBERSHIP => {
            let membership: Membership =
                trandb_cluster::wire::decode(&payload[1..]).map_err(|error| bad(error.message))?;
            EntryPayload::Membership(membership)
        }
        other => return Err(bad(format!("unknown kind {other}"))),
    };
    Ok(openraft::Entry { log_id, payload })
}
