//! Fingerprints of a partition's live data, by which replicas are compared without sending the data.
//!
//! The digest of a state is the wrapping sum of one XXH3-128 hash per live key. A sum has no order, so a write
//! costs one subtraction and one addition, whatever the number of keys, and replicas that got to the same data
//! by different roads (log, checkpoint, snapshot) agree.
//!
//! **Caveat:** this finds accidents, not malice: sums of a non-cryptographic hash can be forged.

use crate::key::EncodedKey;
use crate::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

/// Input up to this many bytes is hashed from the stack at once; more goes through the streaming hasher,
/// which costs some 100 ns to set up. Both give the same hash.
const STACK_BYTES: usize = 256;

/// A sum of hashes of live keys, shown as 32 hexadecimal digits. Zero is the digest of no data.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub u128);

impl Digest {
    /// The digest of one live key: XXH3-128 over the key's length in four big-endian bytes, the key, the
    /// version in eight, and the value.
    pub fn of(key: &EncodedKey, version: Timestamp, value: &[u8]) -> Self {
        let key = key.as_bytes();
        let length = (key.len() as u32).to_be_bytes();
        let version = version.0.to_be_bytes();
        let parts: [&[u8]; 4] = [&length, key, &version, value];
        let total: usize = parts.iter().map(|part| part.len()).sum();
        if total <= STACK_BYTES {
            let mut buffer = [0; STACK_BYTES];
            let mut end = 0;
            for part in parts {
                buffer[end..end + part.len()].copy_from_slice(part);
                end += part.len();
            }
            return Self(xxh3_128(&buffer[..end]));
        }
        let mut hasher = Xxh3Default::new();
        for part in parts {
            hasher.update(part);
        }
        Self(hasher.digest128())
    }

    /// Adds a live key's digest.
    pub fn add(&mut self, one: Self) {
        self.0 = self.0.wrapping_add(one.0);
    }

    /// Takes a live key's digest out again.
    pub fn remove(&mut self, one: Self) {
        self.0 = self.0.wrapping_sub(one.0);
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::str::FromStr for Digest {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(input)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::KeyspaceId;

    fn key(text: &str) -> EncodedKey {
        EncodedKey::from_parts(KeyspaceId::DEFAULT, text.as_bytes())
    }

    #[test]
    fn short_and_long_input_hash_as_one_string_of_bytes() {
        for value_bytes in [0, 1, 200, 230, 231, 232, 233, 5000] {
            let value = vec![7; value_bytes];
            let mut joined = 9_u32.to_be_bytes().to_vec();
            joined.extend_from_slice(b"\0\0\0\x01apple");
            joined.extend_from_slice(&42_u64.to_be_bytes());
            joined.extend_from_slice(&value);
            assert_eq!(
                Digest::of(&key("apple"), Timestamp(42), &value).0,
                xxh3_128(&joined),
                "{value_bytes}"
            );
        }
    }

    #[test]
    fn the_border_between_key_and_value_matters() {
        assert_ne!(Digest::of(&key("ab"), Timestamp(0), b"c"), Digest::of(&key("a"), Timestamp(0), b"bc"),);
    }

    #[test]
    fn a_sum_forgets_order_and_what_was_taken_out() {
        let (a, b) = (Digest::of(&key("a"), Timestamp(1), b""), Digest::of(&key("b"), Timestamp(2), b""));
        let mut one = Digest::default();
        one.add(a);
        one.add(b);
        one.remove(a);
        assert_eq!(one, b);
        one.remove(b);
        assert_eq!(one, Digest(0));
    }

    #[test]
    fn it_travels_as_the_digits_that_people_see() {
        let digest = Digest(0xabc);
        assert_eq!(digest.to_string(), "00000000000000000000000000000abc");
        let bytes = crate::wire::encode(&digest);
        assert_eq!(crate::wire::decode::<String>(&bytes).expect("text"), digest.to_string());
        assert_eq!(crate::wire::decode::<Digest>(&bytes).expect("digest"), digest);
    }
}
