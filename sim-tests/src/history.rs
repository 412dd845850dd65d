//! What clients asked and were told, and whether a linearizable store could have told them so.
//!
//! Every answer carries a version, and versions order all writes of a key. A history of single-key operations is
//! linearizable exactly if that order fits both the values and real time:
//!
//! 1. no two writes of a key have the same version;
//! 2. a read that shows a version shows the value written with it, or that of a write whose outcome nobody knows;
//! 3. an operation that began after another ended has no lower version, and a higher one if it is a write.
//!
//! Versions need no search: this is why a history of any length is checked in one pass per key.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use trandb_client::{Error, ErrorCode, Timestamp, Versioned, Written};
use xxhash_rust::xxh3::xxh3_128;

/// Values up to this are kept as they are, larger ones as their hash.
const KEPT_BYTES_MAX: usize = 64;

/// One operation and its answer.
#[derive(Debug, Clone)]
struct Operation {
    key: String,
    began: Duration,
    ended: Duration,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    /// A read and what it showed; an absent key has the version zero.
    Read { version: Timestamp, value: Option<Bytes> },
    /// A write that was acknowledged.
    Wrote { version: Timestamp, value: Bytes },
    /// A write that may have been done, or may still be.
    Unknown { value: Bytes },
    /// A write that was surely not done, nor ever will be.
    Refused,
}

/// All operations of a run.
#[derive(Debug, Default)]
pub struct History {
    operations: Vec<Operation>,
    failed_reads: usize,
}

/// How many operations ended in which way.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Reads that were answered.
    pub read: usize,
    /// Writes that were acknowledged.
    pub wrote: usize,
    /// Writes of unknown outcome.
    pub unknown: usize,
    /// Operations that were refused.
    pub refused: usize,
}

impl History {
    /// Notes a read that began then and has just ended.
    pub fn read(&mut self, key: &str, began: Duration, answer: &Result<Option<Versioned>, Error>) {
        let what = match answer {
            Ok(None) => What::Read { version: Timestamp(0), value: None },
            Ok(Some(found)) => What::Read { version: found.version, value: Some(brief(&found.value)) },
            Err(_) => {
                self.failed_reads += 1;
                return;
            }
        };
        self.note(key, began, what);
    }

    /// Notes a write that began then and has just ended.
    pub fn wrote(&mut self, key: &str, value: Bytes, began: Duration, answer: &Result<Written, Error>) {
        let value = brief(&value);
        let what = match answer {
            Ok(written) => What::Wrote { version: written.version, value },
            Err(error) if surely_not_done(error) => What::Refused,
            Err(_) => What::Unknown { value },
        };
        self.note(key, began, what);
    }

    fn note(&mut self, key: &str, began: Duration, what: What) {
        self.operations.push(Operation { key: key.to_owned(), began, ended: now(), what });
    }

    /// Writes that were acknowledged: key, version, and when they were.
    pub fn acknowledged(&self) -> impl Iterator<Item = (&str, Timestamp, Duration)> {
        self.written().map(|(key, version, _, ended)| (key, version, ended))
    }

    /// Writes that were acknowledged: key, version, when they began and when they ended.
    pub fn written(&self) -> impl Iterator<Item = (&str, Timestamp, Duration, Duration)> {
        self.operations.iter().filter_map(|operation| match operation.what {
            What::Wrote { version, .. } => Some((&*operation.key, version, operation.began, operation.ended)),
            _ => None,
        })
    }

    /// How the operations ended.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { refused: self.failed_reads, ..Counts::default() };
        for operation in &self.operations {
            match operation.what {
                What::Read { .. } => counts.read += 1,
                What::Wrote { .. } => counts.wrote += 1,
                What::Unknown { .. } => counts.unknown += 1,
                What::Refused => counts.refused += 1,
            }
        }
        counts
    }

    /// What no linearizable store could have answered; empty if there is nothing.
    pub fn violations(&self) -> Vec<String> {
        let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
        for operation in &self.operations {
            keys.entry(&operation.key).or_default().push(operation);
        }
        keys.into_values().flat_map(check).collect()
    }
}

/// Simulated time.
pub fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

/// A value, or what stands for it.
fn brief(value: &Bytes) -> Bytes {
    if value.len() <= KEPT_BYTES_MAX {
        return value.clone();
    }
    format!("{} bytes, {:032x}", value.len(), xxh3_128(value)).into()
}

/// Whether a failed write is over for good. What an error means is in its code alone.
fn surely_not_done(error: &Error) -> bool {
    !matches!(error.code, ErrorCode::Unknown | ErrorCode::Internal)
}

fn check(operations: Vec<&Operation>) -> Vec<String> {
    let mut violations = Vec::new();
    let mut written: BTreeMap<Timestamp, &Bytes> = BTreeMap::new();
    for operation in &operations {
        if let What::Wrote { version, value } = &operation.what
            && let Some(other) = written.insert(*version, value)
        {
            violations.push(format!("{}: {other:?} has the same version: {operation:?}", operation.key));
        }
    }
    let unknown: Vec<&Bytes> = operations
        .iter()
        .filter_map(|operation| match &operation.what {
            What::Unknown { value } => Some(value),
            _ => None,
        })
        .collect();
    for operation in &operations {
        if let What::Read { version, value: Some(value) } = &operation.what {
            let right = match written.get(version) {
                Some(wrote) => *wrote == value,
                None => unknown.contains(&value),
            };
            if !right {
                violations.push(format!("{}: nobody wrote what was read: {operation:?}", operation.key));
            }
        }
    }
    violations.extend(check_time(&operations));
    violations
}

/// Rule 3. Goes through beginnings in order, and knows of the operations that had ended before the highest version.
fn check_time(operations: &[&Operation]) -> Vec<String> {
    let version = |operation: &Operation| match operation.what {
        What::Read { version, .. } => Some((version, false)),
        What::Wrote { version, .. } => Some((version, true)),
        What::Unknown { .. } | What::Refused => None,
    };
    let mut begins: Vec<&Operation> = operations.to_vec();
    begins.sort_by_key(|operation| operation.began);
    let mut ends = begins.clone();
    ends.sort_by_key(|operation| operation.ended);
    let mut ends = ends.into_iter().peekable();
    let mut newest: Option<(&Operation, Timestamp)> = None;
    let mut violations = Vec::new();
    for operation in begins {
        while let Some(ended) = ends.next_if(|ended| ended.ended < operation.began) {
            if let Some((version, _)) = version(ended)
                && newest.is_none_or(|(_, highest)| version > highest)
            {
                newest = Some((ended, version));
            }
        }
        let (Some((before, highest)), Some((version, is_write))) = (newest, version(operation)) else {
            continue;
        };
        if version < highest || is_write && version == highest {
            violations.push(format!("{}: {operation:?} came after {before:?}", operation.key));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(operations: &[(u64, u64, What)]) -> Vec<String> {
        let operations = operations
            .iter()
            .map(|(began, ended, what)| Operation {
                key: "k".into(),
                began: Duration::from_millis(*began),
                ended: Duration::from_millis(*ended),
                what: what.clone(),
            })
            .collect();
        History { operations, failed_reads: 0 }.violations()
    }

    fn wrote(version: u64, value: &'static str) -> What {
        What::Wrote { version: Timestamp(version), value: value.into() }
    }

    fn read(version: u64, value: &'static str) -> What {
        What::Read { version: Timestamp(version), value: Some(value.into()) }
    }

    #[test]
    fn overlapping_operations_may_come_in_any_order() {
        assert!(history(&[(0, 10, wrote(2, "b")), (0, 10, wrote(1, "a")), (5, 11, read(1, "a"))]).is_empty());
        assert!(history(&[(0, 5, wrote(1, "a")), (6, 7, read(1, "a")), (8, 9, wrote(2, "b"))]).is_empty());
    }

    #[test]
    fn a_stale_read_is_found() {
        let stale = [(0, 1, wrote(1, "a")), (2, 3, wrote(2, "b")), (4, 5, read(1, "a"))];
        assert_eq!(history(&stale).len(), 1);
    }

    #[test]
    fn a_lost_write_is_found() {
        let absent = What::Read { version: Timestamp(0), value: None };
        assert_eq!(history(&[(0, 1, wrote(1, "a")), (4, 5, absent)]).len(), 1);
    }

    #[test]
    fn a_read_that_goes_back_behind_another_read_is_found() {
        let unknown = What::Unknown { value: "b".into() };
        let back = [(0, 1, wrote(1, "a")), (0, 9, unknown), (2, 3, read(2, "b")), (4, 5, read(1, "a"))];
        assert_eq!(history(&back).len(), 1);
    }

    #[test]
    fn values_that_were_refused_or_never_written_are_found() {
        assert_eq!(history(&[(0, 1, What::Refused), (2, 3, read(3, "x"))]).len(), 1);
        assert_eq!(history(&[(0, 1, wrote(1, "a")), (2, 3, read(1, "z"))]).len(), 1);
        assert_eq!(history(&[(0, 1, wrote(1, "a")), (0, 1, wrote(1, "b"))]).len(), 1);
    }
}
