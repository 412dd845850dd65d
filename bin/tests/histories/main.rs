//! `trandb soak` drives real nodes under faults; what its clients were told is judged by our judges and by the crate
//! `adya`, which is not ours. Both must find the faults that are planted in nodes of debug builds.

// Whole processes on a real machine: the doors of the simulation are not theirs.
#![allow(clippy::disallowed_methods)]

use adya::{Opts, Report, Valid, Workload, check};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// The histories of a soak, with what they are held to in the words of `adya`.
const HISTORIES: [(&str, Workload, &str); 3] = [
    ("lists-serializable", Workload::ListAppend, "strict-serializable"),
    ("lists-snapshot", Workload::ListAppend, "strong-snapshot-isolation"),
    ("bank", Workload::RwRegister, "strict-serializable"),
];

/// What is planted, one after the other, and for how many seconds each soak goes on. A window of timestamps is used again
/// only where the oracle moves, which has to be killed for that.
#[cfg(debug_assertions)]
const PLANTED: [(&str, u64); 5] = [
    ("skip-validation", 12),
    ("pass-intent", 12),
    ("reuse-window", 30),
    ("resolve-wrong-timestamp", 12),
    ("read-ahead-of-log", 12),
];

/// Ports that are tried, below those that the system gives out by itself.
const BASES: std::ops::Range<u16> = 20_000..32_000;

/// Three nodes take so many ports from their base on.
const SPAN: u16 = 23;

/// A base whose ports are free now, looked for from a place that differs between tests that run at once.
fn port_base() -> u16 {
    let count = (BASES.end - BASES.start) / SPAN;
    let first = std::process::id() as u16 % count;
    let bases = (0..count).map(|at| BASES.start + (first + at) % count * SPAN);
    let free = |base: &u16| (*base..base + SPAN).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    bases.into_iter().find(free).expect("some ports are free")
}

/// The soak of the suite.
const SHORT_SECONDS: u64 = 6;

/// What a soak said, and left.
struct Soaked {
    folder: tempfile::TempDir,
    code: i32,
    said: String,
}

fn soak(seconds: u64, planted: Option<&str>) -> Soaked {
    // Two clusters at once would take each other's ports, and time.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().expect("a folder");
    let program = match std::env::var_os("TRANDB_BIN_DIR") {
        Some(programs) if planted.is_none() => PathBuf::from(programs).join("trandb"),
        _ => env!("CARGO_BIN_EXE_trandb").into(),
    };
    let mut command = Command::new(program);
    // The planted faults want kills. A second network beside a machine's own is for runs that are asked for.
    let network = if planted.is_none() && seconds > SHORT_SECONDS { "auto" } else { "never" };
    command
        .args(["soak", "--network", network, "--time", &format!("{seconds}s")])
        .args(["--port-base", &port_base().to_string(), "--data-dir"])
        .arg(folder.path())
        .env_remove("TRANDB_PLANT")
        .envs(planted.map(|fault| ("TRANDB_PLANT", fault)))
        .stdin(Stdio::null());
    let output = command.output().expect("the program runs");
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    Soaked { folder, code: output.status.code().expect("it ends by itself"), said }
}

/// The second opinion on a history.
fn judged(folder: &Path, name: &str, workload: Workload, model: &str) -> Report {
    let text = std::fs::read_to_string(folder.join(format!("{name}.jsonl"))).expect("a history");
    let history = adya::History::from_json(&text).expect("the format of that family");
    check(&history, workload, &Opts { models: vec![model.to_owned()], wfr_keys: true, ..Opts::default() })
}

/// Soaks, and asserts that both judges find nothing.
fn sound(seconds: u64) {
    let soaked = soak(seconds, None);
    assert_eq!(soaked.code, 0, "{}", soaked.said);
    for (name, workload, model) in HISTORIES {
        let report = judged(soaked.folder.path(), name, workload, model);
        assert_eq!(report.valid, Valid::True, "{name}: {:?}", report.anomalies);
    }
    println!("{}", soaked.said);
}

/// Soaks until both judges have found a planted fault: how often that took. The fault may need a failover in the right
/// moment, so a soak may miss it; but what one judge finds the other finds in the same soak.
#[cfg(debug_assertions)]
fn found_after(fault: &str, seconds: u64, tries: usize) -> usize {
    for nth in 1..=tries {
        let soaked = soak(seconds, Some(fault));
        let broken = |(name, workload, model): (&str, Workload, &str)| {
            judged(soaked.folder.path(), name, workload, model).valid == Valid::False
        };
        let theirs = HISTORIES.into_iter().any(broken);
        let ours = soaked.code == 1;
        assert!(ours || !theirs, "{fault} was found by the other judge alone: {}", soaked.said);
        if ours && theirs {
            return nth;
        }
    }
    panic!("{fault} was not found by both judges in {tries} soaks of {seconds} s");
}

#[test]
fn real_nodes_keep_their_promises() {
    sound(SHORT_SECONDS);
}

#[test]
#[cfg(debug_assertions)]
fn a_planted_fault_is_found_by_both_judges() {
    found_after("pass-intent", 6, 5);
}

#[test]
#[ignore = "takes five minutes: just histories"]
fn histories() {
    let seconds =
        std::env::var("TRANDB_SOAK_SECONDS").map_or(300, |text| text.parse().expect("a number of seconds"));
    sound(seconds);
}

#[test]
#[ignore = "takes minutes: just histories"]
#[cfg(debug_assertions)]
fn planted() {
    for (fault, seconds) in PLANTED {
        let took: Vec<usize> = (0..5).map(|_| found_after(fault, seconds, 5)).collect();
        println!("{fault}: found by both judges after {took:?} soaks of {seconds} s");
    }
}
