//! The transactions of a history, each with what it wrote and read of others.

use crate::history::{History, Kind, Micro, Seen};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// What became of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Committed,
    Failed,
    Unknown,
}

/// A number somebody wrote to a key.
pub(crate) type Version<'h> = (&'h str, i64);

/// One transaction.
#[derive(Debug)]
pub(crate) struct Transaction<'h> {
    pub(crate) process: u64,
    /// Its lines, from 0; the last of it is missing where it never ended.
    pub(crate) began: usize,
    pub(crate) ended: Option<usize>,
    pub(crate) outcome: Outcome,
    /// Whether it was surely done: somebody was told, or saw something of it.
    pub(crate) done: bool,
    pub(crate) steps: &'h [Micro],
}

impl<'h> Transaction<'h> {
    /// What each key held for it without what it wrote to that itself, for each read that tells, in their order.
    pub(crate) fn reads(&self) -> Vec<(&'h str, Cow<'h, Seen>)> {
        let (mut reads, mut written): (Vec<_>, BTreeMap<&str, Own<'_>>) = Default::default();
        for step in self.steps {
            match step {
                Micro::Read(key, seen) => {
                    reads.extend(before(seen, written.get(key.as_str())).map(|seen| (key.as_str(), seen)));
                }
                Micro::Append(key, number) => {
                    match written.entry(key).or_insert_with(|| Own::Appended(Vec::new())) {
                        Own::Appended(numbers) => numbers.push(number),
                        Own::Overwritten => {}
                    }
                }
                Micro::Write(key, _) => {
                    written.insert(key, Own::Overwritten);
                }
            }
        }
        reads
    }

    /// What it left in each register.
    pub(crate) fn registers(&self) -> BTreeMap<&'h str, i64> {
        let writes = self.steps.iter().filter_map(|step| match step {
            Micro::Write(key, number) => Some((key.as_str(), *number)),
            Micro::Append(..) | Micro::Read(..) => None,
        });
        writes.collect()
    }

    /// The last that it added to each list.
    pub(crate) fn appends(&self) -> BTreeMap<&'h str, i64> {
        let appends = self.steps.iter().filter_map(|step| match step {
            Micro::Append(key, number) => Some((key.as_str(), *number)),
            Micro::Write(..) | Micro::Read(..) => None,
        });
        appends.collect()
    }
}

/// What a transaction did to a key before it read it.
enum Own<'h> {
    Appended(Vec<&'h i64>),
    Overwritten,
}

/// What was there before that: a list ends in what the transaction added itself.
fn before<'h>(seen: &'h Seen, own: Option<&Own<'_>>) -> Option<Cow<'h, Seen>> {
    match (seen, own) {
        (_, None) => Some(Cow::Borrowed(seen)),
        (Seen::List(list), Some(Own::Appended(numbers))) => {
            let own = list.iter().rev().zip(numbers.iter().rev()).all(|(seen, own)| seen == *own);
            let others = list.len().checked_sub(numbers.len()).filter(|_| own).unwrap_or(list.len());
            Some(Cow::Owned(Seen::List(list[..others].to_vec())))
        }
        (_, Some(_)) => None,
    }
}

impl fmt::Display for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = serde_json::to_string(self.steps).map_err(|_| fmt::Error)?;
        write!(f, "T{} of process {} {steps}", self.began + 1, self.process)
    }
}

/// All transactions of a history, and who wrote what.
pub(crate) struct Run<'h> {
    pub(crate) all: Vec<Transaction<'h>>,
    /// The transaction that wrote a number, and whether that was the last one it wrote to that key.
    pub(crate) writers: HashMap<Version<'h>, (usize, bool)>,
    /// Numbers that were written to a key twice: nothing can be told from reading them.
    pub(crate) rewritten: Vec<(Version<'h>, usize)>,
}

impl<'h> Run<'h> {
    pub(crate) fn of(history: &'h History) -> Self {
        let mut all: Vec<Transaction<'_>> = Vec::new();
        let mut under_way: BTreeMap<u64, usize> = BTreeMap::new();
        for (line, event) in history.events().iter().enumerate() {
            let outcome = match event.kind {
                Kind::Invoke => {
                    under_way.insert(event.process, all.len());
                    all.push(Transaction {
                        process: event.process,
                        began: line,
                        ended: None,
                        outcome: Outcome::Unknown,
                        done: false,
                        steps: &event.value,
                    });
                    continue;
                }
                Kind::Ok => Outcome::Committed,
                Kind::Fail => Outcome::Failed,
                Kind::Info => Outcome::Unknown,
            };
            if let Some(at) = under_way.remove(&event.process) {
                let ended = &mut all[at];
                // The end of one whose fate is unknown says nothing about when it was, or will be, done.
                ended.ended = (outcome != Outcome::Unknown).then_some(line);
                ended.outcome = outcome;
                // What failed may say less at its end than it set out to do.
                if outcome == Outcome::Committed || !event.value.is_empty() {
                    ended.steps = &event.value;
                }
            }
        }
        let mut run = Self { all, writers: HashMap::new(), rewritten: Vec::new() };
        run.note_writers();
        run.note_done();
        run
    }

    fn note_writers(&mut self) {
        for (at, transaction) in self.all.iter().enumerate() {
            let mut last: BTreeMap<&str, i64> = BTreeMap::new();
            for step in transaction.steps {
                if let Micro::Append(key, number) | Micro::Write(key, number) = step {
                    last.insert(key, *number);
                    if self.writers.insert((key, *number), (at, false)).is_some() {
                        self.rewritten.push(((key, *number), at));
                    }
                }
            }
            for version in last {
                self.writers.insert(version, (at, true));
            }
        }
    }

    fn note_done(&mut self) {
        let mut done = Vec::new();
        for (at, transaction) in self.committed() {
            done.push(at);
            for step in transaction.steps {
                if let Micro::Read(key, seen) = step {
                    let writers =
                        seen.numbers().iter().filter_map(|number| self.writers.get(&(key.as_str(), *number)));
                    done.extend(writers.map(|(writer, _)| *writer));
                }
            }
        }
        for at in done {
            self.all[at].done = self.all[at].outcome != Outcome::Failed;
        }
    }

    /// Those that somebody was told are committed.
    pub(crate) fn committed(&self) -> impl Iterator<Item = (usize, &Transaction<'h>)> {
        self.all.iter().enumerate().filter(|(_, transaction)| transaction.outcome == Outcome::Committed)
    }
}
