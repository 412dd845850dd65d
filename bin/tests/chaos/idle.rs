//! What costs something although nobody asks for anything: connections, and a cluster.

use crate::figures::Figures;
use crate::harness::Cluster;
use crate::probe::{self, Line};
use crate::{process, settings};
use std::time::Duration;
use tokio::time::Instant;
use trandb_client::{Connection, TcpDialer};

/// What an idle node may use of a core, in percent.
const PROCESSOR_PERCENT: f64 = 3.0;

/// Before a fresh cluster counts as idle: leaders have found their places.
const SETTLED: Duration = Duration::from_secs(10);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Descriptors of this process that are not the connections.
const DESCRIPTORS: u64 = 256;

/// Requests on one of the connections while all are open, each answered before the next.
const REQUESTS: u64 = 500;

/// How long the connections stay open.
const HELD: Duration = Duration::from_secs(15);

#[test]
#[ignore = "takes a minute: just chaos"]
fn idle_cluster() {
    let cluster = Cluster::start(3, &[]);
    std::thread::sleep(SETTLED);
    let during = Duration::from_secs(settings::seconds());
    let used = process::processor_percent(&cluster.nodes, || std::thread::sleep(during));

    let mut figures = Figures::new("an idle cluster of three");
    for (node, percent) in used.into_iter().enumerate() {
        figures.at_most(format!("node {node}, % of a core"), percent, PROCESSOR_PERCENT);
        figures.note(
            format!("memory of node {node}, MiB"),
            format_args!("{:.0}", process::memory_mib(&cluster.nodes[node])),
        );
    }
    let view = cluster.nodes[0].view();
    let leads: Vec<u32> = view.nodes.iter().map(|node| node.leads).collect();
    figures.note("groups led", format_args!("{leads:?}"));
    let even = leads.iter().max().zip(leads.iter().min()).map_or(0, |(most, least)| most - least);
    figures.at_most("groups led, most less fewest", f64::from(even), 1.0);
    figures.finish();
}

#[test]
#[ignore = "takes a minute and 10000 descriptors: just chaos"]
fn idle_connections() {
    let limit: u64 = settings::number("TRANDB_CHAOS_CONNECTIONS", 10_000);
    let open = rlimit::increase_nofile_limit(u64::MAX).expect("the limit can be read");
    if open < limit + DESCRIPTORS {
        return println!("skipped: {open} files may be open (ulimit -n), {} are needed", limit + DESCRIPTORS);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("node.toml");
    std::fs::write(&config, format!("[limits]\nconnections = {limit}\n")).expect("is written");
    let cluster = Cluster::start(1, &["--config", config.to_str().expect("is text")]);
    let node = &cluster.nodes[0];
    let addr = node.ports.native.as_str();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");

    let mut figures = Figures::new("idle connections");
    let before = process::memory_mib(node);
    runtime.block_on(async {
        let mut line = Line::open(addr).await;
        let quiet = latencies(&mut line).await;
        let began = Instant::now();
        let mut idle = Vec::new();
        for number in 1..limit {
            match Connection::open(&TcpDialer, addr, "chaos", CONNECT_TIMEOUT).await {
                Ok(connection) => idle.push(connection),
                Err(error) => panic!("connection {number} of {limit}: {error}"),
            }
        }
        figures.note("connections", limit);
        figures.note("opened in", format_args!("{:.1?}", began.elapsed()));
        let after = process::memory_mib(node);
        figures.note("memory before and with them, MiB", format_args!("{before:.0} {after:.0}"));
        figures.note("memory for each, KiB", format_args!("{:.1}", (after - before) * 1024.0 / limit as f64));
        let refused = Connection::open(&TcpDialer, addr, "chaos", CONNECT_TIMEOUT).await;
        let said = refused.expect_err("one more than the limit").to_string();
        println!("one more: {said}");
        figures.must("one more is refused with the reason", said.contains("connection limit"), true);
        tokio::time::sleep(HELD).await;
        let crowded = latencies(&mut line).await;
        figures.spread("put and get, alone", &quiet, None);
        figures.spread("put and get, among them", &crowded, None);
        let mut broken = 0;
        for connection in &mut idle {
            // Silence is what an open connection has to say.
            broken += usize::from(tokio::time::timeout(Duration::ZERO, connection.receive()).await.is_ok());
        }
        figures.must("connections that the node ended", broken, 0);
    });
    // The others are gone: there is room again.
    let room = crate::harness::eventually("room after the connections have ended", || node.try_client());
    room.put("chaos/after", "room").expect("is written");
    figures.note("memory afterwards, MiB", format_args!("{:.0}", process::memory_mib(node)));
    figures.finish();
}

async fn latencies(line: &mut Line) -> Vec<Duration> {
    let mut latencies = Vec::new();
    for number in 0..REQUESTS {
        let key = format!("chaos/idle/{number}");
        let began = Instant::now();
        line.ask(0, probe::put(&key, "idle")).await.expect("is written");
        line.ask(0, probe::get(&key)).await.expect("is read");
        latencies.push(began.elapsed());
    }
    latencies
}
