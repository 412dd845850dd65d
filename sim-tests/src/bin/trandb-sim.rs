//! Runs one simulation and says what came of it.

use clap::Parser;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use trandb_sim::cluster::NODES;
use trandb_sim::plan::Plan;
use trandb_sim::run::run;
use trandb_sim::scenario::{SCENARIOS, find};
use trandb_sim::trace::Trace;

/// Simulates a whole cluster, its network, clocks and disks, as a seed decides. The same seed does the same.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Decides everything.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What happens.
    #[arg(long, default_value = SCENARIOS[0].name)]
    scenario: String,
    /// List the scenarios.
    #[arg(long)]
    list: bool,
    /// Write every event to this file; two files of a seed that differ show where.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Show what nodes log, from this level on: error, warn, info, debug.
    #[arg(long, value_name = "LEVEL")]
    log: Option<tracing::Level>,
    /// First of the adjacent loopback ports that the nodes occupy. Zero looks for free ones; the ports are part of
    /// the trace, so runs that are to be compared name the same.
    #[arg(long, default_value_t = 0)]
    park_port: u16,
}

/// Where the search for free ports begins: below the ports that the system hands out itself.
const PARK_PORTS_FROM: u16 = 21_000;

/// Exit code of a run that found a violation.
const VIOLATED: u8 = 1;
/// Exit code of a wrong command line or environment.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for scenario in SCENARIOS {
            println!("{:12} {}", scenario.name, scenario.about);
        }
        return ExitCode::SUCCESS;
    }
    let Some(scenario) = find(&arguments.scenario) else {
        eprintln!("error: no such scenario: {}", arguments.scenario);
        return ExitCode::from(USAGE);
    };
    let park_port = match (arguments.park_port, free_ports()) {
        (0, Some(port)) => port,
        (0, None) => {
            eprintln!("error: no {NODES} adjacent free ports on {}", Ipv4Addr::LOCALHOST);
            return ExitCode::from(USAGE);
        }
        (port, _) => port,
    };
    let trace = match Trace::start(arguments.trace.as_deref(), arguments.log) {
        Ok(trace) => trace,
        Err(error) => {
            eprintln!("error: cannot write the trace: {error}");
            return ExitCode::from(USAGE);
        }
    };
    let plan = Plan::draw(arguments.seed);
    println!("seed       {}", plan.seed);
    println!("scenario   {}", scenario.name);
    println!("plan       {plan}");
    let outcome = run(scenario, &plan, park_port, &trace);
    if let Err(error) = trace.flush() {
        eprintln!("warning: the trace is incomplete: {error}");
    }
    let counts = outcome.counts;
    println!(
        "operations {} reads, {} writes, {} of unknown outcome, {} refused",
        counts.read, counts.wrote, counts.unknown, counts.refused
    );
    println!("elapsed    {:?} simulated", outcome.elapsed);
    println!("trace      {:032x} of {} events", outcome.trace, outcome.events);
    for violation in &outcome.violations {
        println!("violation  {violation}");
    }
    if outcome.violations.is_empty() {
        println!("verdict    ok");
        return ExitCode::SUCCESS;
    }
    println!("verdict    violated; again with: trandb-sim --scenario {} --seed {}", scenario.name, plan.seed);
    ExitCode::from(VIOLATED)
}

/// The first of as many adjacent free ports as there are nodes.
fn free_ports() -> Option<u16> {
    let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    (PARK_PORTS_FROM..PARK_PORTS_FROM + 1_000)
        .step_by(NODES)
        .find(|first| (*first..*first + NODES as u16).all(free))
}
