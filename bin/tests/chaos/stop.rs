//! A node that is frozen for a while: its connections stay open, nothing answers, and it does not know.

use crate::figures::Figures;
use crate::harness::Cluster;
use crate::load::Writers;
use crate::process::Memory;
use crate::register::Registers;
use crate::{probe, settings};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;
use std::time::Instant;

/// How long the node is frozen.
const FROZEN: Duration = Duration::from_secs(10);

/// Before the fault and after its end.
const CALM: Duration = Duration::from_secs(3);

/// Clients that write next to the registers, so that there is something to catch up with.
const CLIENTS: usize = 16;

/// The longest that a partition may take no write through the others.
const GAP: Duration = Duration::from_secs(1);

/// What a node may use above what it had before the fault: queues to the frozen node are bounded to 64 MiB, and what
/// is written meanwhile is kept.
const GROWTH_MIB: f64 = 256.0;

#[test]
#[ignore = "takes a minute: just chaos"]
fn stop_and_continue() {
    let mut random = StdRng::seed_from_u64(settings::seed());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let cluster = Cluster::start(3, &[]);
    let addrs: Vec<String> = cluster.nodes.iter().map(|node| node.ports.native.clone()).collect();
    let keys = probe::keys(&cluster.client().topology().expect("a map"), "register");
    let frozen = random.random_range(0..cluster.nodes.len());
    let other = (frozen + 1) % cluster.nodes.len();

    let memory = Memory::watch(&cluster.nodes);
    let writers = Writers::start(&runtime, &addrs, CLIENTS.min(settings::clients()));
    let registers = Registers::start(&runtime, &keys, &addrs[other], &addrs[frozen]);
    std::thread::sleep(CALM);
    cluster.nodes[frozen].sigstop();
    let before = writers.acknowledged();
    std::thread::sleep(FROZEN);
    let meanwhile = writers.acknowledged() - before;
    cluster.nodes[frozen].sigcont();
    let resumed = Instant::now();
    let serves = {
        cluster.nodes[frozen].client().get(keys.values().next().expect("a partition")).expect("it serves");
        resumed.elapsed()
    };
    cluster.wait_identical(cluster.nodes.len());
    let caught_up = resumed.elapsed();
    std::thread::sleep(CALM);
    let (gaps, seen) = registers.stop(&runtime);
    let record = writers.stop(&runtime);
    let (_, lost) = record.read_back(&runtime, &addrs);
    cluster.wait_identical(cluster.nodes.len());

    let mut figures = Figures::new("SIGSTOP of a node for ten seconds");
    figures.note("writes acknowledged meanwhile", meanwhile);
    figures.spread("longest gap of a partition's writes", &gaps, Some(GAP));
    figures.note("first read through it after SIGCONT", format_args!("{serves:.1?}"));
    figures.note("identical to the others after SIGCONT", format_args!("{caught_up:.1?}"));
    for (node, resident) in memory.stop().into_iter().enumerate() {
        let name = format!("memory of node {node}{}", if node == frozen { " (frozen)" } else { "" });
        figures.note(
            format!("{name}, first and last, MiB"),
            format_args!("{:.0} {:.0}", resident.first, resident.last),
        );
        figures.at_most(
            format!("{name}, growth to the most, MiB"),
            resident.most - resident.first,
            GROWTH_MIB,
        );
    }
    record.note(&mut figures);
    figures.must("acknowledged writes lost", lost.len(), 0);
    for example in seen.stale.iter().take(3) {
        println!("stale: {example}");
    }
    figures.note(
        "reads through the frozen node, answered and failed",
        format_args!("{} {}", seen.reads, seen.failures),
    );
    figures.must("stale reads", seen.stale.len(), 0);
    figures.finish();
}
