//! A bank over all partitions, transferring through all nodes while nodes are killed: the total must hold in every
//! snapshot that is taken meanwhile and at the end, and no transfer may be lost or done twice.

use crate::figures::Figures;
use crate::harness::Cluster;
use crate::settings;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use trandb_client::{Batch, Client, Error, ErrorCode, ScanRequest, Txn, TxnOptions, Versioned};

const ACCOUNTS: u32 = 100;
const OPENING: u64 = 1000;
const TOTAL: u64 = ACCOUNTS as u64 * OPENING;

/// The most that one transfer moves.
const AMOUNT_MAX: u64 = 50;

/// Tasks that take snapshots.
const AUDITORS: usize = 2;

/// From a restarted node's readiness to the next kill.
const CALM_MS: std::ops::Range<u64> = 1500..4000;

/// How long a killed node stays away.
const AWAY_MS: std::ops::Range<u64> = 200..2500;

/// Nothing of a transaction may be left after this long.
const HELD_MAX: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Told {
    done: u64,
    /// How many of each kind, and the first one's message.
    failures: BTreeMap<&'static str, (u64, String)>,
    latencies: Vec<Duration>,
    /// Transfers that were seen to be lost, or done twice.
    wrong: Vec<String>,
}

fn account(number: u32) -> String {
    format!("bank/account/{number:03}")
}

fn number(found: Option<Versioned>) -> u64 {
    found.map_or(0, |found| String::from_utf8_lossy(&found.value).parse().expect("a number"))
}

/// Moves money, if there is enough, and notes in the client's ledger which transfer of it this was.
async fn transfer(txn: Txn, from: u32, to: u32, amount: u64, ledger: String, nth: u64) -> Result<(), Error> {
    let (paying, paid) = (account(from), account(to));
    let (has, gets) = (number(txn.get(&paying).await?), number(txn.get(&paid).await?));
    if let Some(rest) = has.checked_sub(amount) {
        txn.put(paying, rest.to_string()).await?;
        txn.put(paid, (gets + amount).to_string()).await?;
    }
    txn.put(ledger, nth.to_string()).await
}

/// Transfers until stopped. After each the client's ledger must say what it was told.
async fn customer(client: Client, name: usize, seed: u64, stop: Arc<AtomicBool>) -> Told {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut told, ledger) = (Told::default(), format!("bank/ledger/{name}"));
    // The last transfer that is surely done, and those after it of which that is not known.
    let (mut done, mut open) = (0, Vec::new());
    for nth in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let from = random.random_range(0..ACCOUNTS);
        let to = (from + random.random_range(1..ACCOUNTS)) % ACCOUNTS;
        let amount = random.random_range(1..=AMOUNT_MAX);
        let began = Instant::now();
        match client.transact(|txn| transfer(txn, from, to, amount, ledger.clone(), nth)).await {
            Ok(()) => {
                told.done += 1;
                told.latencies.push(began.elapsed());
                done = nth;
                open.clear();
            }
            Err(error) => {
                let message = || (0, error.message.clone());
                told.failures.entry(error.code.row().name).or_insert_with(message).0 += 1;
                if error.code == ErrorCode::Unknown {
                    open.push(nth);
                }
            }
        }
        if nth % 10 == 0
            && let Ok(found) = client.get(&ledger).await
        {
            let found = number(found);
            if found != done && !open.contains(&found) {
                told.wrong.push(format!("{ledger} says {found}, its client {done} or one of {open:?}"));
            }
        }
    }
    told
}

/// The sum over all accounts in one snapshot.
async fn audit(client: &Client) -> Result<(usize, u64), Error> {
    let txn = client.begin_with(TxnOptions { read_only: true, ..TxnOptions::default() }).await?;
    let accounts = ScanRequest { prefix: "bank/account/".into(), limit: 30, ..ScanRequest::default() };
    let (entries, _) = txn.pages(accounts).collect(1000).await?;
    let value = |value| number(Some(Versioned { value, version: trandb_client::Timestamp::ZERO }));
    let sum = entries.iter().map(|entry| value(entry.value.clone())).sum();
    txn.commit().await?;
    Ok((entries.len(), sum))
}

/// Takes snapshots until stopped: how many, and which were wrong.
async fn auditor(client: Client, stop: Arc<AtomicBool>) -> (u64, Vec<String>) {
    let (mut taken, mut wrong) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        match audit(&client).await {
            Ok((ACCOUNTS_COUNT, TOTAL)) => taken += 1,
            Ok((accounts, sum)) => wrong.push(format!("{accounts} accounts hold {sum}")),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    (taken, wrong)
}

/// How many undecided transactions hold keys on any node when that has passed, or before if none does.
fn held_after(cluster: &Cluster, within: Duration) -> u64 {
    let until = Instant::now() + within;
    loop {
        let held: u64 = cluster.nodes.iter().map(|node| node.metric("trandb_txn_held", &[]) as u64).sum();
        if held == 0 || Instant::now() >= until {
            return held;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

const ACCOUNTS_COUNT: usize = ACCOUNTS as usize;

fn client(runtime: &Runtime, addrs: &[String], first: usize) -> Client {
    let mut addrs = addrs.to_vec();
    let first = first % addrs.len();
    addrs.rotate_left(first);
    let _within = runtime.enter();
    let builder = Client::builder().connections_per_node(1).leader_hints(first.is_multiple_of(2));
    builder.timeout(Duration::from_secs(30)).build(addrs).expect("there are addresses")
}

#[test]
#[ignore = "takes minutes: just chaos bank"]
fn bank() {
    let seed = settings::seed();
    let mut random = StdRng::seed_from_u64(seed);
    let seconds: u64 = settings::number("TRANDB_CHAOS_BANK_SECONDS", 300);
    let customers: usize = settings::number("TRANDB_CHAOS_CUSTOMERS", 32);
    let runtime = Runtime::new().expect("a runtime");
    let mut cluster = Cluster::start(3, &[]);
    let addrs: Vec<String> = cluster.nodes.iter().map(|node| node.ports.native.clone()).collect();

    let opening = (0..ACCOUNTS).fold(Batch::new(), |batch, at| batch.put(account(at), OPENING.to_string()));
    runtime.block_on(client(&runtime, &addrs, 0).batch(opening)).expect("accounts are opened");
    let stop = Arc::new(AtomicBool::new(false));
    let started = Instant::now();
    let working: Vec<_> = (0..customers)
        .map(|name| {
            let seed = seed.wrapping_add(name as u64 + 1);
            runtime.spawn(customer(client(&runtime, &addrs, name), name, seed, stop.clone()))
        })
        .collect();
    let auditing: Vec<_> =
        (0..AUDITORS).map(|at| runtime.spawn(auditor(client(&runtime, &addrs, at), stop.clone()))).collect();
    let mut kills = 0;
    while started.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_millis(random.random_range(CALM_MS)));
        let victim = random.random_range(0..cluster.nodes.len());
        cluster.nodes[victim].kill9();
        std::thread::sleep(Duration::from_millis(random.random_range(AWAY_MS)));
        cluster.nodes[victim].restart();
        kills += 1;
    }
    stop.store(true, Ordering::Relaxed);
    let told: Vec<Told> =
        working.into_iter().map(|task| runtime.block_on(task).expect("a customer does not panic")).collect();
    let took = started.elapsed();
    let audits: Vec<_> =
        auditing.into_iter().map(|task| runtime.block_on(task).expect("an auditor does not panic")).collect();
    let auditor = client(&runtime, &addrs, 0);
    let (accounts, sum) = runtime.block_on(audit(&auditor)).expect("the last one");
    let held = held_after(&cluster, HELD_MAX);
    cluster.wait_identical(cluster.nodes.len());

    let mut figures = Figures::new("bank: transfers through all nodes while they are killed");
    figures.note("kills", kills);
    let done: u64 = told.iter().map(|told| told.done).sum();
    figures.note("transfers", done);
    figures.note("transfers per second", format_args!("{:.0}", done as f64 / took.as_secs_f64()));
    let latencies: Vec<Duration> = told.iter().flat_map(|told| &told.latencies).copied().collect();
    figures.spread("transfer", &latencies, None);
    let mut failures: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, (count, example)) in told.iter().flat_map(|told| &told.failures) {
        println!("{name}, for example: {example}");
        *failures.entry(name).or_default() += count;
    }
    for (name, count) in failures {
        figures.note(format!("transfers, {name}"), count);
    }
    let wrong: Vec<&String> =
        audits.iter().flat_map(|(_, wrong)| wrong).chain(told.iter().flat_map(|told| &told.wrong)).collect();
    for example in wrong.iter().take(3) {
        println!("wrong: {example}");
    }
    figures.note("snapshots", audits.iter().map(|(taken, _)| taken).sum::<u64>());
    figures.must("wrong snapshots, lost or repeated transfers", wrong.len(), 0);
    figures.must("transactions that still hold keys after five seconds", held, 0);
    figures.must("accounts at the end", accounts, ACCOUNTS_COUNT);
    figures.must("total at the end", sum, TOTAL);
    figures.finish();
}
