//! Counters that go up in transactions that lock them first, both in whatever order, and at times do not let go for long: they
//! wait for each other, in circles too. No number is reached twice, whatever becomes of the locks.

use super::steps::{COUNTERS, Tally, number};
use super::{Board, Kind, Work, Workload};
use crate::cluster::Cluster;
use crate::history::History;
use rand::RngExt;
use rand::rngs::StdRng;
use std::rc::Rc;
use std::time::Duration;
use trandb_client::{Error, Txn};

/// The kind.
pub(super) const KIND: Kind = Kind {
    name: "locks",
    about: "counters that go up in transactions that lock them first, in any order",
    make: |board| Rc::new(Locks { board, tally: Tally::default() }),
};

/// How long a transaction may hold its locks and do nothing, once in a while: longer than most others wait.
const HELD: Duration = Duration::from_millis(1_500);

struct Locks {
    board: Board,
    tally: Tally,
}

impl Workload for Locks {
    fn client(self: Rc<Self>, cluster: Cluster, node: usize, mut random: StdRng) -> Work {
        Box::pin(async move {
            let client = cluster.user(node, random.random())?;
            while self.board.goes_on(&mut random).await {
                let counter = random.random_range(0..COUNTERS);
                let rests = if random.random_ratio(1, 50) { HELD } else { Duration::ZERO };
                let result = client.transact(|txn| step(txn, counter, rests)).await;
                self.tally.ended(counter, &result);
            }
            Ok(())
        })
    }

    fn violations(&self, _: &History) -> Vec<String> {
        self.tally.violations()
    }
}

fn key(counter: usize) -> String {
    format!("locks-{counter}")
}

/// One step of a counter, with the other one locked as well.
async fn step(txn: Txn, counter: usize, rests: Duration) -> Result<u64, Error> {
    let before = txn.get_for_update(key(counter)).await?;
    txn.lock(key((counter + 1) % COUNTERS)).await?;
    tokio::time::sleep(rests).await;
    let to = before.map_or(0, |found| number(&found.value)) + 1;
    txn.put(key(counter), to.to_string()).await?;
    Ok(to)
}
