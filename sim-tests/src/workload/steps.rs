//! Counters that go up by one in transactions that are run until they are done, over lost answers and dead coordinators:
//! no number is reached twice, and none that nobody can have reached.

use super::{Board, Kind, Work, Workload};
use crate::cluster::Cluster;
use crate::history::History;
use rand::RngExt;
use rand::rngs::StdRng;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use trandb_client::{Error, ErrorCode, Txn};

/// The kind.
pub(super) const KIND: Kind = Kind {
    name: "steps",
    about: "counters that go up in transactions: none twice, none for nothing",
    make: |board| Rc::new(Steps { board, tally: Tally::default() }),
};

/// Few, so that transactions meet.
pub(super) const COUNTERS: usize = 2;

struct Steps {
    board: Board,
    tally: Tally,
}

/// What is known of all counters.
#[derive(Default)]
pub(super) struct Tally {
    /// Acknowledged steps, each with how many were told of it.
    told: RefCell<BTreeMap<(usize, u64), usize>>,
    /// Steps that may be done, of every counter.
    perhaps: [Cell<u64>; COUNTERS],
}

impl Tally {
    /// One more transaction took this counter to that number, or ended so that nobody knows.
    pub(super) fn ended(&self, counter: usize, result: &Result<u64, Error>) {
        match result {
            Ok(to) => *self.told.borrow_mut().entry((counter, *to)).or_default() += 1,
            Err(error) if matches!(error.code, ErrorCode::Unknown | ErrorCode::Internal) => {
                let perhaps = &self.perhaps[counter];
                perhaps.set(perhaps.get() + 1);
            }
            Err(_) => {}
        }
    }

    pub(super) fn violations(&self) -> Vec<String> {
        let told = self.told.borrow();
        let twice = told.iter().filter(|(_, times)| **times > 1);
        let mut violations: Vec<String> = twice
            .map(|((counter, step), times)| format!("{times} transactions took counter {counter} to {step}"))
            .collect();
        for counter in 0..COUNTERS {
            let of = told.range((counter, 0)..=(counter, u64::MAX));
            let (acknowledged, highest) = of.fold((0, 0), |(count, _), ((_, step), _)| (count + 1, *step));
            let most = acknowledged + self.perhaps[counter].get();
            if highest > most {
                violations.push(format!("counter {counter} is at {highest}, after {most} steps at the most"));
            }
        }
        violations
    }
}

impl Workload for Steps {
    fn client(self: Rc<Self>, cluster: Cluster, node: usize, mut random: StdRng) -> Work {
        Box::pin(async move {
            let client = cluster.user(node, random.random())?;
            while self.board.goes_on(&mut random).await {
                let counter = random.random_range(0..COUNTERS);
                let mine = format!("steps-of-{node}");
                let result = client.transact(|txn| step(txn, counter, mine.clone())).await;
                self.tally.ended(counter, &result);
            }
            Ok(())
        })
    }

    fn violations(&self, _: &History) -> Vec<String> {
        self.tally.violations()
    }
}

/// One step of a counter, and a second key, so that two partitions take part more often than not.
async fn step(txn: Txn, counter: usize, mine: String) -> Result<u64, Error> {
    let key = format!("steps-{counter}");
    let before = txn.get(&key).await?;
    let to = before.map_or(0, |found| number(&found.value)) + 1;
    txn.put(key, to.to_string()).await?;
    txn.put(mine, format!("{counter} to {to}")).await?;
    Ok(to)
}

/// A number as it is stored; one that is none is above all.
pub(super) fn number(value: &[u8]) -> u64 {
    String::from_utf8_lossy(value).parse().unwrap_or(u64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_done_twice_and_one_for_nothing_are_found() {
        let tally = Tally::default();
        tally.told.borrow_mut().extend([((0, 1), 1), ((0, 2), 1), ((1, 1), 1)]);
        assert!(tally.violations().is_empty());
        tally.told.borrow_mut().insert((0, 4), 1);
        assert_eq!(tally.violations().len(), 1);
        tally.perhaps[0].set(1);
        assert!(tally.violations().is_empty());
        tally.told.borrow_mut().insert((1, 1), 2);
        assert_eq!(tally.violations().len(), 1);
    }
}
