//! Holds the logs and states of all replicas against each other while they grow, entry by entry.
//!
//! 1. **Log matching.** An entry is named by its group, index and term. Under one name every log holds the same content, behind
//!    an entry of the same term: so two logs that share an entry are the same up to it.
//! 2. **Applied prefixes agree.** What one replica applied at an index, every other one does, whatever crashed and whoever led
//!    since; and only what some log took is applied. So an entry that was applied anywhere is never lost.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tracing::Event;
use tracing::field::{Field, Visit};

/// Violations that are told; what breaks once breaks for every entry after it.
const TOLD_MAX: usize = 8;

/// Listens to all replicas. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Entries(Arc<Mutex<Seen>>);

/// A transaction: the timestamp that it began at, and its node.
type Txn = (u64, u64);

/// What is looked up for every entry and never listed. The hash is the same in every process.
type Known<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

#[derive(Debug, Default)]
struct Seen {
    /// By group, index and term: content, and the term of the entry before it where that was known.
    appended: Known<(u64, u64, u64), (u64, Option<u64>)>,
    /// By group and index: the term.
    applied: Known<(u64, u64), u64>,
    /// By transaction: when it was committed, zero if it was aborted.
    decided: Known<Txn, u64>,
    /// By group and transaction: whether it held something after that entry, the last that was about it.
    held: BTreeMap<(u64, Txn), (u64, bool)>,
    violations: Vec<String>,
}

impl Entries {
    /// A log or a state has taken an entry.
    pub fn event(&self, event: &Event<'_>) {
        let mut entry = Entry::default();
        event.record(&mut entry);
        let Entry { group, index, term, before, content, begin, node, held, decided } = entry;
        match (content, begin) {
            (Some(content), _) => self.seen().appended(group, index, term, content, before),
            (None, Some(begin)) => self.seen().stepped(group, index, (begin, node), held, decided),
            (None, None) => self.seen().applied(group, index, term),
        }
    }

    /// What must not be.
    pub fn violations(&self) -> Vec<String> {
        self.seen().violations.clone()
    }

    /// How many different entries were applied.
    pub fn applied(&self) -> usize {
        self.seen().applied.len()
    }

    /// How many transactions were decided.
    pub fn decided(&self) -> usize {
        self.seen().decided.len()
    }

    /// A transaction that holds something of a group, as the newest entry that was about it left it.
    pub fn held(&self) -> Option<String> {
        let seen = self.seen();
        let held = seen.held.iter().find(|(_, (_, held))| *held);
        held.map(|((group, (begin, node)), (index, _))| {
            format!("{begin}-{node} at p{group} since entry {index}")
        })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn appended(&mut self, group: u64, index: u64, term: u64, content: u64, before: Option<u64>) {
        let known = self.appended.entry((group, index, term)).or_insert((content, before));
        let differs =
            known.0 != content || known.1.zip(before).is_some_and(|(known, before)| known != before);
        known.1 = known.1.or(before);
        if differs {
            let known = *known;
            self.tell(format!(
                "logs differ: entry {index} of p{group} in term {term} is {known:?} here and {:?} there",
                (content, before)
            ));
        }
    }

    fn applied(&mut self, group: u64, index: u64, term: u64) {
        let known = *self.applied.entry((group, index)).or_insert(term);
        if known != term {
            self.tell(format!(
                "applied prefixes differ: entry {index} of p{group} is of term {known} here and {term} there"
            ));
        }
        if !self.appended.contains_key(&(group, index, term)) {
            self.tell(format!("entry {index} of p{group} in term {term} was applied, and is in no log"));
        }
    }

    fn stepped(&mut self, group: u64, index: u64, txn: Txn, held: bool, decided: Option<u64>) {
        let last = self.held.entry((group, txn)).or_insert((index, held));
        if last.0 <= index {
            *last = (index, held);
        }
        let Some(decided) = decided else { return };
        let known = *self.decided.entry(txn).or_insert(decided);
        if known != decided {
            let (begin, node) = txn;
            self.tell(format!(
                "two decisions: {begin}-{node} was committed at {known} and, as entry {index} of p{group} has it, at {decided} \
                 (zero: aborted)"
            ));
        }
    }

    fn tell(&mut self, violation: String) {
        if self.violations.len() < TOLD_MAX {
            self.violations.push(violation);
        }
    }
}

/// An event's fields.
#[derive(Default)]
struct Entry {
    group: u64,
    index: u64,
    term: u64,
    before: Option<u64>,
    content: Option<u64>,
    begin: Option<u64>,
    node: u64,
    held: bool,
    decided: Option<u64>,
}

impl Visit for Entry {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "group" => self.group = value,
            "index" => self.index = value,
            "term" => self.term = value,
            "before" => self.before = Some(value),
            "content" => self.content = Some(value),
            "begin" => self.begin = Some(value),
            "node" => self.node = value,
            "decided" => self.decided = Some(value),
            _ => {}
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == "held" {
            self.held = value;
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_that_agree_are_fine() {
        let mut seen = Seen::default();
        for _replica in 0..3 {
            seen.appended(1, 5, 2, 77, Some(1));
            seen.appended(1, 6, 2, 78, Some(2));
            seen.applied(1, 5, 2);
        }
        // A leader of a later term may replace what was not committed.
        seen.appended(1, 6, 3, 79, Some(2));
        seen.applied(1, 6, 3);
        assert!(seen.violations.is_empty(), "{:?}", seen.violations);
    }

    #[test]
    fn other_content_and_another_predecessor_are_found() {
        let mut seen = Seen::default();
        seen.appended(1, 5, 2, 77, Some(1));
        seen.appended(1, 5, 2, 70, Some(1));
        assert_eq!(seen.violations.len(), 1);
        seen.appended(1, 6, 2, 78, None);
        seen.appended(1, 6, 2, 78, Some(2));
        assert_eq!(seen.violations.len(), 1);
        seen.appended(1, 6, 2, 78, Some(1));
        assert_eq!(seen.violations.len(), 2);
    }

    #[test]
    fn a_second_decision_is_found_and_what_is_held_is_known() {
        let mut seen = Seen::default();
        let txn = (77, 1);
        seen.stepped(1, 5, txn, true, None);
        seen.stepped(2, 9, txn, false, Some(80));
        seen.stepped(1, 6, txn, false, Some(80));
        // A replica that is behind.
        seen.stepped(1, 5, txn, true, None);
        assert!(seen.violations.is_empty(), "{:?}", seen.violations);
        assert!(seen.held.values().all(|(_, held)| !held));
        seen.stepped(3, 4, txn, false, Some(0));
        assert_eq!(seen.violations.len(), 1);
    }

    #[test]
    fn states_that_part_and_entries_from_nowhere_are_found() {
        let mut seen = Seen::default();
        seen.appended(1, 5, 2, 77, Some(1));
        seen.appended(1, 5, 3, 78, Some(1));
        seen.applied(1, 5, 2);
        seen.applied(1, 5, 3);
        assert_eq!(seen.violations.len(), 1);
        seen.applied(1, 6, 3);
        assert_eq!(seen.violations.len(), 2);
    }
}
