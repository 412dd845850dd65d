//! Large values must not hold up small requests.

use crate::figures::Figures;
use crate::harness::Cluster;
use crate::process::Memory;
use crate::settings;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use trandb_client::Client;

/// The largest value there may be.
const VALUE_BYTES: usize = 4 << 20;

/// Clients that write large values.
const LARGE: usize = 8;

/// Clients that read small ones, one request at a time with a pause, so that latency is measured and not a queue.
const SMALL: usize = 4;
const SMALL_GAP: Duration = Duration::from_millis(5);

/// Different small keys: every partition has some.
const SMALL_KEYS: usize = 200;

/// Each client overwrites this many keys in turn, which bounds what is kept.
const LARGE_KEYS: usize = 4;

/// Of small gets while large values are written.
const SMALL_P99: Duration = Duration::from_millis(10);

#[test]
#[ignore = "takes a minute: just chaos"]
fn large_values() {
    // What the clients of large values do to a runtime is not what is measured: the small ones have their own.
    let runtime = Runtime::new().expect("a runtime");
    let small_runtime = Runtime::new().expect("a runtime");
    let cluster = Cluster::start(3, &[]);
    let addrs: Vec<String> = cluster.nodes.iter().map(|node| node.ports.native.clone()).collect();
    let client = cluster.client();
    for number in 0..SMALL_KEYS {
        client.put(format!("chaos/small/{number}"), "small").expect("is written");
    }
    let quiet = small_gets(&small_runtime, &addrs, Duration::from_secs(settings::seconds()) / 4);

    let memory = Memory::watch(&cluster.nodes);
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        (0..LARGE).map(|writer| runtime.spawn(write_large(addrs.clone(), writer, stop.clone()))).collect();
    let busy = small_gets(&small_runtime, &addrs, Duration::from_secs(settings::seconds()));
    stop.store(true, Ordering::Relaxed);
    let mut written = Vec::new();
    let mut failures = Vec::new();
    for writer in writers {
        let (latencies, failed) = runtime.block_on(writer).expect("no panic");
        written.extend(latencies);
        failures.extend(failed);
    }
    for example in failures.iter().take(3) {
        println!("a large write failed, for example: {example}");
    }
    cluster.wait_identical(3);

    let mut figures = Figures::new("4 MiB values by eight clients, small gets next to them");
    figures.spread("small get, quiet", &quiet.latencies, None);
    figures.spread("small get, next to large writes", &busy.latencies, Some(SMALL_P99));
    figures.must("small gets failed", quiet.failed + busy.failed, 0);
    figures.spread("large write", &written, None);
    figures.note("large writes failed", failures.len());
    for (node, resident) in memory.stop().into_iter().enumerate() {
        figures.note(
            format!("memory of node {node}, first, most, last, MiB"),
            format_args!("{:.0} {:.0} {:.0}", resident.first, resident.most, resident.last),
        );
    }
    figures.finish();
}

struct SmallGets {
    latencies: Vec<Duration>,
    failed: usize,
}

fn small_gets(runtime: &Runtime, addrs: &[String], during: Duration) -> SmallGets {
    let readers: Vec<_> = (0..SMALL)
        .map(|reader| {
            let addrs = addrs.to_vec();
            runtime.spawn(async move {
                let client = Client::builder().build(addrs).expect("there are addresses");
                let mut gets = SmallGets { latencies: Vec::new(), failed: 0 };
                let started = Instant::now();
                for number in reader.. {
                    if started.elapsed() >= during {
                        break;
                    }
                    let began = Instant::now();
                    match client.get(format!("chaos/small/{}", number % SMALL_KEYS)).await {
                        Ok(Some(found)) if found.value == "small" => gets.latencies.push(began.elapsed()),
                        _ => gets.failed += 1,
                    }
                    tokio::time::sleep(SMALL_GAP).await;
                }
                gets
            })
        })
        .collect();
    let mut all = SmallGets { latencies: Vec::new(), failed: 0 };
    for reader in readers {
        let gets = runtime.block_on(reader).expect("no panic");
        all.latencies.extend(gets.latencies);
        all.failed += gets.failed;
    }
    all
}

async fn write_large(
    addrs: Vec<String>,
    writer: usize,
    stop: Arc<AtomicBool>,
) -> (Vec<Duration>, Vec<String>) {
    let client = Client::builder().build(addrs).expect("there are addresses");
    let value = Bytes::from(vec![writer as u8; VALUE_BYTES]);
    let (mut latencies, mut failures) = (Vec::new(), Vec::new());
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let began = Instant::now();
        let key = format!("chaos/large/{writer}/{}", number % LARGE_KEYS);
        match client.put(key, value.clone()).await {
            Ok(_) => latencies.push(began.elapsed()),
            Err(error) => failures.push(error.to_string()),
        }
    }
    (latencies, failures)
}
