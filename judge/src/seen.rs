//! Anomalies that a single transaction's reads give away.

use crate::Anomaly;
use crate::history::{Micro, Seen};
use crate::transactions::{Outcome, Run, Transaction};
use std::collections::{BTreeMap, BTreeSet};

/// Numbers nobody wrote, written twice, of transactions that were refused (G1a) or of the middle of one (G1b), and
/// transactions that contradict themselves.
pub(crate) fn anomalies(run: &Run<'_>) -> Vec<Anomaly> {
    let mut found = Vec::new();
    for ((key, number), at) in &run.rewritten {
        let message = format!("{number} was written to {key} before {}", run.all[*at]);
        found.push(Anomaly { name: "duplicate", message });
    }
    for (at, transaction) in run.committed() {
        for step in transaction.steps {
            if let Micro::Read(key, seen) = step {
                found.extend(of_read(run, at, key, seen));
            }
        }
        found.extend(contradiction(transaction));
    }
    found
}

fn of_read(run: &Run<'_>, at: usize, key: &str, seen: &Seen) -> Vec<Anomaly> {
    let reader = &run.all[at];
    let mut found = Vec::new();
    let mut before = BTreeSet::new();
    for number in seen.numbers() {
        let name = match run.writers.get(&(key, *number)) {
            _ if !before.insert(number) => "duplicate",
            None => "garbage",
            Some((writer, _)) if run.all[*writer].outcome == Outcome::Failed => "G1a",
            Some(_) => continue,
        };
        found.push(Anomaly { name, message: format!("{number} of {key}, as shown by {reader}") });
    }
    // The last number of a list is the newest version; those before it may well be from the middle of a transaction.
    if let Some(number) = seen.numbers().last()
        && let Some((writer, false)) = run.writers.get(&(key, *number))
        && *writer != at
    {
        let message = format!("{reader} saw {number} of {key} from the middle of {}", run.all[*writer]);
        found.push(Anomaly { name: "G1b", message });
    }
    found
}

/// Whether its later reads fit what it read and wrote before.
fn contradiction(transaction: &Transaction<'_>) -> Option<Anomaly> {
    /// What a key holds as far as the transaction knows: a whole value, or just the end of a list.
    enum Known {
        Whole(Seen),
        End(Vec<i64>),
    }
    let mut known: BTreeMap<&str, Known> = BTreeMap::new();
    for step in transaction.steps {
        match step {
            Micro::Write(key, number) => {
                known.insert(key, Known::Whole(Seen::Number(*number)));
            }
            Micro::Append(key, number) => {
                match known.entry(key).or_insert_with(|| Known::End(Vec::new())) {
                    Known::End(end) | Known::Whole(Seen::List(end)) => end.push(*number),
                    Known::Whole(whole) => *whole = Seen::List(vec![*number]),
                };
            }
            Micro::Read(key, seen) => {
                let fits = match known.get(key.as_str()) {
                    None => true,
                    Some(Known::Whole(whole)) => whole.numbers() == seen.numbers(),
                    Some(Known::End(end)) => seen.numbers().ends_with(end),
                };
                if !fits {
                    let message = format!("{transaction} contradicts itself about {key}");
                    return Some(Anomaly { name: "internal", message });
                }
                known.insert(key, Known::Whole(seen.clone()));
            }
        }
    }
    None
}
