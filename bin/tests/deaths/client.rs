//! A client dies: the program, by `kill -9`, with a transaction open that holds locks and has written, or is committing.

use crate::after::{self, BLOCKED_MAX};
use crate::harness::{Cluster, PATIENCE, program};
use crate::{MEANWHILE, PARTITIONS, hold, let_go};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Instant;
use tokio::runtime::Runtime;
use trandb_client::{Client, TxnId, TxnOutcome};

/// The command line with its standard streams in our hands.
struct Victim {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Victim {
    fn start(addr: &str) -> Self {
        let mut command = program(env!("CARGO_BIN_EXE_trandb"));
        command.args(["repl", "--addr", addr]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, input, output }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").and_then(|()| self.input.flush()).expect("it reads");
    }

    /// What it answers to that.
    fn ask(&mut self, line: &str) -> String {
        self.say(line);
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("it answers");
        answer.trim().to_owned()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }
}

fn dies(cluster: &Cluster, runtime: &Runtime, case: usize, step: &str) {
    let at = format!("client at {step}");
    let all: Vec<usize> = (0..cluster.nodes.len()).collect();
    let client =
        runtime.block_on(Client::builder().timeout(PATIENCE).connect(cluster.addrs())).expect("connects");
    let keys = [0, 1, 2, 3].map(|key| format!("deaths/client/{case}/{key}"));
    for key in &keys {
        runtime.block_on(client.put(key, "old")).expect("is written");
    }
    // One key lies in one partition.
    let mine = if step.starts_with("commit") { &keys[..1] } else { &keys[..] };
    let mut victim = Victim::start(&cluster.nodes[case % all.len()].ports.native);
    let begun = victim.ask("begin");
    let txn: TxnId = begun
        .split_whitespace()
        .find_map(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("{at}: no id in {begun:?}"));
    if step != "begun" {
        victim.ask(&format!("get --for-update {}", keys[0]));
    }
    if !["begun", "locked"].contains(&step) {
        for key in mine {
            // It prints nothing.
            victim.say(&format!("put {key} new"));
            assert_eq!(victim.ask(&format!("get {key}")), "new", "{at}");
        }
    }
    if !["begun", "locked", "written"].contains(&step) {
        hold(cluster, &all, step);
        victim.say("commit");
        std::thread::sleep(MEANWHILE);
    }
    drop(victim);

    let died = Instant::now();
    // Another one that wants the lock.
    let locked = runtime.block_on(async {
        let other = client.begin().await?;
        other.get_for_update(&keys[0]).await?;
        other.abort().await
    });
    let waited = died.elapsed();
    assert!(locked.is_ok() && waited < BLOCKED_MAX, "{at}: the lock after {waited:?}: {locked:?}");
    let whole: Vec<&String> = mine.iter().step_by(2).collect();
    let (outcome, times) = after::look(cluster, runtime, &at, &all, &client, &keys, &whole, txn);
    assert!(step == "begun" || outcome != TxnOutcome::Open, "{at}");
    println!("{at}: {outcome:?}; its lock was had after {waited:?}; {times}");
    let_go(cluster, &all, "prepared");
}

pub(crate) fn run(steps: &[&str]) {
    let cluster = Cluster::start(3, &["--partitions", PARTITIONS]);
    // Locks are not replicated: a partition that gets another leader has forgotten them.
    cluster.wait_spread();
    let runtime = Runtime::new().expect("a runtime");
    for (case, step) in steps.iter().enumerate() {
        dies(&cluster, &runtime, case, step);
    }
    cluster.wait_identical(3);
}
