//! Runs simulations and says what came of them.

use clap::Parser;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use trandb_runtime::planted::{PLANTED, plant_named};
use trandb_sim::coverage::Coverage;
use trandb_sim::entries::Entries;
use trandb_sim::fault::FAULTS;
use trandb_sim::listen::Listeners;
use trandb_sim::observe::Observer;
use trandb_sim::park;
use trandb_sim::plan::{NODES_MAX, Plan};
use trandb_sim::run::{Witnesses, run};
use trandb_sim::scenario::{SCENARIOS, Scenario, find};
use trandb_sim::sweep::{COVERED, Sweep};
use trandb_sim::trace::Trace;
use trandb_sim::watchdog;
use trandb_sim::weather::Climate;
use trandb_sim::workload::WORKLOADS;

/// Faster than the system's, for many small things that live shortly. The server's (jemalloc) does not run under a simulated
/// clock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Simulates a whole cluster, its network, clocks and disks, as a seed decides. The same seed does the same.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Decides everything.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run all these seeds instead, each in a process of its own: FROM..TO, without TO itself.
    #[arg(long, value_name = "FROM..TO", value_parser = seeds, conflicts_with = "minimise")]
    seeds: Option<Range<u64>>,
    /// Processes at a time for `--seeds`.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Start no other seed after one that failed.
    #[arg(long, requires = "seeds", conflicts_with = "hunt")]
    fail_fast: bool,
    /// Look for what of its plan the failing seed fails without.
    #[arg(long)]
    minimise: bool,
    /// What happens.
    #[arg(long, default_value = SCENARIOS[0].name)]
    scenario: String,
    /// Leave this fault of the plan out, by its number.
    #[arg(long, value_name = "NUMBER")]
    without_fault: Vec<usize>,
    /// Have every fault of the plan be this one.
    #[arg(long, value_name = "NAME")]
    only_fault: Option<String>,
    /// Leave this workload of the plan out.
    #[arg(long, value_name = "NAME")]
    without_workload: Vec<String>,
    /// Have all nodes of the plan be there from the beginning.
    #[arg(long)]
    without_joins: bool,
    /// Have no machine of the plan lose its disk.
    #[arg(long)]
    without_disk_loss: bool,
    /// Have nothing go wrong but the faults of the plan.
    #[arg(long)]
    without_weather: bool,
    /// Plant a fault in the nodes, to see it found; debug builds only. `--list` names them.
    #[arg(long, value_name = "NAME")]
    plant: Option<String>,
    /// Plant one fault after the other and say how many of `--seeds` find each; debug builds only.
    #[arg(long, requires = "seeds", conflicts_with = "plant")]
    hunt: bool,
    /// List the scenarios, faults and workloads.
    #[arg(long)]
    list: bool,
    /// Write every event to this file; two files of a seed that differ show where.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Show what nodes log, from this level on: error, warn, info, debug.
    #[arg(long, value_name = "LEVEL")]
    log: Option<tracing::Level>,
}

/// Exit code of a run that found a violation.
const VIOLATED: u8 = 1;
/// Exit code of a wrong command line or environment.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        list();
        return ExitCode::SUCCESS;
    }
    let Some(scenario) = find(&arguments.scenario) else {
        eprintln!("error: no such scenario: {}", arguments.scenario);
        return ExitCode::from(USAGE);
    };
    if let Some(name) = &arguments.plant
        && !plant_named(name)
    {
        eprintln!("error: nothing of that name can be planted in this build: {name}");
        return ExitCode::from(USAGE);
    }
    let mut plan = (scenario.plan)(arguments.seed);
    if let Some(name) = &arguments.only_fault {
        let Some(fault) = FAULTS.iter().find(|fault| fault.name == name) else {
            eprintln!("error: no such fault: {name}");
            return ExitCode::from(USAGE);
        };
        plan.only_fault(*fault);
    }
    plan.without_faults(&arguments.without_fault.iter().copied().collect());
    plan.without_workloads(&arguments.without_workload.iter().cloned().collect());
    if arguments.without_joins {
        plan.joins.clear();
    }
    if arguments.without_disk_loss {
        plan.loss = None;
    }
    if arguments.without_weather {
        plan.climate = Climate::default();
    }
    let planted = arguments.plant.iter().map(|name| format!("--plant={name}"));
    let only = arguments.only_fault.iter().map(|name| format!("--only-fault={name}"));
    let sweep = Sweep {
        scenario: scenario.name.to_owned(),
        jobs: arguments.jobs,
        fail_fast: arguments.fail_fast,
        arguments: planted.chain(only).collect(),
    };
    match &arguments.seeds {
        Some(seeds) if arguments.hunt => trandb_sim::hunt::run(&sweep, seeds),
        Some(seeds) => sweep.run(seeds.clone()),
        None if arguments.minimise => sweep.minimise(arguments.seed, &plan),
        None => one(&arguments, scenario, &plan),
    }
}

fn one(arguments: &Arguments, scenario: Scenario, plan: &Plan) -> ExitCode {
    // The allocator asks for huge pages, and the kernel clears them whole, which takes what the allocator saves. A kernel
    // that cannot do without is slower.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let Some(park) = park::address() else {
        eprintln!("error: no {NODES_MAX} free ports in a row on the loopback");
        return ExitCode::from(USAGE);
    };
    let witnesses = Witnesses {
        observer: Observer::default(),
        entries: Entries::default(),
        coverage: Coverage::install(),
    };
    let (observer, entries) = (witnesses.observer.clone(), witnesses.entries.clone());
    let trace = match Trace::new(arguments.trace.as_deref()) {
        Ok(trace) => trace,
        Err(error) => {
            eprintln!("error: cannot write the trace: {error}");
            return ExitCode::from(USAGE);
        }
    };
    let listeners = Listeners { trace: trace.clone(), observer, entries, shown: arguments.log };
    listeners.start().expect("a simulation is the only thing in its process");
    println!("seed       {}", plan.seed);
    println!("scenario   {}", scenario.name);
    println!("{plan}");
    watchdog::watch(witnesses.observer.clone());
    let outcome = run(scenario, plan, park, &trace, &witnesses);
    if let Err(error) = trace.flush() {
        eprintln!("warning: the trace is incomplete: {error}");
    }
    let counts = outcome.counts;
    println!(
        "operations {} reads, {} writes, {} of unknown outcome, {} refused",
        counts.read, counts.wrote, counts.unknown, counts.refused
    );
    println!("elapsed    {:.3} simulated seconds", outcome.elapsed.as_secs_f64());
    for (path, times) in witnesses.coverage.paths(&witnesses.observer, &trace) {
        println!("{COVERED}{path} {times}");
    }
    println!("trace      {:032x} of {} events", outcome.trace, outcome.events);
    for violation in &outcome.violations {
        println!("violation  {violation}");
    }
    if outcome.violations.is_empty() {
        println!("verdict    ok");
        return ExitCode::SUCCESS;
    }
    let again: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--trace")).collect();
    println!("verdict    violated; again with: trandb-sim {}", again.join(" "));
    ExitCode::from(VIOLATED)
}

fn list() {
    for scenario in SCENARIOS {
        println!("scenario {:14} {}", scenario.name, scenario.about);
    }
    for kind in WORKLOADS {
        println!("workload {:14} {}", kind.name, kind.about);
    }
    for (name, _) in PLANTED {
        println!("planted  {name}");
    }
    for fault in FAULTS {
        println!("fault    {:14} {}", fault.name, fault.about);
    }
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("not FROM..TO")?;
    let number = |text: &str| text.parse().map_err(|_| format!("not a number: {text}"));
    let range = number(from)?..number(to)?;
    if range.is_empty() { Err("the end is not after the beginning".into()) } else { Ok(range) }
}
