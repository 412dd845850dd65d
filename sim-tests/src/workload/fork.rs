//! Registers that transactions under snapshot isolation read together and write one at a time. Two snapshots must not
//! disagree on which of two writes came first (a long fork), and must hold all that was committed before them. Others are
//! written all together ([`Mirrors`]).

use super::mirrors::Mirrors;
use super::txns::{Record, Step};
use super::{Kind, Work, Workload};
use crate::cluster::Cluster;
use crate::history::History;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use std::rc::Rc;
use trandb_client::Isolation;

/// The kind.
pub(super) const KIND: Kind = Kind {
    name: "fork",
    about: "snapshots of registers that others write: no long fork",
    make: |board| {
        Rc::new(Fork { record: Record::new(board, Isolation::Snapshot), mirrors: Mirrors::default() })
    },
};

/// Enough that most partitions have one.
const REGISTERS: usize = 6;

struct Fork {
    record: Record,
    mirrors: Mirrors,
}

impl Workload for Fork {
    fn client(self: Rc<Self>, cluster: Cluster, node: usize, mut random: StdRng) -> Work {
        Box::pin(async move {
            let client = cluster.user(node, random.random())?;
            let mut process = self.record.process();
            while self.record.board().goes_on(&mut random).await {
                if random.random_ratio(1, 3) {
                    self.mirrors.run(&client, &mut random).await;
                    continue;
                }
                let mut keys: Vec<String> = (0..REGISTERS).map(|nth| format!("fork-{nth}")).collect();
                keys.shuffle(&mut random);
                let steps = if random.random_bool(0.5) {
                    // Read first, so that the order of a register's values is known.
                    let key = keys.remove(0);
                    vec![Step::Register(key.clone()), Step::Write(key)]
                } else {
                    keys.into_iter().map(Step::Register).collect()
                };
                process = self.record.run(&client, process, steps).await;
            }
            Ok(())
        })
    }

    fn violations(&self, _: &History) -> Vec<String> {
        let mut violations = self.record.violations(KIND.name);
        violations.extend(self.mirrors.violations());
        violations
    }
}
