//! The hosts of a simulation, and the orders that only someone outside of it can carry out.

use crate::host::{Host, NATIVE_PORT};
use crate::net::Tunnel;
use crate::plan::Plan;
use crate::trace::Trace;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use trandb_client::{Client, Error};
use turmoil::Sim;

/// Nodes of every simulation.
pub const NODES: usize = 3;

/// Bytes are cut into segments of this many writes at the most before a sender waits; turmoil counts segments.
const TCP_SEGMENTS_MAX: usize = 4096;

/// How long a call may take before its client gives up, where the caller sets nothing else.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// What a scenario has done to a host.
#[derive(Debug, Clone, Copy)]
enum Order {
    Crash(usize),
    Bounce(usize),
}

/// What the scenario wants done to hosts, with whom to tell when it is; taken between two steps of the simulation.
type Orders = Rc<RefCell<VecDeque<(Order, oneshot::Sender<()>)>>>;

/// A scenario's handle on the cluster; clones are the same.
#[derive(Clone)]
pub struct Cluster {
    names: Rc<Vec<String>>,
    orders: Orders,
}

impl Cluster {
    /// Sets up the network and the nodes, all of them fresh. `park_port` and the two after it are free OS ports.
    pub fn new<'a>(plan: &Plan, park_port: u16) -> (Sim<'a>, Self, Crew) {
        let mut sim = turmoil::Builder::new()
            .simulation_duration(plan.limit)
            .min_message_latency(plan.latency_min)
            .max_message_latency(plan.latency_max)
            .tcp_capacity(TCP_SEGMENTS_MAX)
            // ractor_cluster parks a listener that nothing connects to.
            .enable_tokio_io()
            .enable_random_order()
            .rng_seed(plan.seed)
            .build();
        let names: Vec<String> = (1..=NODES).map(|id| format!("n{id}")).collect();
        let mut hosts = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let seed = plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(index as u32 * 8);
            let host = Host::new(name, &names, plan.partitions, seed, park_port + index as u16);
            hosts.push(Arc::new(host));
        }
        for host in &hosts {
            let software = host.clone();
            sim.host(host.name(), move || software.clone().run());
        }
        let cluster = Self { names: Rc::new(names), orders: Rc::default() };
        let crew = Crew { hosts, orders: cluster.orders.clone() };
        (sim, cluster, crew)
    }

    /// Names of the hosts, by index.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// A client that reaches this one node only.
    ///
    /// # Errors
    /// None in practice: the address is well-formed.
    pub fn client(&self, node: usize, seed: u64) -> Result<Client, Error> {
        let to = format!("{}:{NATIVE_PORT}", self.names[node]);
        Client::builder().dialer(Tunnel { to: to.clone() }).seed(seed).timeout(CALL_TIMEOUT).build(to)
    }

    /// Cuts a node off from all other nodes. Its clients still reach it.
    pub fn isolate(&self, node: usize) {
        self.for_others(node, |one, other| turmoil::partition(one, other));
    }

    /// Ends [`Cluster::isolate`].
    pub fn heal(&self, node: usize) {
        self.for_others(node, |one, other| turmoil::repair(one, other));
    }

    /// Cuts a node's power.
    pub async fn crash(&self, node: usize) {
        self.order(Order::Crash(node)).await;
    }

    /// Boots a crashed node with what its disk kept.
    pub async fn bounce(&self, node: usize) {
        self.order(Order::Bounce(node)).await;
    }

    fn for_others(&self, node: usize, act: impl Fn(&str, &str)) {
        for (index, name) in self.names.iter().enumerate() {
            if index != node {
                act(&self.names[node], name);
            }
        }
    }

    async fn order(&self, order: Order) {
        let (done, told) = oneshot::channel();
        self.orders.borrow_mut().push_back((order, done));
        told.await.expect("the crew outlives every simulated host");
    }
}

/// Carries out orders between two steps of the simulation.
pub struct Crew {
    hosts: Vec<Arc<Host>>,
    orders: Orders,
}

impl Crew {
    /// Runs the simulation until all its clients have ended.
    ///
    /// # Errors
    /// What a client or a node ended with, or that the simulation has taken too long.
    pub fn run(&self, sim: &mut Sim<'_>, trace: &Trace) -> turmoil::Result {
        while !sim.step()? {
            trace.now(sim.elapsed());
            while let Some((order, done)) = self.next() {
                match order {
                    Order::Crash(node) => {
                        sim.crash(self.hosts[node].name());
                        self.hosts[node].lose_power();
                    }
                    Order::Bounce(node) => sim.bounce(self.hosts[node].name()),
                }
                // Whoever gave the order may be gone.
                let _ = done.send(());
            }
        }
        Ok(())
    }

    fn next(&self) -> Option<(Order, oneshot::Sender<()>)> {
        self.orders.borrow_mut().pop_front()
    }
}
