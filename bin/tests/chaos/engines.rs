//! The storage engines side by side: the same node, load and data, each engine in turn.

use crate::disk::Used;
use crate::figures::Figures;
use crate::harness::{Node, Ports, program, trandb};
use crate::{process, settings};
use std::process::Stdio;
use std::time::Instant;

/// Writes per second that the load asks for; what the machine gives is in the table.
const RATE: &str = "50000";

/// Different keys, of 16 bytes with values of 100.
const KEYS: u64 = 100_000;

/// Checkpoints come as often, so that there are many while load is measured.
const CHECKPOINT_INTERVAL_MS: u64 = 3000;

/// Old versions go soon: what is overwritten is removed from the engine, too.
const HISTORY_MS: u64 = 5000;

const ENGINES: [&str; 2] = ["sled", "fjall"];

#[test]
#[ignore = "takes a minute: just chaos engines"]
fn engines() {
    let mut figures = Figures::new("storage engines side by side");
    for engine in ENGINES {
        measure(engine, &mut figures);
    }
    figures.finish();
}

fn measure(engine: &str, figures: &mut Figures) {
    let folder = tempfile::tempdir().expect("a folder");
    let environment = vec![
        ("TRANDB_STORAGE__ENGINE", engine.to_owned()),
        ("TRANDB_STORAGE__CHECKPOINT_INTERVAL_MS", CHECKPOINT_INTERVAL_MS.to_string()),
        ("TRANDB_STORAGE__HISTORY_MS", HISTORY_MS.to_string()),
    ];
    let home = folder.path().join(engine);
    let mut node = Node::start_by(Vec::new(), &home, Ports::free(1).remove(0), &[], environment);
    node.wait_ready();

    let seconds = settings::seconds();
    let mut written = 0.0;
    let used = process::processor_percent(std::slice::from_ref(&node), || {
        written = bench(&node, &["--mix", "put:100", "--rate", RATE, "--warm-up-seconds", "0"], seconds);
    });
    figures.note(format!("{engine}, writes/s of {RATE} asked"), format_args!("{written:.0}"));
    figures.note(format!("{engine}, % of a core meanwhile"), format_args!("{:.0}", used[0]));
    // One after the other, so what is gone through per second of work is what an engine can do.
    let (took, checkpoints) = checkpoints(&node);
    figures.note(format!("{engine}, checkpoints of a partition"), checkpoints);
    figures.note(format!("{engine}, ms for each"), format_args!("{:.0}", took * 1000.0 / checkpoints));

    let began = Instant::now();
    let (code, _, error) = trandb(&node.ports.native, &["checkpoint"]);
    assert_eq!(code, 0, "{error}");
    figures.note(
        format!("{engine}, checkpoint of what is left, s"),
        format_args!("{:.2}", began.elapsed().as_secs_f64()),
    );
    figures.note(format!("{engine}, memory, MiB"), format_args!("{:.0}", process::memory_mib(&node)));
    node.kill9();
    let used = Used::of(&node.data_dir());
    figures.note(format!("{engine}, engine on disk, MiB"), used.engine >> 20);
    figures.note(format!("{engine}, log on disk, MiB"), used.log >> 20);
    let began = Instant::now();
    node.restart();
    figures.note(
        format!("{engine}, ready again after, s"),
        format_args!("{:.2}", began.elapsed().as_secs_f64()),
    );
}

/// Runs the load; operations per second.
fn bench(node: &Node, arguments: &[&str], seconds: u64) -> f64 {
    let output = program(env!("CARGO_BIN_EXE_trandb"))
        .args(["--addr", &node.ports.native, "--output", "json", "bench", "-c", "32", "-p", "16"])
        .args(["--keys", &KEYS.to_string(), "--seconds", &seconds.to_string()])
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("is JSON");
    report["results"][0]["ops_per_second"].as_f64().expect("is a number")
}

/// Seconds that checkpoints took, and how many there were.
fn checkpoints(node: &Node) -> (f64, f64) {
    let [took, count] =
        ["sum", "count"].map(|of| node.metric(&format!("trandb_checkpoint_seconds_{of}"), &[]));
    assert!(count > 0.0, "there was no checkpoint");
    (took, count)
}
