//! Values that are too large for one message between nodes, beside the small ones of other clients: they come
//! back whole, and as they were written.

use super::{Board, Kind, Work, Workload};
use crate::cluster::Cluster;
use crate::history::History;
use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;
use std::rc::Rc;
use trandb_client::Condition;

/// The kind.
pub(super) const KIND: Kind =
    Kind { name: "large", about: "reads and writes of large values", make: |board| Rc::new(Large { board }) };

/// Few keys: what they hold is copied often.
const KEYS: usize = 3;

/// From below one chunk of a message to several.
const BYTES: std::ops::Range<usize> = 40_000..400_000;

struct Large {
    board: Board,
}

impl Workload for Large {
    fn client(self: Rc<Self>, cluster: Cluster, node: usize, mut random: StdRng) -> Work {
        Box::pin(async move {
            let client = cluster.user(node, random.random())?;
            let mut writes = 0u32;
            while self.board.goes_on(&mut random).await {
                // Large values are rare: what matters is what they do to others.
                tokio::time::sleep(std::time::Duration::from_millis(random.random_range(50..200))).await;
                let key = format!("large-{}", random.random_range(0..KEYS));
                if random.random_bool(0.5) {
                    writes += 1;
                    let own = format!("c{}-{writes} ", node + 1);
                    let bytes = random.random_range(BYTES);
                    let value: Bytes = own.bytes().cycle().take(bytes).collect();
                    let _ = self.board.put(&client, &key, value, Condition::Any).await;
                } else {
                    let _ = self.board.get(&client, &key).await;
                }
            }
            Ok(())
        })
    }

    fn violations(&self, _: &History) -> Vec<String> {
        Vec::new()
    }
}
