//! What must come true again once nothing is wrong any more: every node sees every other, every group has a
//! leader, all replicas are identical, no transaction holds anything, and every node serves every key.

use crate::cluster::Cluster;
use crate::plan::Plan;
use crate::workload::{Board, REGISTERS, register};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use trandb_client::{Client, ClusterView, Condition, Error, NodeView};

/// How long a cluster may take to form, or to be whole again after a fault.
const WHOLE_MAX: Duration = Duration::from_secs(20);

/// How long a node may take to become a member while anything may go wrong: as long as all faults of a plan, and more.
const JOINED_MAX: Duration = Duration::from_secs(40);

/// How long nodes that reach a majority may take to serve every register again.
const TAKE_OVER_MAX: Duration = Duration::from_secs(5);

/// How long transactions may hold something after their clients have ended and all is well: a lease, and whoever then looks.
const HELD_MAX: Duration = Duration::from_secs(10);

/// Asks nodes whether all is well.
pub struct Liveness {
    /// One per node.
    clients: Vec<Client>,
    partitions: usize,
    board: Board,
}

impl Liveness {
    /// Asks every node of the cluster.
    ///
    /// # Errors
    /// None in practice: addresses are well-formed.
    pub fn new(cluster: &Cluster, plan: &Plan, board: Board) -> Result<Self, Error> {
        let client = |node| cluster.client(node, plan.seed.wrapping_add(100 + node as u64));
        let clients = (0..cluster.nodes()).map(client).collect::<Result<_, _>>()?;
        Ok(Self { clients, partitions: plan.partitions as usize, board })
    }

    /// Waits until every node sees every other and a leader of every partition, and all replicas are identical.
    ///
    /// # Errors
    /// What is still missing after `WHOLE_MAX`.
    pub async fn whole(&self, when: &str) -> turmoil::Result {
        self.whole_of(self.clients.len(), when).await
    }

    /// The same of a cluster that has so many nodes yet.
    ///
    /// # Errors
    /// As [`Liveness::whole`].
    pub async fn whole_of(&self, nodes: usize, when: &str) -> turmoil::Result {
        let deadline = Instant::now() + WHOLE_MAX;
        let mut node = 0;
        while node < nodes {
            match self.missing(node, nodes).await {
                None => node += 1,
                Some(why) if Instant::now() >= deadline => {
                    return Err(format!("not whole within {WHOLE_MAX:?} {when}: n{}: {why}", node + 1).into());
                }
                Some(_) => sleep(Duration::from_millis(50)).await,
            }
        }
        tracing::info!(when, "the cluster is whole");
        Ok(())
    }

    /// What a node misses to be part of a whole cluster of so many.
    async fn missing(&self, node: usize, nodes: usize) -> Option<String> {
        let view = match self.clients[node].cluster_status().await {
            Ok(view) => view,
            Err(error) => return Some(error.to_string()),
        };
        // The system group is one of them.
        if members(&view).count() != nodes || view.partitions.len() != self.partitions + 1 {
            let groups = view.partitions.len();
            return Some(format!("{} nodes, {groups} groups", members(&view).count()));
        }
        if let Some(down) = members(&view).find(|node| node.state != "up") {
            return Some(format!("{} is {}", down.id, down.state));
        }
        if let Some(headless) = view.partitions.iter().find(|partition| partition.leader.is_none()) {
            return Some(format!("{} has no leader", headless.id));
        }
        match self.clients[node].verify().await {
            Ok(report) if report.identical => None,
            Ok(report) => Some(format!("replicas differ: {:?}", report.partitions)),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Waits until every node knows that all peer doors are there.
    ///
    /// # Errors
    /// What is known instead after `WHOLE_MAX`.
    pub async fn found_at(&self, doors: &BTreeSet<String>) -> turmoil::Result {
        let deadline = Instant::now() + WHOLE_MAX;
        for client in &self.clients {
            loop {
                let known = client.cluster_status().await;
                let known =
                    known.map(|view| members(&view).map(|node| node.peer.clone()).collect::<BTreeSet<_>>());
                if known.as_ref().is_ok_and(|known| known == doors) {
                    break;
                }
                if Instant::now() >= deadline {
                    return Err(format!("{known:?} are known after {WHOLE_MAX:?}, not {doors:?}").into());
                }
                sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(())
    }

    /// Waits until the cluster has so many members.
    ///
    /// # Errors
    /// That it has not after `JOINED_MAX`.
    pub async fn has_members(&self, nodes: usize) -> turmoil::Result {
        let deadline = Instant::now() + JOINED_MAX;
        loop {
            for client in &self.clients {
                if client.cluster_status().await.is_ok_and(|view| members(&view).count() >= nodes) {
                    return Ok(());
                }
            }
            if Instant::now() >= deadline {
                return Err(format!("n{nodes} is no member {JOINED_MAX:?} after its start").into());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends all workloads. After that the cluster is whole, holds nothing, serves through every node, and is whole with that, too.
    ///
    /// # Errors
    /// What is not so.
    pub async fn ends_well(&self) -> turmoil::Result {
        self.board.stop();
        self.whole("at the end").await?;
        self.releases("at the end").await?;
        self.serves((0..self.clients.len()).collect(), "at the end").await?;
        self.whole("after the last writes").await
    }

    /// Waits until no transaction holds anything any more. All clients have ended.
    ///
    /// # Errors
    /// What still does after `HELD_MAX`.
    pub async fn releases(&self, when: &str) -> turmoil::Result {
        let deadline = Instant::now() + HELD_MAX;
        while let Some(held) = self.board.entries.held() {
            if Instant::now() >= deadline {
                return Err(format!("held for {HELD_MAX:?} {when}: {held}").into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Every one of these nodes writes and reads every register.
    ///
    /// # Errors
    /// What it did not, after `TAKE_OVER_MAX`.
    pub async fn serves(&self, nodes: Vec<usize>, when: &str) -> turmoil::Result {
        let deadline = Instant::now() + TAKE_OVER_MAX;
        for node in nodes {
            for key in (0..REGISTERS).map(register) {
                let mut attempts = 0;
                while let Err(error) = self.write_and_read(node, &key, when, attempts).await {
                    if Instant::now() >= deadline {
                        let why = format!("n{} does not serve {key} {when}: {error}", node + 1);
                        return Err(why.into());
                    }
                    attempts += 1;
                }
            }
        }
        Ok(())
    }

    async fn write_and_read(&self, node: usize, key: &str, when: &str, attempt: u32) -> Result<(), Error> {
        let value = bytes::Bytes::from(format!("probe of n{} {when}, attempt {attempt}", node + 1));
        self.board.put(&self.clients[node], key, value, Condition::Any).await?;
        self.board.get(&self.clients[node], key).await.map(drop)
    }
}

/// The nodes that are members still.
fn members(view: &ClusterView) -> impl Iterator<Item = &NodeView> {
    view.nodes.iter().filter(|node| node.state != "removed")
}
