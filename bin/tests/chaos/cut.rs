//! One node is cut off from the other two, in network namespaces. It must say so; the pair goes on.

use crate::figures::Figures;
use crate::harness::{Cluster, HttpAnswer, Ports, request};
use crate::load::Writers;
use crate::probe::{self, Probe};
use crate::settings;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use trandb::network::{Addresses, Network};
use trandb_client::PartitionId;

/// Within this the node that is alone refuses all writes and linearizable reads.
const REFUSES: Duration = Duration::from_secs(2);

/// Within this every partition takes writes through the pair.
const GOES_ON: Duration = Duration::from_secs(1);

/// How long it stays cut off after all refusals were seen.
const ALONE: Duration = Duration::from_secs(5);

/// When a node that does not refuse is given up on.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two requests for the same partition.
const GAP: Duration = Duration::from_millis(20);

/// Clients that write through the pair.
const CLIENTS: usize = 16;

fn ports(Addresses { native, peer, http }: Addresses) -> Ports {
    Ports { native, peer, http }
}

#[test]
#[ignore = "takes a minute and root: just chaos"]
fn cut_off() {
    let network = match Network::new(3) {
        Ok(network) => network,
        Err(why) => return println!("skipped: no network namespaces here: {why}"),
    };
    let mut random = StdRng::seed_from_u64(settings::seed());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let hosts = (0..3).map(|node| (ports(network.addresses(node)), network.wrapper(node))).collect();
    let cluster = Cluster::start_on(hosts, &["--insecure", "--peer-secret", "chaos"]);
    let addrs: Vec<String> = cluster.nodes.iter().map(|node| node.ports.native.clone()).collect();
    let keys = probe::keys(&cluster.client().topology().expect("a map"), "cut");
    let alone = random.random_range(0..cluster.nodes.len());
    let others: Vec<String> = (1..3).map(|step| addrs[(alone + step) % 3].clone()).collect();

    let writers = Writers::start(&runtime, &others, CLIENTS.min(settings::clients()));
    std::thread::sleep(Duration::from_secs(3));
    let probe = runtime.block_on(Probe::open(&others[0], &keys));
    network.cut(alone).expect("the link is ours");
    let cut = Instant::now();
    let pair = runtime.spawn(probe.recover(tokio::time::Instant::from_std(cut)));
    let http = &cluster.nodes[alone].ports.http;
    let first = refusals(http, &keys, cut);
    let goes_on: Vec<Duration> = runtime.block_on(pair).expect("no panic").into_values().collect();
    std::thread::sleep(ALONE);
    let asked = Instant::now();
    let later = refusals(http, &keys, asked);
    let before_healing = writers.acknowledged();
    network.heal(alone).expect("the link is ours");
    let healed = Instant::now();
    cluster.wait_identical(3);
    let identical = healed.elapsed();
    let record = writers.stop(&runtime);
    let (_, lost) = record.read_back(&runtime, &addrs);
    cluster.wait_identical(3);

    let mut figures = Figures::new("one node cut off from two");
    for (what, first, later) in
        [("writes", &first.writes, &later.writes), ("reads", &first.reads, &later.reads)]
    {
        figures.within(
            format!("alone: all {what} refused with 503 and Retry-After after"),
            first.took,
            REFUSES,
        );
        figures.must(format!("alone: {what} done after the first refusal"), later.done, 0);
        figures.note(format!("alone: {what} answered otherwise before"), format_args!("{:?}", first.others));
    }
    figures.spread("pair: until a partition takes writes", &goes_on, Some(GOES_ON));
    figures.note("pair: writes acknowledged before healing", before_healing);
    figures.note("healed: identical after", format_args!("{identical:.1?}"));
    record.note(&mut figures);
    figures.must("acknowledged writes lost", lost.len(), 0);
    figures.finish();
}

/// What became of one kind of request to the node that is alone, over all partitions.
#[derive(Default)]
struct Refusals {
    /// Until the last partition refused properly.
    took: Duration,
    /// Requests that were answered with success.
    done: usize,
    /// Other answers, by status.
    others: BTreeMap<u16, usize>,
}

struct Both {
    writes: Refusals,
    reads: Refusals,
}

/// Asks for every partition until it is refused as it should be.
fn refusals(http: &str, keys: &BTreeMap<PartitionId, String>, since: Instant) -> Both {
    std::thread::scope(|scope| {
        let ask = |method: &'static str| -> Vec<_> {
            keys.values().map(|key| scope.spawn(move || until_refused(http, method, key, since))).collect()
        };
        let (writes, reads) = (ask("PUT"), ask("GET"));
        let sum = |tasks: Vec<std::thread::ScopedJoinHandle<'_, Refusals>>| {
            let mut sum = Refusals::default();
            for refusals in tasks.into_iter().map(|task| task.join().expect("no panic")) {
                sum.took = sum.took.max(refusals.took);
                sum.done += refusals.done;
                for (status, times) in refusals.others {
                    *sum.others.entry(status).or_default() += times;
                }
            }
            sum
        };
        Both { writes: sum(writes), reads: sum(reads) }
    })
}

fn until_refused(http: &str, method: &str, key: &str, since: Instant) -> Refusals {
    let mut refusals = Refusals::default();
    let path = format!("/keys/{}", key.replace('/', "%2F"));
    while since.elapsed() < PATIENCE {
        let answer = request(http, method, &path, &[], b"alone").expect("it answers clients");
        refusals.took = since.elapsed();
        match answer.status {
            503 if may_retry(&answer) => return refusals,
            200..=299 | 404 => refusals.done += 1,
            status => *refusals.others.entry(status).or_default() += 1,
        }
        std::thread::sleep(GAP);
    }
    panic!("{method} {key} is not refused: {:?} and {} done", refusals.others, refusals.done);
}

/// Whether the refusal says when to come again.
fn may_retry(answer: &HttpAnswer) -> bool {
    answer.header("retry-after").parse::<u32>().is_ok()
}
