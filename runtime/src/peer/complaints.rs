//! Remembers what has been complained about, so that a peer that keeps failing in the same way is logged
//! once and not at every try.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Sources remembered. Anyone can connect and claim to be anyone, so this must have an end; at the limit the
/// memory starts afresh, which costs a repeated line per source.
const SOURCES_MAX: usize = 1024;

/// Last complaint by source.
#[derive(Debug, Default)]
pub(super) struct Complaints(Mutex<BTreeMap<String, &'static str>>);

impl Complaints {
    /// Whether this is news: the first complaint about `source`, or another one than last time.
    pub(super) fn is_news(&self, source: &str, reason: &'static str) -> bool {
        let mut seen = self.lock();
        if seen.get(source) == Some(&reason) {
            return false;
        }
        if seen.len() >= SOURCES_MAX {
            seen.clear();
        }
        seen.insert(source.to_owned(), reason);
        true
    }

    /// All is well with `source` (again): its next complaint is news.
    pub(super) fn settled(&self, source: &str) {
        self.lock().remove(source);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, &'static str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_complaint_is_news_once_until_settled() {
        let complaints = Complaints::default();
        assert!(complaints.is_news("a", "secret"));
        assert!(!complaints.is_news("a", "secret"));
        assert!(complaints.is_news("b", "secret"));
        assert!(complaints.is_news("a", "timeout"));
        complaints.settled("a");
        assert!(complaints.is_news("a", "timeout"));
    }

    #[test]
    fn memory_is_bounded() {
        let complaints = Complaints::default();
        for source in 0..SOURCES_MAX * 3 {
            complaints.is_news(&source.to_string(), "garbage");
        }
        assert!(complaints.lock().len() <= SOURCES_MAX);
    }
}
