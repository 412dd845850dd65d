//! No two writes share a version, and one that began after another was acknowledged has a higher one: on any two
//! keys, whoever led the system group, and however wrong its clock was.

use super::Evidence;
use std::collections::BTreeMap;
use std::time::Duration;
use trandb_client::Timestamp;

/// An acknowledged write: its key, version, beginning and end.
type Write<'a> = (&'a str, Timestamp, Duration, Duration);

pub(super) fn violations(evidence: &Evidence<'_>) -> Vec<String> {
    check(&evidence.history.written().collect::<Vec<_>>())
}

fn check(writes: &[Write<'_>]) -> Vec<String> {
    let mut violations = Vec::new();
    let mut by_version = BTreeMap::new();
    for write in writes {
        if let Some(other) = by_version.insert(write.1, write) {
            violations.push(format!("two writes of one version: {other:?} and {write:?}"));
        }
    }
    let (mut begins, mut ends) = (writes.to_vec(), writes.to_vec());
    begins.sort_by_key(|&(_, _, began, _)| began);
    ends.sort_by_key(|&(_, _, _, ended)| ended);
    let mut ends = ends.into_iter().peekable();
    let mut newest: Option<Write<'_>> = None;
    for write in begins {
        while let Some(ended) = ends.next_if(|ended| ended.3 < write.2) {
            if newest.is_none_or(|newest| newest.1 < ended.1) {
                newest = Some(ended);
            }
        }
        if let Some(newest) = newest
            && write.1 < newest.1
        {
            violations.push(format!("{write:?} came after {newest:?} and has a lower version"));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(key: &'static str, version: u64, began: u64, ended: u64) -> Write<'static> {
        (key, Timestamp(version), Duration::from_millis(began), Duration::from_millis(ended))
    }

    #[test]
    fn versions_follow_real_time_across_keys() {
        assert!(check(&[write("a", 1, 0, 5), write("b", 2, 6, 9)]).is_empty());
        assert!(check(&[write("a", 2, 0, 7), write("b", 1, 6, 9)]).is_empty(), "they overlap");
        assert_eq!(check(&[write("a", 2, 0, 5), write("b", 1, 6, 9)]).len(), 1);
        assert_eq!(check(&[write("a", 1, 0, 5), write("b", 1, 0, 9)]).len(), 1);
    }
}
