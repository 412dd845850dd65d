//! Keys: what a client may name, how it is stored, and where on the ring it lies.

use crate::error::Error;
use crate::ids::KeyspaceId;
use crate::limits::KEY_BYTES_MAX;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A valid key: UTF-8, 1 to [`KEY_BYTES_MAX`] bytes. Its bytes are shared, so a clone is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// Checks `bytes`.
    ///
    /// # Errors
    /// `invalid` for an empty key, one over the limit, or one that is not UTF-8.
    pub fn new(bytes: Bytes) -> Result<Self, Error> {
        if bytes.is_empty() {
            return Err(Error::invalid("the key is empty"));
        }
        if bytes.len() > KEY_BYTES_MAX {
            return Err(Error::invalid(format!(
                "the key has {} bytes, the limit is {KEY_BYTES_MAX}",
                bytes.len()
            )));
        }
        if let Err(error) = std::str::from_utf8(&bytes) {
            return Err(Error::invalid(format!("the key is not UTF-8 at byte {}", error.valid_up_to())));
        }
        Ok(Self(bytes))
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("checked when the key was made")
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// A key as it is stored: the keyspace's number in four big-endian bytes, then the key. Order within a
/// keyspace is the order of keys, so a scan is a range.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EncodedKey(Bytes);

const KEYSPACE_BYTES: usize = 4;

impl EncodedKey {
    /// Joins a keyspace and a key.
    pub fn new(keyspace: KeyspaceId, key: &Key) -> Self {
        Self::from_parts(keyspace, key.as_bytes())
    }

    /// Joins a keyspace and raw bytes: a scan bound, which need not be a valid key.
    pub fn from_parts(keyspace: KeyspaceId, bytes: &[u8]) -> Self {
        let mut joined = Vec::with_capacity(KEYSPACE_BYTES + bytes.len());
        joined.extend_from_slice(&keyspace.0.to_be_bytes());
        joined.extend_from_slice(bytes);
        Self(joined.into())
    }

    /// The first key after a key: that and a zero byte.
    pub fn after(keyspace: KeyspaceId, key: &[u8]) -> Self {
        let mut next = key.to_vec();
        next.push(0);
        Self::from_parts(keyspace, &next)
    }

    /// Takes bytes that were an encoded key before: from the log, a checkpoint, or a peer.
    ///
    /// # Errors
    /// `invalid` when they are too short to hold a keyspace.
    pub fn from_stored(bytes: Bytes) -> Result<Self, Error> {
        if bytes.len() < KEYSPACE_BYTES {
            return Err(Error::invalid(format!("a stored key has only {} bytes", bytes.len())));
        }
        Ok(Self(bytes))
    }

    /// All bytes, keyspace first.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The keyspace that it is of.
    pub fn keyspace(&self) -> KeyspaceId {
        self.0.first_chunk().map_or(KeyspaceId::INTERNAL, |id| KeyspaceId(u32::from_be_bytes(*id)))
    }

    /// The key's own bytes, without the keyspace.
    pub fn user_key(&self) -> Bytes {
        self.0.slice(KEYSPACE_BYTES..)
    }

    /// Whether it is one that partitions keep for themselves.
    pub fn is_internal(&self) -> bool {
        self.0.starts_with(&KeyspaceId::INTERNAL.0.to_be_bytes())
    }

    /// Where the key lies on the ring.
    pub fn token(&self) -> Token {
        Token(xxhash_rust::xxh3::xxh3_64(&self.0))
    }
}

impl fmt::Debug for EncodedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.escape_ascii().to_string())
    }
}

/// A point on the 64-bit ring. Of a key in a hash-partitioned keyspace: the XXH3 hash of the encoded key.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_checked_at_both_ends() {
        assert!(Key::new(Bytes::from(vec![b'k'; KEY_BYTES_MAX])).is_ok());
        let error = Key::new(Bytes::from(vec![b'k'; KEY_BYTES_MAX + 1])).expect_err("over the limit");
        assert_eq!(error.message, "the key has 1025 bytes, the limit is 1024");
        assert_eq!(Key::new(Bytes::new()).expect_err("empty").message, "the key is empty");
        let error = Key::new(Bytes::from_static(b"ab\xff")).expect_err("not UTF-8");
        assert_eq!(error.message, "the key is not UTF-8 at byte 2");
    }

    #[test]
    fn order_within_a_keyspace_is_the_order_of_keys() {
        let encode = |text: &'static str| {
            EncodedKey::new(
                KeyspaceId::DEFAULT,
                &Key::new(Bytes::from_static(text.as_bytes())).expect("valid"),
            )
        };
        assert!(encode("a") < encode("a\0"));
        assert!(encode("a\0") < encode("ab"));
        assert!(encode("zz") < EncodedKey::from_parts(KeyspaceId(2), b""));
        assert_eq!(encode("abc").user_key(), "abc");
    }

    #[test]
    fn the_token_of_a_key_never_changes() {
        let key = EncodedKey::from_parts(KeyspaceId::DEFAULT, b"where am I?");
        assert_eq!(key.token(), Token(xxhash_rust::xxh3::xxh3_64(b"\0\0\0\x01where am I?")));
    }
}
