//! Transactions that read lists and add to them, over all partitions. A list shows the order of all that was added to it, so
//! that nothing of who saw what stays hidden: strictly serializable, or what is wrong has a name.

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
    name: "lists",
    about: "transactions that read lists and add to them, strictly serializable",
    make: |board| Rc::new(Lists { record: Record::new(board, Isolation::Serializable) }),
};

/// Few at a time, so that transactions meet.
const LISTS: usize = 5;

/// A list is left alone after about so many of a client's transactions, before it is too long to copy.
const TRANSACTIONS_PER_LIST: usize = 40;

struct Lists {
    record: Record,
}

impl Workload for Lists {
    fn client(self: Rc<Self>, cluster: Cluster, node: usize, mut random: StdRng) -> Work {
        Box::pin(async move {
            let client = cluster.user(node, random.random())?;
            let (mut process, mut nth) = (self.record.process(), 0);
            while self.record.board().goes_on(&mut random).await {
                let generation = nth / TRANSACTIONS_PER_LIST;
                nth += 1;
                let steps = (0..random.random_range(1..=4)).map(|_| {
                    let key = format!("list-{generation}-{}", random.random_range(0..LISTS));
                    if random.random_bool(0.5) { Step::List(key) } else { Step::Append(key) }
                });
                let steps = steps.collect();
                process = self.record.run(&client, process, steps).await;
            }
            Ok(())
        })
    }

    fn violations(&self, _: &History) -> Vec<String> {
        self.record.violations(KIND.name)
    }
}
