//! In which order the versions of each key came, as far as the reads tell, and what follows for transactions.
//!
//! A list shows all its versions at once: the longest one that was read orders all before it, and what was added and
//! not read by then comes later. A register tells of an order only where a transaction read before it wrote.

use crate::Anomaly;
use crate::graph::{Edge, EdgeKind};
use crate::history::{Micro, Seen};
use crate::transactions::{Outcome, Run};
use std::collections::{BTreeMap, BTreeSet};

/// Edges between transactions, by their place in the run, and what is wrong with the versions themselves.
pub(crate) fn edges<'h>(run: &Run<'h>) -> (Vec<Edge<'h>>, Vec<Anomaly>) {
    let mut out = Out { run, edges: Vec::new(), anomalies: Vec::new() };
    out.lists();
    out.registers();
    (out.edges, out.anomalies)
}

struct Out<'r, 'h> {
    run: &'r Run<'h>,
    edges: Vec<Edge<'h>>,
    anomalies: Vec<Anomaly>,
}

impl<'h> Out<'_, 'h> {
    fn edge(&mut self, from: usize, to: usize, kind: EdgeKind, key: &'h str) {
        if from != to {
            self.edges.push(Edge { from, to, kind, key });
        }
    }

    fn writer(&self, key: &str, number: i64) -> Option<usize> {
        let (at, _) = self.run.writers.get(&(key, number))?;
        (self.run.all[*at].outcome != Outcome::Failed).then_some(*at)
    }

    fn lists(&mut self) {
        let run = self.run;
        // By list: all that was ever seen of it, what it was for a transaction that had not added to it yet, and the
        // last numbers surely added.
        let mut seen: BTreeMap<&str, Vec<(usize, &[i64])>> = BTreeMap::new();
        let mut reads: BTreeMap<&str, Vec<(usize, Vec<i64>)>> = BTreeMap::new();
        let mut added: BTreeMap<&str, Vec<(usize, i64)>> = BTreeMap::new();
        let lists: BTreeSet<&str> =
            run.all.iter().flat_map(|transaction| transaction.appends().into_keys()).collect();
        for (at, transaction) in run.all.iter().enumerate().filter(|(_, transaction)| transaction.done) {
            for (key, last) in transaction.appends() {
                added.entry(key).or_default().push((at, last));
            }
        }
        for (at, transaction) in run.committed() {
            for step in transaction.steps {
                if let Micro::Read(key, Seen::List(list)) = step {
                    seen.entry(key).or_default().push((at, list));
                }
            }
            for (key, before) in transaction.reads() {
                match before.into_owned() {
                    Seen::List(list) => reads.entry(key).or_default().push((at, list)),
                    Seen::Nothing if lists.contains(key) => {
                        reads.entry(key).or_default().push((at, Vec::new()))
                    }
                    Seen::Nothing | Seen::Number(_) => {}
                }
            }
        }
        for (key, reads) in reads {
            let seen = seen.get(key).map_or(&[][..], Vec::as_slice);
            if let Some(longest) = self.longest(key, seen) {
                self.list(key, longest, &reads, added.get(key).map_or(&[], Vec::as_slice));
            }
        }
    }

    /// The longest of these lists, if all others are beginnings of it.
    fn longest<'s>(&mut self, key: &str, seen: &[(usize, &'s [i64])]) -> Option<&'s [i64]> {
        let Some((longest_reader, longest)) = seen.iter().max_by_key(|(_, list)| list.len()) else {
            return Some(&[]);
        };
        let other = seen.iter().find(|(_, list)| !longest.starts_with(list));
        if let Some((reader, _)) = other {
            let (one, other) = (&self.run.all[*reader], &self.run.all[*longest_reader]);
            let message = format!("no list of {key} grows to both what {one} and what {other} saw");
            self.anomalies.push(Anomaly { name: "incompatible-order", message });
        }
        other.is_none().then_some(longest)
    }

    fn list(&mut self, key: &'h str, longest: &[i64], reads: &[(usize, Vec<i64>)], added: &[(usize, i64)]) {
        // Only the last number that a transaction added ends a version that others may see.
        let writers: Vec<Option<usize>> = longest.iter().map(|number| self.writer(key, *number)).collect();
        let mut versions: Vec<(usize, usize)> = Vec::new();
        for (position, writer) in writers.iter().enumerate() {
            let Some(writer) = writer else { continue };
            match versions.last_mut() {
                Some((last, end)) if last == writer => *end = position + 1,
                _ => versions.push((*writer, position + 1)),
            }
        }
        for pair in versions.windows(2) {
            self.edge(pair[0].0, pair[1].0, EdgeKind::Ww, key);
        }
        let unseen: Vec<usize> =
            added.iter().filter(|(_, number)| !longest.contains(number)).map(|(writer, _)| *writer).collect();
        if let Some((last, _)) = versions.last() {
            for writer in &unseen {
                self.edge(*last, *writer, EdgeKind::Ww, key);
            }
        }
        for (reader, list) in reads {
            // A version counts as seen whole; the middle of one is an anomaly of its own.
            let seen = versions.partition_point(|(_, end)| *end <= list.len());
            if let Some((writer, _)) = seen.checked_sub(1).map(|last| versions[last]) {
                self.edge(writer, *reader, EdgeKind::Wr, key);
            }
            match versions.get(seen) {
                Some((next, _)) => self.edge(*reader, *next, EdgeKind::Rw, key),
                None => {
                    for writer in &unseen {
                        self.edge(*reader, *writer, EdgeKind::Rw, key);
                    }
                }
            }
        }
    }

    fn registers(&mut self) {
        let run = self.run;
        let keys: BTreeSet<&str> =
            run.all.iter().flat_map(|transaction| transaction.registers().into_keys()).collect();
        // Versions of a key that come right after another, `None` being the absent key, with who wrote them.
        let mut next: BTreeMap<(&str, Option<i64>), BTreeSet<i64>> = BTreeMap::new();
        let mut after_nothing: BTreeMap<&str, BTreeSet<i64>> = BTreeMap::new();
        let mut readers: Vec<(usize, &str, Option<i64>)> = Vec::new();
        for (at, transaction) in run.all.iter().enumerate().filter(|(_, transaction)| transaction.done) {
            // What it read is not known where nobody was told.
            let mut reads = BTreeMap::new();
            if transaction.outcome == Outcome::Committed {
                for (key, seen) in transaction.reads() {
                    reads.entry(key).or_insert(seen);
                }
            }
            let writes = transaction.registers();
            for (key, seen) in &reads {
                let version = match **seen {
                    Seen::Number(number) => Some(number),
                    Seen::Nothing if keys.contains(key) => None,
                    Seen::Nothing | Seen::List(_) => continue,
                };
                readers.push((at, key, version));
                if let Some(number) = writes.get(key) {
                    next.entry((key, version)).or_default().insert(*number);
                }
            }
            for (key, number) in writes.iter().filter(|(key, _)| !reads.contains_key(*key)) {
                after_nothing.entry(key).or_default().insert(*number);
            }
        }
        self.branches(&next);
        for (key, numbers) in &after_nothing {
            next.entry((key, None)).or_default().extend(numbers);
        }
        for ((key, before), numbers) in &next {
            let Some(before) = before else { continue };
            for number in numbers {
                if let (Some(from), Some(to)) = (self.writer(key, *before), self.writer(key, *number)) {
                    self.edge(from, to, EdgeKind::Ww, key);
                }
            }
        }
        for (reader, key, version) in readers {
            if let Some(writer) = version.and_then(|number| self.writer(key, number)) {
                self.edge(writer, reader, EdgeKind::Wr, key);
            }
            for number in next.get(&(key, version)).into_iter().flatten() {
                if let Some(writer) = self.writer(key, *number) {
                    self.edge(reader, writer, EdgeKind::Rw, key);
                }
            }
        }
        self.anomalies.extend(circles(&next));
    }

    /// Two committed transactions that overwrote the same version: one did not notice the other.
    fn branches(&mut self, next: &BTreeMap<(&str, Option<i64>), BTreeSet<i64>>) {
        for ((key, before), numbers) in next {
            let writers: BTreeSet<usize> =
                numbers.iter().filter_map(|number| self.writer(key, *number)).collect();
            if let [one, other, ..] = writers.iter().map(|at| &self.run.all[*at]).collect::<Vec<_>>()[..] {
                let version = before.map_or("nothing".to_owned(), |number| number.to_string());
                let message = format!("{one} and {other} both read {version} of {key} and overwrote it");
                self.anomalies.push(Anomaly { name: "lost-update", message });
            }
        }
    }
}

/// Versions that come after themselves.
fn circles(next: &BTreeMap<(&str, Option<i64>), BTreeSet<i64>>) -> Vec<Anomaly> {
    let mut waiting: BTreeMap<(&str, i64), usize> = BTreeMap::new();
    for ((key, before), numbers) in next {
        waiting.extend(before.map(|number| ((*key, number), 0)));
        waiting.extend(numbers.iter().map(|number| ((*key, *number), 0)));
    }
    for ((key, before), numbers) in next {
        for number in numbers.iter().filter(|_| before.is_some()) {
            *waiting.get_mut(&(*key, *number)).expect("entered above") += 1;
        }
    }
    let mut free: Vec<(&str, i64)> =
        waiting.iter().filter(|(_, before)| **before == 0).map(|(version, _)| *version).collect();
    while let Some((key, number)) = free.pop() {
        waiting.remove(&(key, number));
        for after in next.get(&(key, Some(number))).into_iter().flatten() {
            if let Some(before) = waiting.get_mut(&(key, *after)) {
                *before -= 1;
                if *before == 0 {
                    free.push((key, *after));
                }
            }
        }
    }
    let keys: BTreeSet<&str> = waiting.keys().map(|(key, _)| *key).collect();
    let anomaly = |key: &str| Anomaly {
        name: "cyclic-versions",
        message: format!("a version of {key} came before itself"),
    };
    keys.into_iter().map(anomaly).collect()
}
