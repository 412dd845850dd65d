//! A machine's clocks run fast, all of them: its timers too. Leases allow for a tenth, as seen from any other machine.

use super::{Fault, Lane, Strike, Work};
use crate::cluster::Cluster;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The fault.
pub(super) const FAULT: Fault = Fault {
    name: "clock-drift",
    about: "a machine's clocks run fast, those of its timers too",
    lane: Lane::Machine,
    nodes_min: 1,
    inflict: |cluster, strike| -> Work { Box::pin(inflict(cluster, strike)) },
};

/// What a clock gains at a time.
const GAIN: Duration = Duration::from_millis(1);
/// The shortest time in which it gains that: six percent.
const EVERY_MS_MIN: u64 = 17;

async fn inflict(cluster: Cluster, strike: Strike) {
    let every = Duration::from_millis(EVERY_MS_MIN + strike.random % 30);
    let (host, end) = (cluster.host(strike.node), Instant::now() + strike.lasts);
    while Instant::now() < end {
        sleep(every).await;
        host.leap(GAIN);
        host.clock().jump(GAIN.as_millis() as i64);
    }
}
