//! Each node in turn is asked to end while clients write. They must not notice.

use crate::figures::Figures;
use crate::harness::Cluster;
use crate::load::Writers;
use crate::settings;
use std::time::{Duration, Instant};

/// Between a node's return and the next one's end.
const CALM: Duration = Duration::from_secs(3);

/// The drain time that nodes have by default.
const DRAIN: Duration = Duration::from_secs(30);

#[test]
#[ignore = "takes a minute: just chaos"]
fn terminate() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut cluster = Cluster::start(3, &[]);
    let addrs: Vec<String> = cluster.nodes.iter().map(|node| node.ports.native.clone()).collect();
    let writers = Writers::start(&runtime, &addrs, settings::clients());
    let mut ends = Vec::new();
    for at in 0..cluster.nodes.len() {
        std::thread::sleep(CALM);
        let node = &mut cluster.nodes[at];
        let began = Instant::now();
        node.sigterm();
        let code = node.wait_exit();
        ends.push((code, began.elapsed()));
        node.restart();
    }
    std::thread::sleep(CALM);
    let record = writers.stop(&runtime);
    let (_, lost) = record.read_back(&runtime, &addrs);
    cluster.wait_identical(3);

    let mut figures = Figures::new("SIGTERM of each node in turn under load");
    for (node, (code, took)) in ends.into_iter().enumerate() {
        figures.must(format!("node {node}, exit code"), code.unwrap_or(-1), 0);
        figures.within(format!("node {node}, ended after"), took, DRAIN);
    }
    record.note(&mut figures);
    figures.must("writes that failed for a caller", record.not_acknowledged(), 0);
    figures.must("acknowledged writes lost", lost.len(), 0);
    figures.finish();
}
