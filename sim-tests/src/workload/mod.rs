//! What clients do meanwhile, one file each: a kind of load, and what must hold of it beyond what the history
//! says of every key.

mod bank;
mod counter;
mod cycle;
mod fork;
mod large;
mod lists;
mod locks;
mod mirrors;
mod register;
mod scans;
mod skew;
mod steps;
mod txns;

use crate::cluster::Cluster;
use crate::entries::Entries;
use crate::history::{History, now};
use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;
use trandb_client::{Client, Condition, Error, Versioned, Written};

pub use register::{REGISTERS, register};

/// A client at work; it ends after [`Board::stop`].
pub type Work = Pin<Box<dyn Future<Output = turmoil::Result>>>;

/// One of the things that clients do.
pub trait Workload {
    /// One client, connected to this node.
    fn client(self: Rc<Self>, cluster: Cluster, node: usize, random: StdRng) -> Work;

    /// What must not be, once all clients have ended.
    fn violations(&self, history: &History) -> Vec<String>;
}

/// A kind of workload.
pub struct Kind {
    /// Its name in plans.
    pub name: &'static str,
    /// What it does, for people.
    pub about: &'static str,
    /// A new one for a run.
    pub make: fn(Board) -> Rc<dyn Workload>,
}

/// All kinds of workloads.
pub const WORKLOADS: &[Kind] = &[
    register::KIND,
    counter::KIND,
    scans::KIND,
    large::KIND,
    bank::KIND,
    lists::KIND,
    skew::KIND,
    fork::KIND,
    cycle::KIND,
    steps::KIND,
    locks::KIND,
];

/// Where the workloads of these names are in [`WORKLOADS`].
///
/// # Panics
/// When one is not.
pub fn places(names: &[&str]) -> Vec<usize> {
    let place = |name| WORKLOADS.iter().position(|kind| kind.name == name).expect("is one of them");
    names.iter().map(|&name| place(name)).collect()
}

/// What the clients and the scenario share. Clones are the same.
#[derive(Clone, Default)]
pub struct Board {
    /// What was asked and answered.
    pub history: Rc<RefCell<History>>,
    /// What replicas go through meanwhile.
    pub entries: Entries,
    stop: Rc<Cell<bool>>,
}

impl Board {
    /// With nothing on it.
    pub fn new(entries: Entries) -> Self {
        Self { history: Rc::default(), entries, stop: Rc::default() }
    }

    /// Ends the clients after the operation that each is at.
    pub fn stop(&self) {
        self.stop.set(true);
    }

    /// Whether clients go on, after a rest of up to 30 ms.
    pub async fn goes_on(&self, random: &mut StdRng) -> bool {
        tokio::time::sleep(Duration::from_millis(random.random_range(1..30))).await;
        !self.stop.get()
    }

    /// Writes, and notes what came of it.
    ///
    /// # Errors
    /// The client's.
    pub async fn put(
        &self,
        client: &Client,
        key: &str,
        value: Bytes,
        condition: Condition,
    ) -> Result<Written, Error> {
        let began = now();
        let answer = client.put_if(key, value.clone(), condition).await;
        self.history.borrow_mut().wrote(key, value, began, &answer);
        answer
    }

    /// Reads, and notes what came of it.
    ///
    /// # Errors
    /// The client's.
    pub async fn get(&self, client: &Client, key: &str) -> Result<Option<Versioned>, Error> {
        let began = now();
        let answer = client.get(key).await;
        self.history.borrow_mut().read(key, began, &answer);
        answer
    }
}
