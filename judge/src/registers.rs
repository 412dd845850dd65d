//! Registers that single-step transactions write and read: whether they are linearizable, decided exactly even where
//! writes overwrite what they never read.
//!
//! A number and the reads that saw it are a cluster. From its first end to its last beginning the register held that
//! number for sure, if that is the right way round (a forward zone); else it did for some moment between the two (a
//! backward zone). A register is linearizable exactly if no two forward zones overlap and no backward zone lies within
//! a forward one (P. Gibbons, E. Korach, "Testing Shared Memories", SIAM J. Comput. 26(4), 1997).

use crate::Anomaly;
use crate::history::{Micro, Seen};
use crate::transactions::{Outcome, Run};
use std::collections::{BTreeMap, BTreeSet};

/// The number of a register, `None` being the absent key.
type Number = Option<i64>;

/// When the writes and reads of a number began and ended, by lines of the history.
#[derive(Debug)]
struct Zone {
    number: Number,
    first_end: usize,
    last_begin: usize,
}

impl Zone {
    fn forward(&self) -> bool {
        self.first_end < self.last_begin
    }
}

/// Keys that are no linearizable registers, among those that only single-step transactions touch.
pub(crate) fn anomalies(run: &Run<'_>) -> Vec<Anomaly> {
    let mut touched: BTreeMap<&str, bool> = BTreeMap::new();
    for transaction in run.all.iter().filter(|transaction| transaction.outcome != Outcome::Failed) {
        for step in transaction.steps {
            let register = !matches!(step, Micro::Append(..) | Micro::Read(_, Seen::List(_)));
            *touched.entry(step.key()).or_insert(true) &= register && transaction.steps.len() == 1;
        }
    }
    let keys: BTreeSet<&str> =
        touched.into_iter().filter_map(|(key, single)| single.then_some(key)).collect();
    let mut clusters: BTreeMap<&str, BTreeMap<Number, Zone>> = BTreeMap::new();
    for transaction in &run.all {
        let [step] = transaction.steps else { continue };
        let (key, number, write) = match step {
            Micro::Write(key, number) if transaction.outcome != Outcome::Failed => (key, Some(*number), true),
            Micro::Read(key, Seen::Number(number)) => (key, Some(*number), false),
            Micro::Read(key, Seen::Nothing) => (key, None, false),
            Micro::Write(..) | Micro::Append(..) | Micro::Read(..) => continue,
        };
        if !keys.contains(key.as_str()) || !write && transaction.outcome != Outcome::Committed {
            continue;
        }
        let absent = Zone { number: None, first_end: 0, last_begin: 0 };
        let zones = clusters.entry(key).or_insert_with(|| BTreeMap::from([(None, absent)]));
        let zone = zones.entry(number).or_insert(Zone { number, first_end: usize::MAX, last_begin: 0 });
        zone.first_end = zone.first_end.min(transaction.ended.unwrap_or(usize::MAX));
        zone.last_begin = zone.last_begin.max(transaction.began);
    }
    clusters.into_iter().filter_map(|(key, zones)| conflict(key, zones.into_values())).collect()
}

/// Two numbers that cannot both have been there.
fn conflict(key: &str, zones: impl Iterator<Item = Zone>) -> Option<Anomaly> {
    // What never ended is an unknown write that nobody saw: it may not have been done.
    let (mut forward, backward): (Vec<Zone>, Vec<Zone>) =
        zones.filter(|zone| zone.first_end != usize::MAX).partition(Zone::forward);
    forward.sort_by_key(|zone| zone.first_end);
    let anomaly = |one: &Zone, other: &Zone| {
        let name = |number: Number| number.map_or("absent".to_owned(), |number| number.to_string());
        let message = format!(
            "{key} was surely {} from line {} to line {}, but {} was written or read within that",
            name(one.number),
            one.first_end + 1,
            one.last_begin + 1,
            name(other.number),
        );
        Anomaly { name: "not-linearizable", message }
    };
    for pair in forward.windows(2) {
        if pair[1].first_end < pair[0].last_begin {
            return Some(anomaly(&pair[0], &pair[1]));
        }
    }
    // Forward zones are apart by now: the only one that may hold a backward zone is the last to begin before it.
    backward.iter().find_map(|zone| {
        let before = forward.partition_point(|forward| forward.first_end < zone.last_begin);
        let around = &forward[before.checked_sub(1)?];
        (zone.first_end < around.last_begin).then(|| anomaly(around, zone))
    })
}
