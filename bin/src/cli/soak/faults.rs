//! What happens to nodes meanwhile: they are killed and come back, or stand still for a while.

use super::super::failure::Failure;
use super::super::processes::{Cluster, Nodes, all_ready};
use rand::RngExt;
use rand::rngs::StdRng;
use rustix::process::Signal;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// From a node's return to the next fault.
const CALM_MS: std::ops::Range<u64> = 1000..4000;

/// How long a killed node stays away.
const AWAY_MS: std::ops::Range<u64> = 200..2500;

/// How long a node stands still: past its leases, or not.
const STILL_MS: std::ops::Range<u64> = 200..3000;

/// How many of them there were.
#[derive(Debug, Default)]
pub(super) struct Faults {
    kills: u32,
    pauses: u32,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nodes were killed {} times and paused {} times", self.kills, self.pauses)
    }
}

/// Does so for that long; all nodes are ready again afterwards.
pub(super) async fn inject(
    cluster: &Cluster,
    nodes: &mut Nodes,
    time: Duration,
    random: &mut StdRng,
) -> Result<Faults, Failure> {
    let until = Instant::now() + time;
    let mut faults = Faults::default();
    let rest = async |range: std::ops::Range<u64>, random: &mut StdRng| {
        tokio::time::sleep(Duration::from_millis(random.random_range(range))).await;
    };
    while Instant::now() < until {
        rest(CALM_MS, random).await;
        let at = random.random_range(0..cluster.nodes);
        let node = &mut nodes.0[usize::from(at)];
        if random.random_ratio(2, 3) {
            node.signal(Signal::KILL);
            node.process.wait()?;
            node.exited = true;
            rest(AWAY_MS, random).await;
            *node = cluster.start_node(at)?;
            all_ready(&mut nodes.0).await?;
            faults.kills += 1;
        } else {
            node.signal(Signal::STOP);
            rest(STILL_MS, random).await;
            node.signal(Signal::CONT);
            faults.pauses += 1;
        }
    }
    all_ready(&mut nodes.0).await?;
    Ok(faults)
}
