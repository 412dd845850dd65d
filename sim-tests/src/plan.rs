//! What a seed decides before the simulation starts.

use crate::cluster::NODES;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::fmt;
use std::time::Duration;

/// What a seed decides before the simulation starts.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Data partitions.
    pub partitions: u32,
    /// Shortest time that a message takes.
    pub latency_min: Duration,
    /// Longest time that a message takes.
    pub latency_max: Duration,
    /// The node that is cut off, by index.
    pub isolated: usize,
    /// How long it is.
    pub isolated_for: Duration,
    /// The node that loses its power, by index.
    pub crashed: usize,
    /// How long it stays without.
    pub crashed_for: Duration,
    /// Simulated time after which the run has failed.
    pub limit: Duration,
}

impl Plan {
    /// The seed's plan.
    pub fn draw(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        Self {
            seed,
            partitions: random.random_range(2..=5),
            latency_min: Duration::from_millis(1),
            latency_max: Duration::from_millis(random.random_range(2..=8)),
            isolated: random.random_range(0..NODES),
            isolated_for: Duration::from_millis(random.random_range(2_000..5_000)),
            crashed: random.random_range(0..NODES),
            crashed_for: Duration::from_millis(random.random_range(200..3_000)),
            limit: Duration::from_secs(90),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} partitions, latency {:?} to {:?}, n{} cut off for {:?}, n{} without power for {:?}",
            self.partitions,
            self.latency_min,
            self.latency_max,
            self.isolated + 1,
            self.isolated_for,
            self.crashed + 1,
            self.crashed_for,
        )
    }
}
