//! Reads and writes of a few keys: what the history says of them is all that must hold.

use super::{Board, Kind, Work, Workload};
use crate::cluster::Cluster;
use crate::history::History;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::rc::Rc;
use trandb_client::{Client, Condition};

/// The kind.
pub(super) const KIND: Kind = Kind {
    name: "register",
    about: "reads and writes of a few keys",
    make: |board| Rc::new(Register { board }),
};

/// Few enough that clients meet on them, enough that every partition has some.
pub const REGISTERS: usize = 16;

/// The name of a register.
pub fn register(index: usize) -> String {
    format!("register-{index}")
}

/// Operations that a client has under way at once: one that waits for a partition without a leader must not keep it
/// from the others.
const AT_ONCE: usize = 4;

struct Register {
    board: Board,
}

impl Register {
    /// One operation after the other.
    async fn one(&self, client: &Client, node: usize, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut writes = 0u64;
        while self.board.goes_on(&mut random).await {
            let key = register(random.random_range(0..REGISTERS));
            // How each ends is in the history.
            if random.random_bool(0.5) {
                writes += 1;
                let value = Bytes::from(format!("c{}-{:04x}-{writes}", node + 1, seed as u16));
                let _ = self.board.put(client, &key, value, Condition::Any).await;
            } else {
                let _ = self.board.get(client, &key).await;
            }
        }
    }
}

impl Workload for Register {
    fn client(self: Rc<Self>, cluster: Cluster, node: usize, mut random: StdRng) -> Work {
        Box::pin(async move {
            let client = cluster.user(node, random.random())?;
            let seeds: Vec<u64> = (0..AT_ONCE).map(|_| random.random()).collect();
            let turns = seeds.iter().map(|&seed| self.one(&client, node, seed));
            futures_util::future::join_all(turns).await;
            Ok(())
        })
    }

    fn violations(&self, _: &History) -> Vec<String> {
        Vec::new()
    }
}
