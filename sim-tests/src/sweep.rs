//! Many seeds, each in a process of its own, and the shortest plan of one that fails.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use crate::coverage::FAULT;
use crate::plan::Plan;
use crate::weather::Climate;

/// Between two looks at the processes that run.
const LOOK: Duration = Duration::from_millis(10);

/// What a run prints before the number of times that it took a rare path.
pub const COVERED: &str = "covered    ";

/// What to run, but for the seed.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// The scenario.
    pub scenario: String,
    /// Processes at a time.
    pub jobs: usize,
    /// Start no other seed after one that failed.
    pub fail_fast: bool,
    /// Further arguments for each.
    pub arguments: Vec<String>,
}

/// One seed's end.
struct Ended {
    seed: u64,
    ok: bool,
    output: String,
}

impl Sweep {
    /// Runs all these seeds, shows what failed and what was covered. Success when none failed.
    pub fn run(&self, seeds: Range<u64>) -> ExitCode {
        let began = uptime();
        let total = seeds.end - seeds.start;
        let (mut done, mut failed) = (0u64, Vec::new());
        let (mut covered, mut simulated) = (BTreeMap::<String, (u64, u64)>::new(), 0f64);
        let started = self.each(seeds, |ended| {
            done += 1;
            simulated += seconds(&ended.output);
            for (path, count) in paths(&ended.output) {
                let (times, runs) = covered.entry(path).or_default();
                *times += count;
                *runs += u64::from(count > 0);
            }
            if !ended.ok {
                println!("\nseed {} failed:\n{}", ended.seed, ended.output);
                failed.push(ended.seed);
            }
            if std::io::stderr().is_terminal() {
                eprint!("\r{done} of {total} seeds, {} failed ", failed.len());
                let _ = std::io::stderr().flush();
            }
            failed.is_empty() || !self.fail_fast
        });
        if let Err(code) = started {
            return code;
        }
        let wall = (uptime() - began).max(f64::EPSILON);
        println!(
            "\n{done} seeds, {} failed, {simulated:.0} simulated seconds in {wall:.0} s: {:.1} times as fast",
            failed.len(),
            simulated / wall
        );
        let faults: u64 =
            covered.iter().filter(|(path, _)| path.starts_with(FAULT)).map(|(_, (times, _))| times).sum();
        println!(
            "{faults} faults: {:.0} a second, {:.0} in a simulated one",
            faults as f64 / wall,
            faults as f64 / simulated
        );
        for (path, (times, runs)) in &covered {
            let rate = *times as f64 / wall;
            println!("{COVERED}{path}: {times} times, {rate:.1} a second, in {runs} runs");
        }
        for seed in &failed {
            let more = self.arguments.join(" ");
            println!("again with: trandb-sim --scenario {} --seed {seed} {more}", self.scenario);
        }
        ExitCode::from(u8::from(!failed.is_empty()))
    }

    /// Plants this fault and runs all these seeds; answers those that found it, in order.
    ///
    /// # Errors
    /// The exit code when a run cannot be started.
    pub fn hunt(&self, planted: &str, seeds: Range<u64>) -> Result<Vec<u64>, ExitCode> {
        let mut sweep = self.clone();
        sweep.arguments.push(format!("--plant={planted}"));
        let mut found = Vec::new();
        sweep.each(seeds, |ended| {
            found.extend((!ended.ok).then_some(ended.seed));
            true
        })?;
        found.sort_unstable();
        Ok(found)
    }

    /// Runs all these seeds and hands on how each ended, which says whether to start more.
    #[allow(clippy::disallowed_methods, reason = "waits for processes, outside of any simulation")]
    fn each(&self, seeds: Range<u64>, mut ended: impl FnMut(Ended) -> bool) -> Result<(), ExitCode> {
        let (mut next, mut end) = (seeds.start, seeds.end);
        let mut running: Vec<(u64, Child, std::fs::File)> = Vec::new();
        while next < end || !running.is_empty() {
            while running.len() < self.jobs.max(1) && next < end {
                match self.start(next, &[]) {
                    Ok((child, output)) => running.push((next, child, output)),
                    Err(error) => {
                        eprintln!("error: cannot start a run: {error}");
                        return Err(ExitCode::from(2));
                    }
                }
                next += 1;
            }
            match take_ended(&mut running) {
                Some(one) => end = if ended(one) { end } else { next },
                None => std::thread::sleep(LOOK),
            }
        }
        Ok(())
    }

    /// Leaves out of a failing seed's plan what it fails without.
    ///
    /// One fault or workload after the other is left out for good if the rest still fails. Leaving one out changes
    /// all that comes after it, so what remains may fail in another way; but it fails.
    pub fn minimise(&self, seed: u64, plan: &Plan) -> ExitCode {
        let mut without = Vec::new();
        let Some(mut last) = self.fails(seed, &without) else {
            println!("seed {seed} does not fail");
            return ExitCode::SUCCESS;
        };
        for part in parts(plan) {
            without.push(part);
            match self.fails(seed, &without) {
                Some(output) => last = output,
                None => drop(without.pop()),
            }
        }
        print!("{last}");
        println!("shortest   trandb-sim --scenario {} --seed {seed} {}", self.scenario, without.join(" "));
        ExitCode::FAILURE
    }

    /// What a run printed, if it failed.
    #[allow(clippy::disallowed_methods, reason = "waits for a process, outside of any simulation")]
    fn fails(&self, seed: u64, without: &[String]) -> Option<String> {
        let (child, output) = self.start(seed, without).ok()?;
        let mut running = vec![(seed, child, output)];
        loop {
            match take_ended(&mut running) {
                Some(ended) => return (!ended.ok).then_some(ended.output),
                None => std::thread::sleep(LOOK),
            }
        }
    }

    /// Starts a run that leaves out these parts of its plan.
    fn start(&self, seed: u64, without: &[String]) -> std::io::Result<(Child, std::fs::File)> {
        // A file takes any amount of output; a pipe would have to be read meanwhile.
        let path = std::env::temp_dir().join(format!("trandb-sim-{}-{seed}", std::process::id()));
        let output = std::fs::File::create_new(&path)?;
        let reader = std::fs::File::open(&path)?;
        std::fs::remove_file(&path)?;
        let child = Command::new(std::env::current_exe()?)
            .args(["--scenario", &self.scenario, "--seed", &seed.to_string()])
            .args(without)
            .args(&self.arguments)
            .stdout(Stdio::from(output.try_clone()?))
            .stderr(Stdio::from(output))
            .spawn()?;
        Ok((child, reader))
    }
}

/// What can be left out of a plan, as the arguments that do it.
fn parts(plan: &Plan) -> Vec<String> {
    let faults = (0..plan.faults.len()).rev().map(|place| format!("--without-fault={place}"));
    let joins = (!plan.joins.is_empty()).then(|| "--without-joins".to_owned());
    let loss = plan.loss.is_some().then(|| "--without-disk-loss".to_owned());
    let weather = (plan.climate != Climate::default()).then(|| "--without-weather".to_owned());
    let workloads = plan.kinds().map(|kind| format!("--without-workload={}", kind.name));
    faults.chain(joins).chain(loss).chain(weather).chain(workloads).collect()
}

/// A run that has ended, and is not among those that run any more.
fn take_ended(running: &mut Vec<(u64, Child, std::fs::File)>) -> Option<Ended> {
    for place in 0..running.len() {
        if let Ok(Some(status)) = running[place].1.try_wait() {
            let (seed, _, mut output) = running.swap_remove(place);
            let mut text = Vec::new();
            let _ = std::io::Read::read_to_end(&mut output, &mut text);
            let output = String::from_utf8_lossy(&text).into_owned();
            return Some(Ended { seed, ok: status.success(), output });
        }
    }
    None
}

/// The rare paths that a run says it took.
fn paths(output: &str) -> impl Iterator<Item = (String, u64)> {
    let lines = output.lines().filter_map(|line| line.strip_prefix(COVERED));
    lines.filter_map(|line| {
        let (path, count) = line.rsplit_once(' ')?;
        Some((path.to_owned(), count.parse().ok()?))
    })
}

/// Real seconds since the machine was booted. The clocks of this process are those of a simulation that never
/// begins: they are replaced when the program is linked.
fn uptime() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or_default()
}

/// The simulated time that a run says it took.
fn seconds(output: &str) -> f64 {
    let line = output.lines().find_map(|line| line.strip_prefix("elapsed    "));
    line.and_then(|line| line.split(' ').next()?.parse().ok()).unwrap_or_default()
}
