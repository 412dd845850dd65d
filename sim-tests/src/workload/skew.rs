//! Pairs of registers: a transaction reads both and writes one. Under snapshot isolation two of them could each miss what
//! the other writes; serializable ones must not.

use super::txns::{Record, Step};
use super::{Kind, Work, Workload};
use crate::cluster::Cluster;
use crate::history::History;
use rand::RngExt;
use rand::rngs::StdRng;
use std::rc::Rc;
use trandb_client::Isolation;

/// The kind.
pub(super) const KIND: Kind = Kind {
    name: "skew",
    about: "transactions that read a pair and write one of it: no write skew",
    make: |board| Rc::new(Skew { record: Record::new(board, Isolation::Serializable) }),
};

/// The two of a pair are often in different partitions.
const PAIRS: usize = 3;

struct Skew {
    record: Record,
}

impl Workload for Skew {
    fn client(self: Rc<Self>, cluster: Cluster, node: usize, mut random: StdRng) -> Work {
        Box::pin(async move {
            let client = cluster.user(node, random.random())?;
            let mut process = self.record.process();
            while self.record.board().goes_on(&mut random).await {
                let pair = random.random_range(0..PAIRS);
                let mut keys = ["left", "right"].map(|side| format!("skew-{pair}-{side}"));
                if random.random_bool(0.5) {
                    keys.reverse();
                }
                let mut steps = keys.clone().map(Step::Register).into_iter().collect::<Vec<_>>();
                // Some only look: what both of two skewed ones did shows to them, or nowhere.
                if random.random_ratio(3, 4) {
                    let [key, _] = keys;
                    steps.push(Step::Write(key));
                }
                process = self.record.run(&client, process, steps).await;
            }
            Ok(())
        })
    }

    fn violations(&self, _: &History) -> Vec<String> {
        self.record.violations(KIND.name)
    }
}
