//! What happens to nodes meanwhile: they are killed and come back, stand still for a while or, where they have a network of
//! their own, are cut off from the others.

use super::super::failure::{FAILED, Failure};
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

/// How long a node is cut off: until the others have another leader, or not.
const CUT_MS: std::ops::Range<u64> = 200..5000;

/// How many of them there were.
#[derive(Debug, Default)]
pub(super) struct Faults {
    kills: u32,
    pauses: u32,
    cuts: u32,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, pauses, cuts } = self;
        write!(f, "nodes were killed {kills} times, paused {pauses} times and cut off {cuts} times")
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
        let kinds = if cluster.network.is_some() { 4 } else { 3 };
        match (random.random_range(0..kinds), &cluster.network) {
            (3, Some(network)) => {
                let failed = |why| Failure::new(FAILED, why);
                network.cut(at.into()).map_err(failed)?;
                rest(CUT_MS, random).await;
                network.heal(at.into()).map_err(failed)?;
                faults.cuts += 1;
            }
            (2, _) => {
                node.signal(Signal::STOP);
                rest(STILL_MS, random).await;
                node.signal(Signal::CONT);
                faults.pauses += 1;
            }
            _ => {
                node.signal(Signal::KILL);
                node.process.wait()?;
                node.exited = true;
                rest(AWAY_MS, random).await;
                *node = cluster.start_node(at)?;
                all_ready(&mut nodes.0).await?;
                faults.kills += 1;
            }
        }
    }
    all_ready(&mut nodes.0).await?;
    Ok(faults)
}
