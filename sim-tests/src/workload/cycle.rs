//! A ring of keys, each naming the next one, that transactions rewire: whoever reads all of it in one snapshot finds one
//! ring through all keys. One write of three that is lost, or seen without the others, breaks it for good.

use super::{Board, Kind, Work, Workload};
use crate::cluster::Cluster;
use crate::history::History;
use rand::RngExt;
use rand::rngs::StdRng;
use std::cell::RefCell;
use std::rc::Rc;
use trandb_client::{Client, Error, Txn, TxnOptions};

/// The kind.
pub(super) const KIND: Kind = Kind {
    name: "cycle",
    about: "a ring of keys that transactions rewire",
    make: |board| Rc::new(Cycle { board, wrong: RefCell::default() }),
};

/// Keys of the ring.
const KEYS: usize = 8;

/// Broken rings that are told.
const TOLD_MAX: usize = 3;

struct Cycle {
    board: Board,
    wrong: RefCell<Vec<String>>,
}

impl Workload for Cycle {
    fn client(self: Rc<Self>, cluster: Cluster, node: usize, mut random: StdRng) -> Work {
        Box::pin(async move {
            let client = cluster.user(node, random.random())?;
            while self.board.goes_on(&mut random).await {
                if random.random_ratio(1, 3) {
                    self.look(&client).await;
                } else {
                    let from = random.random_range(0..KEYS);
                    // That it may be done, and done once, is for others to judge; a ring it must remain.
                    let _ = client.transact(|txn| rewire(txn, from)).await;
                }
            }
            Ok(())
        })
    }

    fn violations(&self, _: &History) -> Vec<String> {
        self.wrong.borrow().clone()
    }
}

impl Cycle {
    async fn look(&self, client: &Client) {
        let Ok(ring) = read(client).await else { return };
        let mut wrong = self.wrong.borrow_mut();
        if let Some(why) = broken(&ring)
            && wrong.len() < TOLD_MAX
        {
            wrong.push(format!("a snapshot of the ring {ring:?} {why}"));
        }
    }
}

/// Why this is no ring through all keys.
fn broken(ring: &[usize]) -> Option<String> {
    let mut at = 0;
    for step in 1..=ring.len() {
        at = *ring.get(at)?;
        if at >= ring.len() {
            return Some(format!("leads to {at}"));
        }
        if at == 0 && step < ring.len() {
            return Some(format!("closes after {step} of {} keys", ring.len()));
        }
    }
    (at != 0).then(|| "does not close".to_owned())
}

fn key(nth: usize) -> String {
    format!("cycle-{nth}")
}

/// The next of a key; of one that nobody has rewired yet, its neighbour.
async fn next(txn: &Txn, nth: usize) -> Result<usize, Error> {
    let found = txn.get(key(nth)).await?;
    let number = |found: trandb_client::Versioned| String::from_utf8_lossy(&found.value).parse();
    Ok(found.map_or((nth + 1) % KEYS, |found| number(found).unwrap_or(usize::MAX)))
}

async fn read(client: &Client) -> Result<Vec<usize>, Error> {
    let txn = client.begin_with(TxnOptions { read_only: true, ..TxnOptions::default() }).await?;
    let mut ring = Vec::with_capacity(KEYS);
    for nth in 0..KEYS {
        ring.push(next(&txn, nth).await?);
    }
    txn.commit().await?;
    Ok(ring)
}

/// Takes the key after the next one to the place before it.
async fn rewire(txn: Txn, from: usize) -> Result<(), Error> {
    let one = next(&txn, from).await?;
    let two = next(&txn, one).await?;
    let three = next(&txn, two).await?;
    for (at, to) in [(from, two), (two, one), (one, three)] {
        txn.put(key(at), to.to_string()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_ring_is_found() {
        assert_eq!(broken(&[1, 2, 3, 0]), None);
        assert_eq!(broken(&[2, 3, 1, 0]), None);
        assert!(broken(&[1, 0, 3, 2]).is_some());
        assert!(broken(&[1, 2, 1, 0]).is_some());
        assert!(broken(&[9, 2, 1, 0]).is_some());
    }
}
