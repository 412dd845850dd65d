//! A node is killed without warning, again and again, while clients write. Nothing that was acknowledged may be lost.

use crate::figures::{Figures, Spread};
use crate::harness::Cluster;
use crate::load::Writers;
use crate::probe::{self, Probe};
use crate::settings;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;
use tokio::time::Instant;

/// From a restarted node's readiness to the next kill: time for it to be led and followed again, as a machine that
/// comes back has; jitter on top spreads the kills over the nodes' timers.
const CALM_MS: u64 = 2000;
const CALM_JITTER_MS: u64 = 500;

/// What the 99th percentile of the outages may be.
const OUTAGE_P99: Duration = Duration::from_secs(1);

#[test]
#[ignore = "takes minutes: just chaos"]
fn kill_loop() {
    let mut random = StdRng::seed_from_u64(settings::seed());
    let kills: u32 = settings::number("TRANDB_CHAOS_KILLS", 20);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut cluster = Cluster::start(3, &[]);
    let addrs: Vec<String> = cluster.nodes.iter().map(|node| node.ports.native.clone()).collect();
    let keys = probe::keys(&cluster.client().topology().expect("a map"), "probe");

    let writers = Writers::start(&runtime, &addrs, settings::clients());
    let mut outages = Vec::new();
    let mut restarts = Vec::new();
    for round in 1..=kills {
        let calm = Duration::from_millis(CALM_MS + random.random_range(0..CALM_JITTER_MS));
        std::thread::sleep(calm);
        let victim = random.random_range(0..cluster.nodes.len());
        let witness = (victim + random.random_range(1..cluster.nodes.len())) % cluster.nodes.len();
        let probe = runtime.block_on(Probe::open(&addrs[witness], &keys));
        let acknowledged = writers.acknowledged();
        cluster.nodes[victim].kill9();
        let killed = Instant::now();
        let recovered = runtime.block_on(probe.recover(killed));
        let (slowest, outage) =
            recovered.iter().max_by_key(|(_, took)| **took).expect("there are partitions");
        let (slowest, outage) = (*slowest, *outage);
        let spread = Spread::of(&recovered.into_values().collect::<Vec<_>>()).expect("there are partitions");
        let began = Instant::now();
        cluster.nodes[victim].restart();
        let restart = began.elapsed();
        println!(
            "kill {round}/{kills}: node {victim}; all partitions take writes through node {witness} after \
             {outage:.0?} (median {:.0?}, last {slowest}); restarted in {restart:.0?}; {acknowledged} writes before",
            spread.p50
        );
        outages.push(outage);
        restarts.push(restart);
    }
    let record = writers.stop(&runtime);
    let (read, lost) = record.read_back(&runtime, &addrs);
    cluster.wait_identical(cluster.nodes.len());

    let mut figures = Figures::new("kill -9 of a random node under load");
    figures.note("kills", kills);
    figures.spread("until every partition takes writes", &outages, Some(OUTAGE_P99));
    figures.spread("restart until ready", &restarts, None);
    record.note(&mut figures);
    figures.note("acknowledged writes read back", read);
    figures.must("acknowledged writes lost", lost.len(), 0);
    figures.finish();
}
