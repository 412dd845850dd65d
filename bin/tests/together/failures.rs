//! One node of three is killed, frozen, or asked to go, while clients go on.

use crate::harness::{Cluster, Node, PATIENCE, StopOnDrop, eventually, trandb};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use trandb_client::ErrorCode;
use trandb_client::blocking::Client;

/// Writers that go on until they are stopped, each to keys of its own.
struct Writers {
    stop: AtomicBool,
    acknowledged: Mutex<BTreeMap<String, String>>,
    errors: Mutex<Vec<trandb_client::Error>>,
}

impl Writers {
    fn new() -> Self {
        Self { stop: AtomicBool::new(false), acknowledged: Mutex::default(), errors: Mutex::default() }
    }

    /// Writes and reads back until stopped.
    fn run(&self, name: usize, client: &Client) {
        for at in 0_u64.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            // Few keys, written again and again: what was overwritten must not come back either. A key whose
            // last write ended in an error is left alone: either value would be right.
            let (key, value) = (format!("{name}/{}", at / 3), at.to_string());
            let known = self.acknowledged.lock().expect("no panic").remove(&key);
            match client.put(&key, value.clone()) {
                Ok(_) => {
                    self.acknowledged.lock().expect("no panic").insert(key, value);
                }
                Err(error) => {
                    // Surely not done: what was there before still is.
                    if error.code != ErrorCode::Unknown
                        && let Some(known) = known
                    {
                        self.acknowledged.lock().expect("no panic").insert(key, known);
                    }
                    self.errors.lock().expect("no panic").push(error);
                }
            }
        }
    }

    /// One for each client, while nodes `fall` and come back one after the other.
    fn go_on_while(
        &self,
        cluster: &mut Cluster,
        clients: usize,
        nodes: [usize; 2],
        fall: impl Fn(&mut Node),
    ) {
        let clients: Vec<_> = (0..clients).map(|_| cluster.client()).collect();
        std::thread::scope(|scope| {
            let _stop = StopOnDrop(&self.stop);
            for (name, client) in clients.iter().enumerate() {
                scope.spawn(move || self.run(name, client));
            }
            self.wait_more(20);
            for at in nodes {
                let node = &mut cluster.nodes[at];
                fall(node);
                self.wait_more(20);
                node.restart();
                self.wait_more(10);
            }
        });
    }

    fn acknowledged(&self) -> usize {
        self.acknowledged.lock().expect("no panic").len()
    }

    /// Waits until so many more keys have been written.
    fn wait_more(&self, keys: usize) {
        let from = self.acknowledged();
        eventually("acknowledged writes", || {
            let more = self.acknowledged() - from;
            if more >= keys {
                Ok(())
            } else {
                Err(format!("{more} of {keys}, errors: {:?}", self.errors.lock()))
            }
        });
    }

    /// Everything acknowledged is there; the keys are shared out among the nodes.
    fn check(&self, cluster: &Cluster) {
        let clients: Vec<_> = cluster.nodes.iter().map(|node| node.client()).collect();
        let acknowledged = self.acknowledged.lock().expect("no panic");
        for ((key, value), client) in acknowledged.iter().zip(clients.iter().cycle()) {
            let found = client.get(key).expect("is read");
            let found = found.map(|found| String::from_utf8_lossy(&found.value).into_owned());
            assert_eq!(found.as_ref(), Some(value), "{key}");
        }
    }
}

#[test]
fn killing_one_of_three_loses_nothing() {
    let mut cluster = Cluster::start(3, &["--partitions", "4"]);
    let writers = Writers::new();
    writers.go_on_while(&mut cluster, 2, [0, 2], Node::kill9);
    let keys = cluster.wait_identical(3);
    assert!(keys >= writers.acknowledged() as u64);
    writers.check(&cluster);
    for node in &cluster.nodes {
        let (code, _, error) = trandb(&node.ports.native, &["cluster", "verify"]);
        assert_eq!(code, 0, "{error}");
    }
    for error in &*writers.errors.lock().expect("no panic") {
        assert!(matches!(error.code, ErrorCode::Unknown | ErrorCode::Unavailable), "{error}");
    }
}

#[test]
fn a_frozen_node_never_answers_with_the_past() {
    /// Registers; some are led by the frozen node.
    const REGISTERS: usize = 8;
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    let frozen = &cluster.nodes[0];
    // By HTTP, since the library would ask the frozen node, too.
    let other = &cluster.nodes[1];
    let write = |register: usize, round: u64| {
        let answer = other.http("PUT", &format!("/keys/r{register}"), &[], round.to_string().as_bytes());
        answer.status == 200
    };
    let acknowledged: [AtomicU64; REGISTERS] = Default::default();
    for register in 0..REGISTERS {
        assert!(write(register, 0));
    }
    let stop = AtomicBool::new(false);
    let reads = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| {
            for round in 1_u64.. {
                for (register, last) in acknowledged.iter().enumerate() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // An unknown outcome may show later, which is no harm: the register only grows.
                    if write(register, round) {
                        last.store(round, Ordering::SeqCst);
                    }
                }
            }
        });
        // Several at a time, so that requests wait in the frozen node's sockets when it wakes.
        for reader in 0..3 {
            let (stop, reads, acknowledged) = (&stop, &reads, &acknowledged);
            scope.spawn(move || {
                for register in (reader..).step_by(3).map(|at| at % REGISTERS) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let at_least = acknowledged[register].load(Ordering::SeqCst);
                    let answer = frozen.http("GET", &format!("/keys/r{register}"), &[], b"");
                    if answer.status == 200 {
                        let found: u64 = answer.text().parse().expect("a round");
                        assert!(found >= at_least, "r{register}: {found} after {at_least} was acknowledged");
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let all_grow = |what: &str| {
            let before: Vec<_> = acknowledged.iter().map(|last| last.load(Ordering::SeqCst)).collect();
            eventually(what, || {
                let now = acknowledged.iter().map(|last| last.load(Ordering::SeqCst));
                let slow = now.zip(&before).filter(|(now, before)| *now < **before + 2).count();
                if slow == 0 { Ok(()) } else { Err(format!("{slow} registers stand still")) }
            });
        };
        let reads_grow = |what: &str| {
            let before = reads.load(Ordering::Relaxed);
            eventually(what, || match reads.load(Ordering::Relaxed) - before {
                more if more >= 3 * REGISTERS as u64 => Ok(()),
                more => Err(format!("{more} reads")),
            });
        };
        all_grow("writes before");
        reads_grow("reads before");
        for _ in 0..2 {
            frozen.sigstop();
            let since = Instant::now();
            all_grow("writes by the others, of partitions of the frozen node, too");
            // It is not the waiting that proves anything, but longer than every lease.
            std::thread::sleep(Duration::from_secs(3).saturating_sub(since.elapsed()));
            frozen.sigcont();
            reads_grow("reads through the node that was frozen");
        }
    });
    assert!(cluster.wait_identical(3) >= REGISTERS as u64);
}

#[test]
fn a_node_that_is_asked_to_go_disturbs_no_caller() {
    let mut cluster = Cluster::start(3, &["--partitions", "4"]);
    let writers = Writers::new();
    writers.go_on_while(&mut cluster, 3, [1, 0], |node| {
        node.sigterm();
        assert_eq!(node.wait_exit(), Some(0), "{}", node.log());
    });
    assert_eq!(*writers.errors.lock().expect("no panic"), [], "callers saw errors");
    cluster.wait_identical(3);
    writers.check(&cluster);
}

#[test]
fn without_a_majority_writes_are_refused_in_time_and_work_again_with_one() {
    /// Keys, so many that each partition has some.
    const KEYS: usize = 24;
    /// Well below `limits.leader_wait_ms`, for which a node waits that may yet hear of a leader.
    const AT_ONCE: Duration = Duration::from_millis(400);
    let mut cluster = Cluster::start(3, &["--partitions", "4"]);
    // Whoever led all groups would miss nobody.
    cluster.wait_spread();
    cluster.client().put("k", "before").expect("is written");
    // The one that is left alone leads some of the partitions.
    let leads = |at: usize| {
        let view = cluster.nodes[at].view();
        view.partitions.iter().any(|group| !group.id.is_system() && group.leader == Some(view.answered_by))
    };
    let alone = (0..3).find(|&at| leads(at)).expect("partitions have leaders");
    let [second, third] = [(alone + 1) % 3, (alone + 2) % 3];
    cluster.nodes[second].kill9();
    cluster.nodes[third].kill9();
    let asked = Instant::now();
    let answer = cluster.nodes[alone].http_once("PUT", "/keys/k", &[], b"alone");
    assert!([503, 504].contains(&answer.status), "{}", answer.text());
    assert!(asked.elapsed() < PATIENCE / 2, "refused after {:?}", asked.elapsed());
    eventually("a node that knows that it is alone", || {
        match cluster.nodes[alone].http_once("GET", "/readyz", &[], b"").status {
            503 => Ok(()),
            status => Err(status.to_string()),
        }
    });
    for method in ["PUT", "GET"] {
        eventually("a partition that it leads, refused at once", || {
            let refused_at_once = (0..KEYS).any(|key| {
                let asked = Instant::now();
                let answer = cluster.nodes[alone].http_once(method, &format!("/keys/k{key}"), &[], b"alone");
                answer.status == 503 && asked.elapsed() < AT_ONCE
            });
            if refused_at_once { Ok(()) } else { Err(format!("none of {KEYS} keys to {method}")) }
        });
    }
    cluster.nodes[second].restart();
    eventually("a write by the majority", || {
        match cluster.nodes[alone].http("PUT", "/keys/k", &[], b"two of three") {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.text()),
        }
    });
    assert_eq!(cluster.nodes[second].http("GET", "/keys/k", &[], b"").text(), "two of three");
}
