//! The partition scenario holds, and the same seed does the same. One simulation per process: each run is one.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Output};

/// Runs a seed in a process of its own; answers whether it held, and what it printed.
fn simulate(seed: u64, park_port: u16) -> (bool, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_trandb-sim"))
        .args(["--scenario", "partition", "--seed", &seed.to_string()])
        .args(["--park-port", &park_port.to_string()])
        .output()
        .expect("the simulation is built with its tests");
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.success(), text)
}

/// The first of three adjacent ports that are free now, far from those that others look for.
fn park_port() -> u16 {
    let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    (23_000..24_000).step_by(3).find(|first| (*first..*first + 3).all(free)).expect("some ports are free")
}

#[test]
fn a_partition_and_a_crash_lose_nothing_and_the_same_seed_does_the_same() {
    let park_port = park_port();
    let (ok, first) = simulate(1, park_port);
    assert!(ok, "{first}");
    let (ok, second) = simulate(1, park_port);
    assert!(ok, "{second}");
    assert_eq!(first, second, "two runs of one seed differ; compare their --trace files");
}
