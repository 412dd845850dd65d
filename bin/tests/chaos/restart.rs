//! A node is killed with many keys in it and started again; beside it Redis, which loads its append-only file.

use crate::figures::Figures;
use crate::harness::{Node, Ports};
use crate::{process, settings};
use bytes::Bytes;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use trandb_client::Client;

const VALUE_BYTES: usize = 100;

/// Writers that fill the node; each has one write under way.
const WRITERS: usize = 256;

/// Keys that Redis is sent before its answers are awaited.
const PIPELINE: u64 = 1000;

/// How long either may take to come back.
const BACK_MAX: Duration = Duration::from_secs(300);

/// After this long nothing of a load is under way any more: the interval between checkpoints, and one of them.
pub(crate) const SETTLED: Duration = Duration::from_secs(40);

#[test]
#[ignore = "takes two minutes per million keys: just chaos restart"]
fn restart() {
    let keys = settings::number("TRANDB_CHAOS_KEYS", 1_000_000);
    let mut figures = Figures::new("restart with many keys, of 16 + 100 bytes");
    figures.note("keys", keys);
    trandb(keys, &mut figures);
    match Command::new("redis-server").arg("--version").output() {
        Ok(version) => {
            figures.note("beside it", String::from_utf8_lossy(&version.stdout).trim());
            redis(keys, &mut figures);
        }
        Err(error) => figures.note("no Redis to compare with", error),
    }
    figures.finish();
}

fn key(number: u64) -> String {
    format!("key:{number:012}")
}

/// Different for each key, and not one byte repeated: nothing can store it in less.
fn value(number: u64) -> Bytes {
    let mut value = Vec::with_capacity(VALUE_BYTES);
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while value.len() < VALUE_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        value.extend_from_slice(&state.to_le_bytes());
    }
    value.truncate(VALUE_BYTES);
    value.into()
}

fn trandb(keys: u64, figures: &mut Figures) {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().join("node");
    let mut node = Node::start_by(Vec::new(), &home, Ports::free(1).remove(0), &[], Vec::new());
    node.wait_ready();
    let (runtime, addrs) = (Runtime::new().expect("a runtime"), [node.ports.native.clone()]);
    let began = Instant::now();
    runtime.block_on(fill(&addrs, keys));
    figures.note("TranDB, filled in, s", format_args!("{:.1}", began.elapsed().as_secs_f64()));
    for settled in [false, true] {
        if settled {
            std::thread::sleep(SETTLED);
        }
        let when = if settled { "some time after" } else { "under way" };
        let before = process::memory_mib(&node);
        node.kill9();
        let began = Instant::now();
        node.restart();
        let took = began.elapsed();
        figures.note(
            format!("TranDB, killed {when}, ready again after, s"),
            format_args!("{:.2}", took.as_secs_f64()),
        );
        let after = process::memory_mib(&node);
        figures.note(format!("TranDB, killed {when}, memory before, MiB"), format_args!("{before:.0}"));
        figures.note(format!("TranDB, killed {when}, memory after, MiB"), format_args!("{after:.0}"));
        let wrong = runtime.block_on(wrong(&addrs, keys));
        figures.must(format!("TranDB, killed {when}, keys lost or changed"), wrong, 0);
        if settled {
            // As long after its start as it was looked at before: the first checkpoints and walks have their share of it.
            std::thread::sleep(SETTLED);
            let after = process::memory_mib(&node);
            figures.note("TranDB, memory as long after, MiB", format_args!("{after:.0}"));
            figures.at_most("TranDB, memory changed by, %", (after / before - 1.0).abs() * 100.0, 10.0);
        }
    }
}

/// A patient client of these nodes.
pub(crate) fn client(addrs: &[String]) -> Client {
    Client::builder().timeout(Duration::from_secs(60)).build(addrs.to_vec()).expect("there are addresses")
}

/// Writes so many keys of 16 bytes with values of 100, as fast as they are taken.
pub(crate) async fn fill(addrs: &[String], keys: u64) {
    let (client, next) = (client(addrs), Arc::new(AtomicU64::new(0)));
    let writers = (0..WRITERS).map(|_| {
        let (client, next) = (client.clone(), next.clone());
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= keys {
                    return;
                }
                client.put(key(number), value(number)).await.expect("is written");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("a writer does not panic");
    }
}

/// How many keys do not have their value.
async fn wrong(addrs: &[String], keys: u64) -> u64 {
    let (client, next) = (client(addrs), Arc::new(AtomicU64::new(0)));
    let readers = (0..WRITERS).map(|_| {
        let (client, next) = (client.clone(), next.clone());
        tokio::spawn(async move {
            let mut wrong = 0;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= keys {
                    return wrong;
                }
                let found = client.get(key(number)).await.expect("is read");
                wrong += u64::from(found.is_none_or(|found| found.value != value(number)));
            }
        })
    });
    let mut wrong = 0;
    for reader in readers.collect::<Vec<_>>() {
        wrong += reader.await.expect("a reader does not panic");
    }
    wrong
}

/// A Redis that keeps an append-only file, ended with this value.
struct Redis {
    child: Child,
    port: u16,
}

impl Redis {
    fn start(folder: &Path, port: u16) -> Self {
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "yes"])
            .arg("--dir")
            .arg(folder)
            .stdout(Stdio::null())
            .spawn()
            .expect("it was there a moment ago");
        Self { child, port }
    }

    /// Waits until it serves: while it loads it says so.
    fn wait(&self) -> TcpStream {
        let deadline = Instant::now() + BACK_MAX;
        while Instant::now() < deadline {
            if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
                stream.write_all(b"*1\r\n$4\r\nPING\r\n").expect("is sent");
                let mut answer = [0; 256];
                let length = stream.read(&mut answer).unwrap_or_default();
                if answer[..length].starts_with(b"+PONG") {
                    return stream;
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("Redis does not serve");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn redis(keys: u64, figures: &mut Figures) {
    const OK: &[u8] = b"+OK\r\n";
    let folder = tempfile::tempdir().expect("a folder");
    let addr = Ports::free(1).remove(0).native;
    let port = addr.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let server = Redis::start(folder.path(), port);
    let mut stream = server.wait();
    let began = Instant::now();
    for first in (0..keys).step_by(PIPELINE as usize) {
        let numbers = first..keys.min(first + PIPELINE);
        let (mut request, mut answer) = (Vec::new(), vec![0; OK.len() * (numbers.end - first) as usize]);
        for number in numbers {
            let (key, value) = (key(number), value(number));
            request.extend_from_slice(
                format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n", key.len(), value.len()).as_bytes(),
            );
            request.extend_from_slice(&value);
            request.extend_from_slice(b"\r\n");
        }
        stream.write_all(&request).expect("is sent");
        stream.read_exact(&mut answer).expect("is answered");
        assert!(answer.chunks(OK.len()).all(|one| one == OK), "{}", String::from_utf8_lossy(&answer));
    }
    figures.note("Redis, filled in, s", format_args!("{:.1}", began.elapsed().as_secs_f64()));
    // Its file is synced once a second.
    std::thread::sleep(Duration::from_secs(3));
    let before = process::resident_mib(server.child.id()).expect("it runs");
    drop(server);
    let began = Instant::now();
    let server = Redis::start(folder.path(), port);
    drop(server.wait());
    figures.note("Redis, serves again after, s", format_args!("{:.2}", began.elapsed().as_secs_f64()));
    let after = process::resident_mib(server.child.id()).expect("it runs");
    figures.note("Redis, memory before, MiB", format_args!("{before:.0}"));
    figures.note("Redis, memory after, MiB", format_args!("{after:.0}"));
}
