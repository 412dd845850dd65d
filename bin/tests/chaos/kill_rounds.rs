//! Rounds of killing and starting again, with values of 4 MiB among the small ones: it starts each time, and nothing that
//! was acknowledged is lost or changed.

use crate::disk::Watch;
use crate::figures::Figures;
use crate::harness::{Cluster, Node};
use crate::settings;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use trandb_client::{Client, ErrorCode};

/// Rounds, unless the environment says otherwise.
const ROUNDS: u32 = 200;

/// Writers of small values and of the largest ones, and how many keys each overwrites in turn.
const SMALL: usize = 8;
const SMALL_KEYS: usize = 50;
const LARGE: usize = 3;
const LARGE_KEYS: usize = 2;
const LARGE_BYTES: usize = 4 << 20;

/// How long clients write in a round before the kill, and how long after it at least.
const BEFORE_MS: std::ops::Range<u64> = 50..700;
const AFTER: Duration = Duration::from_millis(100);

/// How long a write may take; one that a dead node has swallowed must not hold its writer up for longer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
const READ_TIMEOUT: Duration = Duration::from_secs(60);

const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(20);

/// A few seconds of history, and checkpoints often: overwritten large values must go, and kills meet checkpoints.
const CONFIG: &str =
    "[storage]\nhistory_ms = 2000\ncheckpoint_interval_ms = 1500\ncheckpoint_log_bytes = 67108864\n";

/// A key with one writer, whose values are numbered.
struct Register {
    name: String,
    /// Counts up when nobody knows what became of a write, which may be done late: it gets a new key.
    generation: u32,
    large: bool,
    acknowledged: u64,
    tried: u64,
    open: bool,
}

impl Register {
    fn new(name: String, large: bool) -> Self {
        Self { name, generation: 0, large, acknowledged: 0, tried: 0, open: false }
    }

    fn key(&self) -> String {
        format!("rounds/{}/{}", self.name, self.generation)
    }

    fn value(&self, number: u64) -> Bytes {
        let text = format!("{} holds {number}; ", self.key());
        if !self.large {
            return text.into();
        }
        let mut bytes = text.as_bytes().repeat(LARGE_BYTES.div_ceil(text.len()));
        bytes.truncate(LARGE_BYTES);
        bytes.into()
    }

    /// Whether it may hold this: the last value that was acknowledged, or a later one.
    fn may_hold(&self, found: Option<&Bytes>) -> bool {
        match found {
            None => self.acknowledged == 0,
            Some(found) => (self.acknowledged.max(1)..=self.tried).any(|number| *found == self.value(number)),
        }
    }

    /// Begins anew where a write may still be under way.
    fn renew(&mut self) {
        if std::mem::take(&mut self.open) {
            self.generation += 1;
            (self.acknowledged, self.tried) = (0, 0);
        }
    }
}

struct Writer {
    client: Client,
    registers: Vec<Register>,
    acknowledged: u64,
}

impl Writer {
    fn new(runtime: &Runtime, addrs: &[String], name: &str, keys: usize, large: bool) -> Self {
        let _within = runtime.enter();
        let client = Client::builder().connections_per_node(1).timeout(WRITE_TIMEOUT).build(addrs.to_vec());
        let registers = (0..keys).map(|at| Register::new(format!("{name}/{at}"), large)).collect();
        Self { client: client.expect("there are addresses"), registers, acknowledged: 0 }
    }

    async fn write(mut self, stop: Arc<AtomicBool>) -> Self {
        while !stop.load(Ordering::Relaxed) && self.registers.iter().any(|register| !register.open) {
            for register in self.registers.iter_mut().filter(|register| !register.open) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                register.tried += 1;
                match self.client.put(register.key(), register.value(register.tried)).await {
                    Ok(_) => {
                        register.acknowledged = register.tried;
                        self.acknowledged += 1;
                    }
                    Err(error) => {
                        register.open = error.code == ErrorCode::Unknown;
                        tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                    }
                }
            }
        }
        self
    }

    /// Reads all back; what is not as it must be.
    async fn check(&mut self, reader: &Client) -> Vec<String> {
        let mut wrong = Vec::new();
        for register in &mut self.registers {
            let key = register.key();
            match reader.get(&key).await {
                Ok(found) => {
                    let found = found.map(|found| found.value);
                    if !register.may_hold(found.as_ref()) {
                        let begin = found.map(|found| found.slice(..found.len().min(60)));
                        let Register { acknowledged, tried, .. } = register;
                        wrong.push(format!(
                            "{key} holds {begin:?}, acknowledged {acknowledged}, tried {tried}"
                        ));
                    }
                }
                Err(error) => wrong.push(format!("{key}: {error}")),
            }
            if register.open {
                // Late or not, nobody looks at it any more, and large ones take room.
                let _ = reader.delete(&key).await;
                register.renew();
            }
        }
        wrong
    }
}

fn rounds(nodes: usize) {
    let mut random = StdRng::seed_from_u64(settings::seed());
    let rounds: u32 = settings::number("TRANDB_CHAOS_ROUNDS", ROUNDS);
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("node.toml");
    std::fs::write(&config, CONFIG).expect("is written");
    let mut cluster = Cluster::start(nodes, &["--config", config.to_str().expect("is text")]);
    let addrs: Vec<String> = cluster.nodes.iter().map(|node| node.ports.native.clone()).collect();
    let reader = {
        let _within = runtime.enter();
        Client::builder().timeout(READ_TIMEOUT).build(addrs.clone()).expect("there are addresses")
    };
    let small = (0..SMALL).map(|at| Writer::new(&runtime, &addrs, &format!("s{at}"), SMALL_KEYS, false));
    let large = (0..LARGE).map(|at| Writer::new(&runtime, &addrs, &format!("l{at}"), LARGE_KEYS, true));
    let mut writers: Vec<Writer> = small.chain(large).collect();
    let watch = Watch::start(cluster.nodes.iter().map(Node::data_dir).collect());
    let (mut restarts, mut wrong) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks: Vec<_> =
            writers.drain(..).map(|writer| runtime.spawn(writer.write(stop.clone()))).collect();
        std::thread::sleep(Duration::from_millis(random.random_range(BEFORE_MS)));
        let victim = random.random_range(0..nodes);
        cluster.nodes[victim].kill9();
        let began = Instant::now();
        cluster.nodes[victim].restart();
        restarts.push(began.elapsed());
        std::thread::sleep(AFTER);
        stop.store(true, Ordering::Relaxed);
        writers.extend(tasks.into_iter().map(|task| runtime.block_on(task).expect("no panic")));
        for writer in &mut writers {
            wrong.extend(runtime.block_on(writer.check(&reader)));
        }
        if round % 20 == 0 || !wrong.is_empty() {
            let acknowledged: u64 = writers.iter().map(|writer| writer.acknowledged).sum();
            println!("round {round}/{rounds}: {acknowledged} writes acknowledged, wrong: {wrong:?}");
        }
        assert!(wrong.is_empty(), "{wrong:?}");
    }
    cluster.wait_identical(nodes);
    let mut figures = Figures::new("kill -9 in rounds, 4 MiB values in the mix");
    figures.note("nodes", nodes);
    figures.note("rounds", rounds);
    figures.spread("restart until ready", &restarts, None);
    let of = |large| {
        let mine = writers.iter().filter(move |writer| writer.registers[0].large == large);
        mine.map(|writer| writer.acknowledged).sum::<u64>()
    };
    figures.note("small writes acknowledged", of(false));
    figures.note("writes of 4 MiB acknowledged", of(true));
    let most = watch.most();
    let (engine, log) = (most.engine >> 20, most.log >> 20);
    figures.note("engines and logs on disk at the most, MiB", format_args!("{engine} + {log}"));
    figures.must("lost, changed or not readable", wrong.len(), 0);
    figures.finish();
}

#[test]
#[ignore = "takes minutes: just chaos"]
fn kill_rounds_of_one() {
    rounds(1);
}

#[test]
#[ignore = "takes minutes: just chaos"]
fn kill_rounds_of_three() {
    rounds(3);
}

#[test]
fn a_register_holds_what_was_acknowledged_or_tried_since() {
    let mut register = Register::new("r".into(), false);
    assert!(register.may_hold(None));
    (register.acknowledged, register.tried) = (2, 4);
    let holds = |number| register.may_hold(Some(&register.value(number)));
    assert_eq!([1, 2, 3, 4, 5].map(holds), [false, true, true, true, false]);
    assert!(!register.may_hold(None), "it was lost");
    register.open = true;
    register.renew();
    assert!(register.may_hold(None) && register.key().ends_with("/1"));
}
