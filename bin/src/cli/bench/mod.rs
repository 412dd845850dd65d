//! `bench`: throughput and latency as clients see them.
//!
//! The generator shares the machine with what it measures, so it is cheap: one task per connection keeps
//! `--pipeline` requests in flight, requests are copies of a prepared frame with id and key written over, and of
//! a response only its id and its verdict are looked at.
//!
//! Without `--rate` the loop is closed: a request is sent when another one is answered, and a slow server is asked
//! less. With `--rate` requests are due at fixed times, and the latency of one that had to wait for room counts from
//! when it was due, so that a server that stalls does not hide it.

mod chooser;
mod partitions;
mod report;
mod template;
mod worker;

use super::args::Global;
use super::failure::Failure;
use chooser::{Chooser, Rng};
use partitions::Partitions;
use report::{Report, Tally};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use template::{Kind, Templates};
use tokio::task::JoinSet;
use tokio::time::Instant;
use trandb_client::Isolation;
use trandb_cluster::limits::{SCAN_PAGE_ENTRIES_MAX, VALUE_BYTES_MAX};
use worker::{Plan, Work, Worker};

/// Requests in flight on one connection at the most. The node may allow fewer; then that is what is used.
const PIPELINE_MAX: i64 = 4096;

/// Connections at the most: beyond this the system's limit on open files is the next wall.
const CONNECTIONS_MAX: i64 = 10_000;

#[derive(clap::Args, Clone)]
pub(crate) struct Args {
    /// What share of requests is of which kind.
    /// Transactions are single (two puts on one partition, in one request), cross (on two partitions), and rmw (begin,
    /// get, put, commit).
    #[arg(long, default_value = "get:50,put:50", value_name = "get:N,put:N,scan:N,single:N,cross:N,rmw:N")]
    mix: Mix,
    /// What transactions may see of each other: read_committed, snapshot, serializable.
    #[arg(long, default_value = "serializable", value_parser = super::txn::isolation)]
    isolation: Isolation,
    /// Connections, spread over the addresses in turn.
    #[arg(long, short, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    connections: u32,
    /// Requests in flight on each connection.
    #[arg(long, short, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=PIPELINE_MAX))]
    pipeline: u32,
    /// Size of each value.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=VALUE_BYTES_MAX as i64))]
    value_bytes: u32,
    /// Distinct keys.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=9_999_999_999))]
    keys: u64,
    /// How long to measure.
    #[arg(long, short, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// How long to run before measuring.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    warm_up_seconds: u64,
    /// Requests per second over all connections; without it as fast as answers come.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    rate: Option<u64>,
    /// Which keys are asked for.
    #[arg(long, value_enum, default_value = "uniform")]
    distribution: Distribution,
    /// Keys of one scan.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=SCAN_PAGE_ENTRIES_MAX as i64))]
    scan_limit: u32,
    /// Do not write all keys first. They are written when the mix reads.
    #[arg(long)]
    no_fill: bool,
    /// Threads of the generator.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// Makes the choice of keys repeatable.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Which keys are asked for.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Distribution {
    /// Each as often as any other.
    Uniform,
    /// A few very often: Zipf's law with exponent 0.99, as YCSB has it.
    Zipf,
}

/// Shares of the kinds, by [`Kind`] as index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mix([u32; Kind::ALL.len()]);

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut mix = [0; Kind::ALL.len()];
        for part in text.split(',') {
            let (name, share) = part.split_once(':').ok_or(format!("not KIND:SHARE: {part}"))?;
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
            let kind = kind.ok_or(format!("unknown kind: {name}"))?;
            mix[kind as usize] =
                share.parse::<u16>().map_err(|_| format!("not a share from 0 to 65535: {share}"))?.into();
        }
        match mix.iter().sum::<u32>() {
            0 => Err("all shares are zero".to_owned()),
            _ => Ok(Self(mix)),
        }
    }
}

impl Mix {
    fn share(self, kind: Kind) -> u32 {
        self.0[kind as usize]
    }

    /// The kind that a random number stands for.
    fn choose(self, random: u64) -> Kind {
        let mut rest = (random % u64::from(self.0.iter().sum::<u32>())) as u32;
        for kind in Kind::ALL {
            match rest.checked_sub(self.share(kind)) {
                Some(less) => rest = less,
                None => return kind,
            }
        }
        unreachable!("the remainder is below the sum of the shares")
    }
}

/// Runs the benchmark and prints what came of it.
pub(crate) fn run(global: &Global, args: Args) -> Result<ExitCode, Failure> {
    let runtime = match args.threads {
        1 => super::runtime()?,
        threads => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(usize::from(threads))
            .enable_all()
            .build()?,
    };
    let report = runtime.block_on(measure(global, &args))?;
    let mut out = std::io::stdout().lock();
    report.print(global.output, &mut out)?;
    out.flush()?;
    Ok(if report.succeeded() { ExitCode::SUCCESS } else { ExitCode::from(super::failure::UNAVAILABLE) })
}

async fn measure(global: &Global, args: &Args) -> Result<Report, Failure> {
    // Opens files for as many connections as were asked for, if the system lets it.
    let _ = rlimit::increase_nofile_limit(u64::from(args.connections) + 256);
    let addrs = trandb_client::Addresses::addresses(&global.addr);
    if addrs.is_empty() {
        return Err(Failure::new(super::failure::USAGE, "no address to connect to"));
    }
    let client = super::connect(global).await?;
    let partitions = Partitions::new(&client.topology().await?, global.keyspace.as_deref(), args.keys);
    let partitions = Arc::new(partitions);
    let templates =
        Templates::new(args.value_bytes, args.scan_limit, global.keyspace.clone(), args.isolation);
    let templates = Arc::new(templates);
    let mut workers = Vec::new();
    for i in 0..args.connections {
        let addr = addrs[i as usize % addrs.len()].clone();
        let worker = Worker::connect(addr, templates.clone(), args.pipeline as usize).await;
        workers.push(worker.map_err(|error| Failure::from(error.into_error()))?);
    }

    let reads = Kind::ALL.into_iter().any(|kind| kind.reads() && args.mix.share(kind) > 0);
    if reads && !args.no_fill {
        workers = fill(workers, args.keys).await?;
    }

    let chooser = Arc::new(Chooser::new(args.distribution, args.keys));
    let start = Instant::now();
    let measured = start + Duration::from_secs(args.warm_up_seconds);
    let end = measured + Duration::from_secs(args.seconds);
    let connections = workers.len() as u32;
    let plans = workers.into_iter().zip(0u32..).map(|(worker, i)| {
        let rng = Rng::new(args.seed.wrapping_mul(1_000_003).wrapping_add(u64::from(i)));
        let (chooser, partitions) = (chooser.clone(), partitions.clone());
        let work = Work::Mixed { mix: args.mix, chooser, partitions, rng };
        // Connections take turns at the rate, so that their requests do not come in step.
        let gap = args.rate.map(|rate| Duration::from_secs_f64(f64::from(connections) / rate as f64));
        let first_due = gap.map(|gap| start + gap * i / connections);
        (worker, Plan { work, measured, end, first_due, gap })
    });
    let progress = tokio::spawn(show_progress(measured, end));
    let tally = all(plans.collect()).await?.0;
    progress.abort();
    Ok(Report::new(args, &addrs, tally, Duration::from_secs(args.seconds)))
}

/// Writes every key once.
async fn fill(workers: Vec<Worker>, keys: u64) -> Result<Vec<Worker>, Failure> {
    let start = Instant::now();
    if std::io::stderr().is_terminal() {
        eprintln!("trandb: writing {keys} keys");
    }
    let step = workers.len() as u64;
    let plans = workers.into_iter().zip(0..).map(|(worker, first)| {
        let work = Work::Fill { keys: (first..keys).step_by(step as usize) };
        // As long as it takes; a node that stops answering ends it.
        let end = start + Duration::from_secs(86_400);
        (worker, Plan { work, measured: start, end, first_due: None, gap: None })
    });
    let (tally, workers) = all(plans.collect()).await?;
    match tally.errors().first_key_value() {
        None => Ok(workers),
        Some((error, count)) => Err(Failure::new(
            super::failure::UNAVAILABLE,
            format!("{count} of {keys} keys could not be written first: {error}"),
        )),
    }
}

/// Lets all workers carry out their plans, and adds up what they saw.
async fn all(plans: Vec<(Worker, Plan)>) -> Result<(Tally, Vec<Worker>), Failure> {
    let mut running = JoinSet::new();
    for (worker, plan) in plans {
        running.spawn(worker.run(plan));
    }
    let (mut sum, mut workers) = (Tally::default(), Vec::new());
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        tokio::select! {
            biased;
            done = running.join_next() => match done {
                None => return Ok((sum, workers)),
                Some(Ok((worker, tally))) => {
                    sum.add(&tally);
                    workers.push(worker);
                }
                Some(Err(error)) => return Err(Failure::new(1, format!("a worker ended early: {error}"))),
            },
            _ = &mut interrupted => return Err(Failure::new(130, "interrupted")),
        }
    }
}

/// A bar on a terminal, nothing elsewhere.
async fn show_progress(measured: Instant, end: Instant) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let bar = indicatif::ProgressBar::new((end - Instant::now()).as_secs().max(1));
    while Instant::now() < end {
        let warm = Instant::now() >= measured;
        bar.set_prefix(if warm { "measuring" } else { "warming up" });
        tokio::time::sleep(Duration::from_secs(1)).await;
        bar.inc(1);
    }
    bar.finish_and_clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_parsed_and_kept_to() {
        let mix: Mix = "get:3,scan:1".parse().expect("good");
        assert_eq!(mix, Mix([3, 0, 1, 0, 0, 0]));
        let mut counts = [0; Kind::ALL.len()];
        for random in 0..400 {
            counts[mix.choose(random) as usize] += 1;
        }
        assert_eq!(counts, [300, 0, 100, 0, 0, 0]);
        for text in ["", "get", "get:x", "take:1", "get:0", "get:-1", "get:70000"] {
            assert!(text.parse::<Mix>().is_err(), "{text}");
        }
    }
}
