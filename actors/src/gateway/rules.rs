//! What every door checks and answers alike.

use super::backend::Backend;
use bytes::Bytes;
use trandb_cluster::command::{Condition, Write};
use trandb_cluster::limits::{TXN_OPS_MAX, VALUE_BYTES_MAX};
use trandb_cluster::txn::{Blocker, TxnKey, TxnOp, TxnRequest};
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
    check_write(value.as_ref(), condition)?;
    Ok(Write { key, value, condition })
}

fn check_write(value: Option<&Bytes>, condition: Condition) -> Result<(), Error> {
    value_bytes(value.map_or(0, Bytes::len))?;
    if condition == Condition::Version(Timestamp::ZERO) {
        return Err(Error::invalid("no value has version 0"));
    }
    Ok(())
}

/// Checks what is asked of transactions: every key, value, and keyspace in it, before a coordinator is troubled.
pub(crate) fn txn(request: &TxnRequest, backend: &dyn Backend) -> Result<(), Error> {
    match request {
        TxnRequest::Begin { read_only: false, at: Some(_), .. } => {
            Err(Error::invalid("only a read-only transaction can read the past"))
        }
        TxnRequest::Op { op, .. } => txn_op(op, backend),
        TxnRequest::Batch(batch) if batch.ops.is_empty() => {
            Err(Error::invalid("the batch has no operations"))
        }
        TxnRequest::Batch(batch) if batch.ops.len() > TXN_OPS_MAX => {
            Err(Error::too_large(format!("the batch has more than {TXN_OPS_MAX} operations")))
        }
        TxnRequest::Batch(batch) => batch.ops.iter().enumerate().try_for_each(|(index, op)| {
            txn_op(op, backend)
                .map_err(|error| Error { message: format!("operation {index}: {}", error.message), ..error })
        }),
        TxnRequest::Begin { .. }
        | TxnRequest::Commit { .. }
        | TxnRequest::Abort { .. }
        | TxnRequest::Outcome { .. }
        | TxnRequest::Names { .. } => Ok(()),
    }
}

fn txn_op(op: &TxnOp, backend: &dyn Backend) -> Result<(), Error> {
    let check = |TxnKey { key, keyspace }: &TxnKey| {
        backend.keyspace(keyspace.as_deref())?;
        Key::new(key.clone()).map(drop)
    };
    match op {
        TxnOp::Get(key) | TxnOp::GetForUpdate(key) | TxnOp::Lock(key) => check(key),
        TxnOp::Write(write) => {
            check(&write.key)?;
            check_write(write.value.as_ref(), write.condition)
        }
        TxnOp::Scan(scan) if scan.at.is_some() => Err(Error::invalid(
            "a scan within a transaction reads as of the transaction, not at another time",
        )),
        TxnOp::Scan(scan) => backend.keyspace(scan.keyspace.as_deref()).map(drop),
    }
}

/// Whether what was asked may have been done when no answer came, so that asking again is not the same. Beginning
/// again only leaves a transaction behind that ends by itself; reads, locks, aborts and outcomes are the same twice.
pub(crate) fn txn_is_write(request: &TxnRequest) -> bool {
    matches!(
        request,
        TxnRequest::Commit { .. } | TxnRequest::Batch(_) | TxnRequest::Op { op: TxnOp::Write(_), .. }
    )
}

/// A failed condition as the error that doors answer. Within a transaction version 0 is what it has written itself.
pub(crate) fn condition_failed(current: Option<Timestamp>) -> Error {
    Error::condition_failed(match current {
        Some(Timestamp::ZERO) => "the transaction itself has written the key".to_owned(),
        Some(version) => format!("the key's version is {version}"),
        None => "the key has no value".to_owned(),
    })
}

/// A write that a transaction stood in the way of. The key's partition waits for its end, so doors hardly see one.
pub(crate) fn blocked(blocker: &Blocker) -> Error {
    Error::unavailable(format!("transaction {} is being committed and holds the key", blocker.txn))
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
