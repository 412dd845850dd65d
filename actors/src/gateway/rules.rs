//! What every door checks and answers alike.

use bytes::Bytes;
use trandb_cluster::command::{Condition, Write};
use trandb_cluster::limits::VALUE_BYTES_MAX;
use trandb_cluster::{EncodedKey, Error, Key, KeyspaceId, Timestamp};

/// Checks and encodes a key.
pub(crate) fn key(keyspace: KeyspaceId, key: Bytes) -> Result<EncodedKey, Error> {
    Ok(EncodedKey::new(keyspace, &Key::new(key)?))
}

/// Checks a value's size.
pub(crate) fn value_bytes(bytes: usize) -> Result<(), Error> {
    if bytes > VALUE_BYTES_MAX {
        return Err(Error::too_large(format!("the value has {bytes} bytes, the limit is {VALUE_BYTES_MAX}")));
    }
    Ok(())
}

/// A checked write. Zero is the version of nothing: waiting for it would look like "absent" and never hold.
pub(crate) fn write(key: EncodedKey, value: Option<Bytes>, condition: Condition) -> Result<Write, Error> {
    value_bytes(value.as_ref().map_or(0, Bytes::len))?;
    if condition == Condition::Version(Timestamp::ZERO) {
        return Err(Error::invalid("no value has version 0"));
    }
    Ok(Write { key, value, condition })
}

/// A failed condition as the error that doors answer.
pub(crate) fn condition_failed(current: Option<Timestamp>) -> Error {
    Error::condition_failed(match current {
        Some(version) => format!("the key's version is {version}"),
        None => "the key has no value".to_owned(),
    })
}

/// What a request that was not answered in time is told: a write may have been done.
pub(crate) fn overdue(is_write: bool) -> Error {
    let message = "no answer within the deadline";
    if is_write { Error::unknown(message) } else { Error::unavailable(message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_the_limit_passes_and_one_byte_more_does_not() {
        assert!(value_bytes(VALUE_BYTES_MAX).is_ok());
        let error = value_bytes(VALUE_BYTES_MAX + 1).expect_err("over the limit");
        assert_eq!(error.to_string(), "too_large: the value has 4194305 bytes, the limit is 4194304");
    }

    #[test]
    fn version_zero_is_no_condition() {
        let key = key(KeyspaceId::DEFAULT, Bytes::from_static(b"k")).expect("valid");
        assert!(write(key.clone(), None, Condition::Version(Timestamp(1))).is_ok());
        assert!(write(key, None, Condition::Version(Timestamp::ZERO)).is_err());
    }
}
