//! The hosts of a simulation, and the orders that only someone outside of it can carry out.

use crate::host::{Host, NATIVE_PORT, PeerDoors};
use crate::net::Tunnel;
use crate::park;
use crate::plan::Plan;
use crate::trace::Trace;
use crate::watchdog;
use crate::weather::Weather;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use trandb_client::{Client, Error, NodeId};
use turmoil::Sim;

/// Bytes are cut into segments of this many writes at the most before a sender waits; turmoil counts segments.
const TCP_SEGMENTS_MAX: usize = 4096;

/// How long a call may take before its client gives up, where the caller sets nothing else.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// What a scenario has done to a host.
#[derive(Debug, Clone, Copy)]
enum Order {
    Crash(usize),
    Bounce(usize),
    /// See [`Cluster::lose_disk`].
    Replace(usize, bool),
    /// Messages to and from the node take up to this long.
    Slow(usize, Duration),
}

/// What the scenario wants done to hosts, with whom to tell when it is; taken between two steps of the simulation.
type Orders = Rc<RefCell<VecDeque<(Order, oneshot::Sender<()>)>>>;

/// A scenario's handle on the cluster; clones are the same.
#[derive(Clone)]
pub struct Cluster {
    names: Rc<Vec<String>>,
    hosts: Rc<Vec<Arc<Host>>>,
    /// How many nodes have clients.
    clients: usize,
    patience: Duration,
    latency_max: Duration,
    weather: Weather,
    orders: Orders,
}

impl Cluster {
    /// Sets up the network and the nodes, all of them fresh. The first one parks its listener at
    /// `park`, the others beside it ([`crate::park`]).
    pub fn new<'a>(plan: &Plan, park: SocketAddr) -> (Sim<'a>, Self, Crew) {
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
        let names: Vec<String> = (1..=plan.nodes).map(|id| format!("n{id}")).collect();
        let doors = PeerDoors::new(&names);
        let weather = Weather::new(plan);
        let hosts: Vec<Arc<Host>> = (0..plan.nodes)
            .map(|index| Arc::new(Host::new(plan, index, doors.clone(), &weather, park::of(park, index))))
            .collect();
        for host in &hosts {
            let software = host.clone();
            sim.host(host.name(), move || software.clone().run());
        }
        let cluster = Self {
            names: Rc::new(names),
            hosts: Rc::new(hosts),
            clients: plan.clients,
            patience: plan.patience,
            latency_max: plan.latency_max,
            weather,
            orders: Rc::default(),
        };
        let crew = Crew {
            names: cluster.names.clone(),
            hosts: cluster.hosts.clone(),
            orders: cluster.orders.clone(),
        };
        (sim, cluster, crew)
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.names.len()
    }

    /// Names of the hosts, by index.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// What goes wrong all the while.
    pub fn weather(&self) -> &Weather {
        &self.weather
    }

    /// The machine of a node.
    pub fn host(&self, node: usize) -> &Host {
        &self.hosts[node]
    }

    /// A client that reaches this one node only.
    ///
    /// # Errors
    /// None in practice: the address is well-formed.
    pub fn client(&self, node: usize, seed: u64) -> Result<Client, Error> {
        let to = format!("{}:{NATIVE_PORT}", self.names[node]);
        Client::builder()
            .dialer(Tunnel { to: to.clone(), weather: self.weather.clone() })
            .seed(seed)
            .timeout(CALL_TIMEOUT)
            .build(to)
    }

    /// The same, which waits for an answer no longer than the plan wants.
    ///
    /// # Errors
    /// As [`Cluster::client`].
    pub fn user(&self, node: usize, seed: u64) -> Result<Client, Error> {
        Ok(self.client(node, seed)?.with_timeout(self.patience))
    }

    /// Cuts a node off from all other nodes. Its clients still reach it.
    pub fn isolate(&self, node: usize) {
        self.for_others(node, |one, other| turmoil::partition(one, other));
    }

    /// Ends [`Cluster::isolate`].
    pub fn heal(&self, node: usize) {
        self.for_others(node, |one, other| turmoil::repair(one, other));
    }

    /// Cuts one node off from one other.
    pub fn part(&self, one: usize, other: usize) {
        turmoil::partition(&*self.names[one], &*self.names[other]);
    }

    /// What one node says does not reach the other.
    pub fn silence(&self, from: usize, to: usize) {
        turmoil::partition_oneway(&*self.names[from], &*self.names[to]);
    }

    /// All nodes reach each other.
    pub fn heal_all(&self) {
        for node in 0..self.nodes() {
            self.heal(node);
        }
    }

    /// Messages between a node and the others stand still.
    pub fn hold(&self, node: usize) {
        self.for_others(node, |one, other| turmoil::hold(one, other));
    }

    /// Ends [`Cluster::hold`]: all of them arrive.
    pub fn release(&self, node: usize) {
        self.for_others(node, |one, other| turmoil::release(one, other));
    }

    /// Messages between a node and anybody, its clients included, stand still.
    pub fn hold_all(&self, node: usize) {
        self.hold(node);
        self.for_clients(node, |node, client| turmoil::hold(node, client));
    }

    /// Ends [`Cluster::hold_all`].
    pub fn release_all(&self, node: usize) {
        self.release(node);
        self.for_clients(node, |node, client| turmoil::release(node, client));
    }

    /// What a node says does not reach its clients. One that has none: another one's.
    pub fn mute(&self, node: usize) {
        self.for_clients(node, |node, client| turmoil::partition_oneway(node, client));
    }

    /// Ends [`Cluster::mute`].
    pub fn unmute(&self, node: usize) {
        self.for_clients(node, |node, client| turmoil::repair_oneway(node, client));
    }

    /// Messages to and from a node take up to this long; none: as long as in the plan.
    pub async fn slow(&self, node: usize, latency: Option<Duration>) {
        self.order(Order::Slow(node, latency.unwrap_or(self.latency_max))).await;
    }

    /// The node that leads a group, as the first node that answers believes; groups are counted in a circle.
    pub async fn leader_of(&self, group: usize) -> Option<usize> {
        let groups = self.groups().await?;
        groups.get(group % groups.len().max(1))?.leader
    }

    /// All groups, the system group first, as the first node that answers sees them.
    pub async fn groups(&self) -> Option<Vec<Group>> {
        let place = |id: NodeId| self.hosts.iter().position(|host| host.member() == Some(id));
        for node in 0..self.nodes() {
            let client = self.client(node, node as u64).ok()?.with_timeout(Duration::from_millis(300));
            if let Ok(view) = client.cluster_status().await {
                let groups = view.partitions.iter().map(|group| Group {
                    leader: group.leader.and_then(place),
                    replicas: group.replicas.iter().copied().filter_map(place).collect(),
                });
                return Some(groups.collect());
            }
        }
        None
    }

    /// Waits for a node to fail of what was done to it, cuts its power, and boots it when `lasts` is over. One
    /// that had no reason to fail within that time loses its power as well.
    pub async fn fails_and_restarts(&self, node: usize, lasts: Duration) {
        self.fails(node, lasts).await;
        self.recovers(node).await;
    }

    /// The first half of [`Cluster::fails_and_restarts`]: `lasts` is over, and the power still off.
    pub async fn fails(&self, node: usize, lasts: Duration) {
        const LOOK: Duration = Duration::from_millis(5);
        let host = &self.hosts[node];
        host.may_fail(true);
        let mut left = lasts;
        while !host.has_failed() && !left.is_zero() {
            tokio::time::sleep(LOOK).await;
            left = left.saturating_sub(LOOK);
        }
        self.crash(node).await;
        tokio::time::sleep(left.max(LOOK)).await;
    }

    /// Boots a crashed node that has no reason to fail any more.
    pub async fn recovers(&self, node: usize) {
        self.hosts[node].may_fail(false);
        self.bounce(node).await;
    }

    /// Boots a crashed node that may not even start.
    pub async fn boots_in_vain(&self, node: usize) {
        self.hosts[node].may_fail(true);
        self.bounce(node).await;
    }

    /// Cuts a node's power.
    pub async fn crash(&self, node: usize) {
        tracing::info!(node = self.names[node], "power off");
        self.order(Order::Crash(node)).await;
    }

    /// Cuts a node's power, and puts an empty disk in the place of its disk; `repaired`: one that knows the node's cluster.
    pub async fn lose_disk(&self, node: usize, repaired: bool) {
        tracing::info!(node = self.names[node], repaired, "power off, and the disk is replaced");
        self.order(Order::Replace(node, repaired)).await;
    }

    /// Boots a crashed node with what its disk kept.
    pub async fn bounce(&self, node: usize) {
        tracing::info!(node = self.names[node], "power on");
        self.order(Order::Bounce(node)).await;
    }

    fn for_others(&self, node: usize, act: impl Fn(&str, &str)) {
        for (index, name) in self.names.iter().enumerate() {
            if index != node {
                act(&self.names[node], name);
            }
        }
    }

    fn for_clients(&self, node: usize, act: impl Fn(&str, &str)) {
        let node = node % self.clients;
        act(&self.names[node], &client_host(node));
    }

    async fn order(&self, order: Order) {
        let (done, told) = oneshot::channel();
        self.orders.borrow_mut().push_back((order, done));
        told.await.expect("the crew outlives every simulated host");
    }
}

/// A replica group as a scenario sees it.
#[derive(Debug, Clone)]
pub struct Group {
    /// The node that leads it, if one is known to.
    pub leader: Option<usize>,
    /// The nodes that have a replica.
    pub replicas: Vec<usize>,
}

/// The simulated host of a node's clients, one of each workload.
pub fn client_host(node: usize) -> String {
    format!("c{}", node + 1)
}

/// Carries out orders between two steps of the simulation.
pub struct Crew {
    names: Rc<Vec<String>>,
    hosts: Rc<Vec<Arc<Host>>>,
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
            watchdog::alive(sim.elapsed());
            while let Some((order, done)) = self.next() {
                match order {
                    Order::Crash(node) => {
                        sim.crash(self.hosts[node].name());
                        self.hosts[node].lose_power();
                    }
                    Order::Replace(node, repaired) => {
                        sim.crash(self.hosts[node].name());
                        self.hosts[node].replace_disk(repaired);
                    }
                    Order::Bounce(node) => sim.bounce(self.hosts[node].name()),
                    Order::Slow(node, latency) => {
                        for other in self.names.iter().filter(|&name| *name != self.names[node]) {
                            sim.set_link_max_message_latency(&*self.names[node], &**other, latency);
                        }
                    }
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
