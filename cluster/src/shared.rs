//! Decoding without copying what is large.
//!
//! Decoding copies byte strings out of the message that carried them, so that a value of 100 bytes does not keep a
//! message of a megabyte alive. For a value that is most of its message the copy is pure cost: 4 MiB of fresh memory
//! takes longer to fault in than everything else that is done for its key. So [`decode_sharing`] lets a field marked
//! `#[serde(with = "shared")]` (or `shared::option`) keep a slice of the message where it is at least
//! [`SHARE_BYTES_MIN`] long and at least half of it; at most as much again is kept alive with it. A value that is taken
//! out of a command that was itself taken out of a message may be a quarter of what it keeps.
//!
//! serde has no way to hand the message's owner down to a field, so it stands in a thread-local for the time of one
//! call. Fields that are decoded without it, or from text formats, are copied.

use crate::error::Error;
use bytes::Bytes;
use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde::ser::Serializer;
use std::cell::RefCell;
use std::fmt;

/// Byte strings below this are copied: the copy is cheaper than keeping track of a shared message.
pub const SHARE_BYTES_MIN: usize = 64 << 10;

thread_local! {
    static MESSAGE: RefCell<Option<Bytes>> = const { RefCell::new(None) };
}

/// Decodes what [`crate::wire::encode`] wrote; large marked fields share the message's memory.
///
/// # Errors
/// `invalid` with the decoder's reason.
pub fn decode_sharing<T: DeserializeOwned>(message: &Bytes) -> Result<T, Error> {
    /// Clears the thread-local also when decoding panics.
    struct Cleared;
    impl Drop for Cleared {
        fn drop(&mut self) {
            MESSAGE.with_borrow_mut(Option::take);
        }
    }
    // Nearly all messages are small, and have nothing that could be shared.
    if message.len() < SHARE_BYTES_MIN {
        return crate::wire::decode(message);
    }
    MESSAGE.set(Some(message.clone()));
    let _cleared = Cleared;
    crate::wire::decode(message)
}

fn share(bytes: &[u8]) -> Bytes {
    MESSAGE.with_borrow(|message| match message {
        Some(message) if bytes.len() >= SHARE_BYTES_MIN && bytes.len() >= message.len() / 2 => {
            let (whole, part) = (message.as_ptr_range(), bytes.as_ptr_range());
            let within = whole.start <= part.start && part.end <= whole.end;
            if within { message.slice_ref(bytes) } else { Bytes::copy_from_slice(bytes) }
        }
        _ => Bytes::copy_from_slice(bytes),
    })
}

struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Bytes, E> {
        Ok(share(bytes))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes::copy_from_slice(bytes))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
        Ok(bytes.into())
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Bytes, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = items.next_element::<u8>()? {
            bytes.push(byte);
        }
        Ok(bytes.into())
    }
}

/// For `#[serde(with = …)]`: as `Bytes` encodes itself.
pub fn serialize<S: Serializer>(bytes: &Bytes, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_bytes(bytes)
}

/// For `#[serde(with = …)]`.
pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Bytes, D::Error> {
    input.deserialize_bytes(BytesVisitor)
}

/// The same for an optional field.
pub mod option {
    use super::{BytesVisitor, Visitor, fmt};
    use bytes::Bytes;
    use serde::de::Deserializer;
    use serde::{Serialize, ser::Serializer};

    struct OptionVisitor;

    impl<'de> Visitor<'de> for OptionVisitor {
        type Value = Option<Bytes>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes or nothing")
        }

        fn visit_none<E>(self) -> Result<Option<Bytes>, E> {
            Ok(None)
        }

        fn visit_unit<E>(self) -> Result<Option<Bytes>, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, input: D) -> Result<Option<Bytes>, D::Error> {
            input.deserialize_bytes(BytesVisitor).map(Some)
        }
    }

    /// For `#[serde(with = …)]`: as `Option<Bytes>` encodes itself.
    pub fn serialize<S: Serializer>(bytes: &Option<Bytes>, out: S) -> Result<S::Ok, S::Error> {
        bytes.serialize(out)
    }

    /// For `#[serde(with = …)]`.
    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Bytes>, D::Error> {
        input.deserialize_option(OptionVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, Condition, Write, WriteBatch};
    use crate::wire::encode;
    use crate::{EncodedKey, KeyspaceId, Timestamp};

    fn command(values: &[usize]) -> Command {
        let write = |&bytes: &usize| Write {
            key: EncodedKey::from_parts(KeyspaceId::DEFAULT, b"k"),
            value: Some(vec![7; bytes].into()),
            condition: Condition::Any,
        };
        let mut writes: Vec<Write> = values.iter().map(write).collect();
        writes.push(Write { value: None, ..writes[0].clone() });
        Command::Write(WriteBatch { timestamp: Timestamp(1), gc_floor: Timestamp(0), writes })
    }

    /// Which values of a decoded command lie within the message.
    fn shared(values: &[usize]) -> Vec<bool> {
        let command = command(values);
        let message = Bytes::from(encode(&command));
        let decoded: Command = decode_sharing(&message).expect("decodes");
        assert_eq!(decoded, command);
        let Command::Write(batch) = decoded else { panic!("another kind") };
        let within = |value: &Bytes| message.as_ptr_range().contains(&value.as_ptr());
        batch.writes.iter().filter_map(|write| write.value.as_ref()).map(within).collect()
    }

    #[test]
    fn only_a_value_that_is_most_of_a_large_message_is_shared() {
        assert_eq!(shared(&[SHARE_BYTES_MIN]), [true]);
        assert_eq!(shared(&[SHARE_BYTES_MIN - 1]), [false]);
        assert_eq!(shared(&[SHARE_BYTES_MIN, 3 * SHARE_BYTES_MIN]), [false, true]);
        assert_eq!(shared(&[2 * SHARE_BYTES_MIN, 2 * SHARE_BYTES_MIN, 2 * SHARE_BYTES_MIN]), [false; 3]);
    }

    #[test]
    fn nothing_is_shared_with_a_message_that_was_decoded_before() {
        assert_eq!(shared(&[SHARE_BYTES_MIN]), [true]);
        let message = Bytes::from(encode(&command(&[SHARE_BYTES_MIN])));
        let Command::Write(batch) = crate::wire::decode(&message).expect("decodes") else {
            panic!("another kind")
        };
        let value = batch.writes[0].value.as_ref().expect("a value");
        assert!(!message.as_ptr_range().contains(&value.as_ptr()));
    }
}
