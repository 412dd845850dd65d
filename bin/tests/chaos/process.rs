//! What the operating system knows about a process. Linux only, as the runs are.

use crate::harness::Node;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Clock ticks per second of `/proc/<pid>/stat`: fixed in the kernel's interface (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Between two looks at memory.
const SAMPLE: Duration = Duration::from_millis(250);

const BYTES_PER_MIB: f64 = 1024.0 * 1024.0;

/// Resident memory in MiB; none when the process has ended.
pub(crate) fn resident_mib(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / BYTES_PER_MIB)
}

/// Processor time used so far, by all threads.
fn processor_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The command's name, in parentheses, may hold spaces; what follows does not.
    let (_, fields) = stat.rsplit_once(')').expect("the kernel's format");
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // utime and stime are fields 14 and 15; the two before the parenthesis's end are cut off.
    let ticks = |at: usize| fields[at].parse::<f64>().expect("the kernel's format");
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

/// How much of one core each node used while `during` ran, in percent.
pub(crate) fn processor_percent(nodes: &[Node], during: impl FnOnce()) -> Vec<f64> {
    let before: Vec<f64> = nodes.iter().map(|node| processor_seconds(node.process_id())).collect();
    let began = Instant::now();
    during();
    let took = began.elapsed().as_secs_f64();
    nodes
        .iter()
        .zip(before)
        .map(|(node, before)| (processor_seconds(node.process_id()) - before) / took * 100.0)
        .collect()
}

/// Resident memory of processes over time.
pub(crate) struct Memory {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Vec<f64>>>,
}

/// Resident memory of one process, in MiB.
pub(crate) struct Resident {
    pub(crate) first: f64,
    pub(crate) most: f64,
    pub(crate) last: f64,
}

impl Memory {
    /// Watches the nodes as they run now.
    pub(crate) fn watch(nodes: &[Node]) -> Self {
        let pids: Vec<u32> = nodes.iter().map(Node::process_id).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut samples = vec![Vec::new(); pids.len()];
            while !stopped.load(Ordering::Relaxed) {
                for (samples, pid) in samples.iter_mut().zip(&pids) {
                    samples.extend(resident_mib(*pid));
                }
                std::thread::sleep(SAMPLE);
            }
            samples
        });
        Self { stop, thread }
    }

    /// One for each node, in the order given.
    pub(crate) fn stop(self) -> Vec<Resident> {
        self.stop.store(true, Ordering::Relaxed);
        let samples = self.thread.join().expect("sampling does not panic");
        samples
            .into_iter()
            .map(|samples| Resident {
                first: samples.first().copied().unwrap_or_default(),
                most: samples.iter().copied().fold(0.0, f64::max),
                last: samples.last().copied().unwrap_or_default(),
            })
            .collect()
    }
}

/// Resident memory of one node now, in MiB.
pub(crate) fn memory_mib(node: &Node) -> f64 {
    resident_mib(node.process_id()).expect("the process runs")
}

#[test]
fn a_process_has_memory_and_used_a_processor() {
    let own = std::process::id();
    assert!(resident_mib(own).is_some_and(|mib| mib > 0.1));
    assert!(processor_seconds(own) >= 0.0);
    assert_eq!(resident_mib(u32::MAX), None);
}
