//! One node is cut off from the others and comes back; then one loses its power and comes back.
//!
//! Cut off, it refuses writes and linearizable reads; the other two go on. After each fault all replicas are
//! identical, every register shows its newest acknowledged write, and the history is linearizable.

use super::{Scenario, Script};
use crate::cluster::{Cluster, NODES};
use crate::history::now;
use crate::plan::Plan;
use crate::workload::{REGISTERS, Workload, register};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use trandb_client::{Client, ErrorCode};

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "partition",
    about: "one of three nodes is cut off and comes back, then one loses its power and comes back",
    script: |cluster, plan, workload| -> Script { Box::pin(script(cluster, plan, workload)) },
};

/// How long a cluster may take to form, or to be whole again after a fault.
const WHOLE_MAX: Duration = Duration::from_secs(15);

/// How long two of three nodes may take to serve every register again.
const TAKE_OVER_MAX: Duration = Duration::from_secs(5);

/// How long a node that was cut off may take to know that it is: its leases and its peers' heartbeats end first.
const CUT_OFF_KNOWN: Duration = Duration::from_millis(1_500);

/// How long the workload runs undisturbed before and between faults.
const CALM: Duration = Duration::from_secs(1);

async fn script(cluster: Cluster, plan: Plan, workload: Workload) -> turmoil::Result {
    let run = Run {
        clients: (0..NODES)
            .map(|node| cluster.client(node, plan.seed.wrapping_add(100 + node as u64)))
            .collect::<Result<_, _>>()?,
        partitions: plan.partitions as usize,
        workload,
    };
    let others = |node: usize| (0..NODES).filter(move |other| *other != node);

    run.whole("after forming").await?;
    sleep(CALM).await;

    tracing::info!(node = cluster.names()[plan.isolated], "cut off");
    cluster.isolate(plan.isolated);
    let cut = Instant::now();
    run.serves(others(plan.isolated).collect(), "cut off from the third").await?;
    tokio::time::sleep_until(cut + CUT_OFF_KNOWN).await;
    run.refuses(plan.isolated).await?;
    tokio::time::sleep_until(cut + plan.isolated_for).await;
    tracing::info!(node = cluster.names()[plan.isolated], "healed");
    cluster.heal(plan.isolated);
    run.whole("after the partition").await?;
    run.serves((0..NODES).collect(), "after the partition").await?;
    sleep(CALM).await;

    tracing::info!(node = cluster.names()[plan.crashed], "power off");
    cluster.crash(plan.crashed).await;
    let off = Instant::now();
    run.serves(others(plan.crashed).collect(), "without the third").await?;
    tokio::time::sleep_until(off + plan.crashed_for).await;
    tracing::info!(node = cluster.names()[plan.crashed], "power on");
    cluster.bounce(plan.crashed).await;
    run.whole("after the crash").await?;
    sleep(CALM).await;

    run.workload.stop();
    run.serves((0..NODES).collect(), "at the end").await?;
    run.whole("at the end").await
}

struct Run {
    /// One per node.
    clients: Vec<Client>,
    partitions: usize,
    workload: Workload,
}

impl Run {
    /// Waits until every node sees every other and a leader of every partition, and all replicas are identical.
    async fn whole(&self, when: &str) -> turmoil::Result {
        let deadline = Instant::now() + WHOLE_MAX;
        let mut node = 0;
        while node < NODES {
            match self.missing(node).await {
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

    /// What a node misses to be part of a whole cluster.
    async fn missing(&self, node: usize) -> Option<String> {
        let view = match self.clients[node].cluster_status().await {
            Ok(view) => view,
            Err(error) => return Some(error.to_string()),
        };
        // The system group is one of them.
        if view.nodes.len() != NODES || view.partitions.len() != self.partitions + 1 {
            return Some(format!("{} nodes, {} groups", view.nodes.len(), view.partitions.len()));
        }
        if let Some(down) = view.nodes.iter().find(|node| node.state != "up") {
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

    /// Every one of these nodes writes and reads every register.
    async fn serves(&self, nodes: Vec<usize>, when: &str) -> turmoil::Result {
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

    async fn write_and_read(
        &self,
        node: usize,
        key: &str,
        when: &str,
        attempt: u32,
    ) -> Result<(), trandb_client::Error> {
        let value = bytes::Bytes::from(format!("probe of n{} {when}, attempt {attempt}", node + 1));
        let began = now();
        let answer = self.clients[node].put(key, value.clone()).await;
        self.workload.history.borrow_mut().wrote(key, value, began, &answer);
        answer?;
        let began = now();
        let answer = self.clients[node].get(key).await;
        self.workload.history.borrow_mut().read(key, began, &answer);
        answer.map(drop)
    }

    /// This node neither writes nor reads any register, and says that it surely did not.
    async fn refuses(&self, node: usize) -> turmoil::Result {
        let client = &self.clients[node];
        // One at a time would take longer than the partition: each is refused only after a while.
        let probes = (0..REGISTERS).map(|index| async move {
            let key = register(index);
            let value = bytes::Bytes::from(format!("refused by n{}", node + 1));
            let began = now();
            let wrote = client.put(&key, value.clone()).await;
            self.workload.history.borrow_mut().wrote(&key, value, began, &wrote);
            let began = now();
            let read = client.get(&key).await;
            self.workload.history.borrow_mut().read(&key, began, &read);
            (key, wrote.map(|written| written.version), read.map(|found| found.map(|found| found.version)))
        });
        for (key, wrote, read) in futures_util::future::join_all(probes).await {
            let codes = (wrote.as_ref().err().map(|e| e.code), read.as_ref().err().map(|e| e.code));
            if codes != (Some(ErrorCode::Unavailable), Some(ErrorCode::Unavailable)) {
                let why = format!("n{} is cut off but not unavailable: {key}: {wrote:?}, {read:?}", node + 1);
                return Err(why.into());
            }
        }
        Ok(())
    }
}
