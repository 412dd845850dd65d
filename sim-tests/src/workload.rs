//! What clients do meanwhile: reads and writes of a few registers, through one node each.

use crate::cluster::Cluster;
use crate::history::{History, now};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// Few enough that clients meet on them, enough that every partition has some.
pub const REGISTERS: usize = 16;

/// What the workload and the scenario share.
#[derive(Clone, Default)]
pub struct Workload {
    /// What was asked and answered.
    pub history: Rc<RefCell<History>>,
    stop: Rc<Cell<bool>>,
}

impl Workload {
    /// Ends the clients after the operation that each is at.
    pub fn stop(&self) {
        self.stop.set(true);
    }

    /// One client, until [`Workload::stop`]. It has one operation in flight at a time.
    ///
    /// # Errors
    /// None in practice: what operations end with is in the history.
    pub async fn client(self, cluster: Cluster, node: usize, seed: u64) -> turmoil::Result {
        let mut random = StdRng::seed_from_u64(seed);
        let client = cluster.client(node, seed)?;
        let mut writes = 0u64;
        while !self.stop.get() {
            tokio::time::sleep(Duration::from_millis(random.random_range(1..30))).await;
            let key = register(random.random_range(0..REGISTERS));
            let began = now();
            if random.random_bool(0.5) {
                writes += 1;
                let value = Bytes::from(format!("c{}-{writes}", node + 1));
                let answer = client.put(&key, value.clone()).await;
                self.history.borrow_mut().wrote(&key, value, began, &answer);
            } else {
                let answer = client.get(&key).await;
                self.history.borrow_mut().read(&key, began, &answer);
            }
        }
        Ok(())
    }
}

/// The name of a register.
pub fn register(index: usize) -> String {
    format!("register-{index}")
}
