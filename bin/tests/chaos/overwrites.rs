//! A bounded set of keys, overwritten without end: what it takes on disk stays in proportion to it.

use crate::disk::{Used, Watch};
use crate::figures::Figures;
use crate::harness::{Node, Ports, program};
use crate::{process, settings};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Different keys, and the bytes of each.
const KEYS: u64 = 100_000;
const KEY_BYTES: u64 = 16;

/// How often one is overwritten, and with how much, unless the environment says otherwise.
const OVERWRITES: u64 = 10_000_000;
const VALUE_BYTES: u64 = 1000;

/// How many of them are asked for per second; zero: as fast as answers come, which leaves checkpoints what is left of the
/// machine.
const RATE: u64 = 20_000;

/// Old versions are data that is asked for, so there are to be few.
const HISTORY_MS: u64 = 1000;

/// What a node may take at any time: this many times its live data, and for the engine's journal, segments that are
/// allocated ahead, and files that are being merged, something besides that does not depend on it.
const TIMES: u64 = 4;
const BESIDES: u64 = 256 << 20;

/// The load goes on for so long at a time: it ends within as much of what was asked for.
const SLICE_SECONDS: u64 = 10;

/// What is due by itself is done within this: history and two checkpoints, and a minute of collecting garbage.
const REST: Duration = Duration::from_secs(90);

#[test]
#[ignore = "takes minutes: just chaos overwrites"]
fn overwrites() {
    let wanted = settings::number("TRANDB_CHAOS_OVERWRITES", OVERWRITES);
    let value_bytes = settings::number("TRANDB_CHAOS_VALUE_BYTES", VALUE_BYTES);
    let rate = settings::number("TRANDB_CHAOS_RATE", RATE);
    let live = KEYS * (KEY_BYTES + value_bytes);
    let folder = tempfile::tempdir().expect("a folder");
    let environment = vec![("TRANDB_STORAGE__HISTORY_MS", HISTORY_MS.to_string())];
    let home = folder.path().join("node");
    let mut node = Node::start_by(Vec::new(), &home, Ports::free(1).remove(0), &[], environment);
    node.wait_ready();

    let watch = Watch::start(vec![node.data_dir()]);
    let began = Instant::now();
    let mut written = 0;
    let used = process::processor_percent(std::slice::from_ref(&node), || {
        while written < wanted {
            written += slice(&node, value_bytes, rate, written);
        }
    });
    let took = began.elapsed();
    let end = Used::of(&node.data_dir());
    let memory = process::memory_mib(&node);
    std::thread::sleep(REST);
    let rested = Used::of(&node.data_dir());
    let most = watch.most();

    let of_mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mib = |bytes: u64| format!("{:.1}", of_mib(bytes));
    let mut figures = Figures::new("endless overwrites of a bounded set");
    figures.note("keys, bytes of each value", format_args!("{KEYS}, {value_bytes}"));
    figures.note("overwrites", written);
    let rate = if rate == 0 { "as can be".to_owned() } else { rate.to_string() };
    let per_second = written as f64 / took.as_secs_f64();
    figures.note("overwrites/s, of as many asked", format_args!("{per_second:.0} of {rate}"));
    figures.note("% of a core meanwhile", format_args!("{:.0}", used[0]));
    figures.note("memory at the end, MiB", format_args!("{memory:.0}"));
    figures.note("live data, MiB", mib(live));
    for (when, used) in [("at the most", most), ("at the end", end), ("later", rested)] {
        figures.note(format!("engine and log {when}, MiB"), mib(used.engine) + " + " + &mib(used.log));
        figures.note(
            format!("on disk {when}, times live data"),
            format_args!("{:.2}", used.total() as f64 / live as f64),
        );
    }
    figures.at_most("on disk at the most, MiB", of_mib(most.total()), of_mib(TIMES * live + BESIDES));
    figures.finish();
}

/// Overwrites for a while; how many were acknowledged.
fn slice(node: &Node, value_bytes: u64, rate: u64, seed: u64) -> u64 {
    let rate = if rate == 0 { Vec::new() } else { vec!["--rate".to_owned(), rate.to_string()] };
    let output = program(env!("CARGO_BIN_EXE_trandb"))
        .args(["--addr", &node.ports.native, "--output", "json", "bench", "--mix", "put:100"])
        .args(["-c", "32", "-p", "16", "--warm-up-seconds", "0", "--seconds", &SLICE_SECONDS.to_string()])
        .args(["--keys", &KEYS.to_string(), "--value-bytes", &value_bytes.to_string()])
        .args(["--seed", &seed.to_string()])
        .args(rate)
        .stderr(Stdio::inherit())
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("is JSON");
    assert_eq!(report["errors"], serde_json::json!({}));
    report["results"][0]["ops"].as_u64().expect("is a number")
}
