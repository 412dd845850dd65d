//! Counters that go up by one, by compare-and-set: no step is done twice, none is skipped, and none that was
//! acknowledged is lost. A retry that should not have been, or an entry applied twice, shows here.

use super::{Board, Kind, Work, Workload};
use crate::cluster::Cluster;
use crate::history::History;
use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use trandb_client::Condition;

/// The kind.
pub(super) const KIND: Kind = Kind {
    name: "counter",
    about: "counters that go up by compare-and-set",
    make: |board| Rc::new(Counter { board, steps: RefCell::default() }),
};

/// Few, so that clients get into each other's way.
const COUNTERS: usize = 3;

/// Acknowledged steps: the counter and the number that was set, with who did it.
type Steps = BTreeMap<(usize, u64), Vec<usize>>;

struct Counter {
    board: Board,
    steps: RefCell<Steps>,
}

impl Workload for Counter {
    fn client(self: Rc<Self>, cluster: Cluster, node: usize, mut random: StdRng) -> Work {
        Box::pin(async move {
            let client = cluster.user(node, random.random())?;
            while self.board.goes_on(&mut random).await {
                let counter = random.random_range(0..COUNTERS);
                let key = format!("counter-{counter}");
                let Ok(found) = self.board.get(&client, &key).await else { continue };
                let (next, condition) = match &found {
                    None => (1, Condition::Absent),
                    Some(found) => (number(&found.value)? + 1, Condition::Version(found.version)),
                };
                let value = Bytes::from(format!("{next} by c{}", node + 1));
                if self.board.put(&client, &key, value, condition).await.is_ok() {
                    self.steps.borrow_mut().entry((counter, next)).or_default().push(node);
                }
            }
            Ok(())
        })
    }

    fn violations(&self, _: &History) -> Vec<String> {
        self.steps
            .borrow()
            .iter()
            .filter(|(_, by)| by.len() > 1)
            .map(|((counter, step), by)| {
                format!("counter-{counter} was set to {step} by {by:?}, each told so")
            })
            .collect()
    }
}

fn number(value: &[u8]) -> Result<u64, String> {
    let text = String::from_utf8_lossy(value);
    let first = text.split(' ').next().unwrap_or_default();
    first.parse().map_err(|_| format!("a counter holds {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_two_were_told_of_is_found() {
        let counter = Counter { board: Board::default(), steps: RefCell::default() };
        counter.steps.borrow_mut().insert((0, 1), vec![0]);
        assert!(counter.violations(&History::default()).is_empty());
        counter.steps.borrow_mut().insert((0, 2), vec![0, 1]);
        assert_eq!(counter.violations(&History::default()).len(), 1);
    }
}
