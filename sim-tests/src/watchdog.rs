//! Ends a simulation whose time stands still: something in it is woken without end, so that the simulated clock,
//! which moves only when nothing else is left to do, never moves again.

use crate::observe::Observer;
use std::process::exit;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Exit code of a run that stood still.
pub const HUNG: i32 = 3;

/// Real time that one simulated millisecond may take; a busy one takes a few milliseconds.
const STILL_MAX: Duration = Duration::from_secs(30);

/// Counts steps, so that it also shows whether there are any.
static STEPS: AtomicU64 = AtomicU64::new(0);
static SIMULATED_MS: AtomicU64 = AtomicU64::new(0);

/// The simulation has made a step.
pub fn alive(elapsed: Duration) {
    STEPS.fetch_add(1, Ordering::Relaxed);
    SIMULATED_MS.store(elapsed.as_millis() as u64, Ordering::Relaxed);
}

/// Watches this process from a thread of its own, which takes no part in the simulation.
#[allow(clippy::disallowed_methods, reason = "what it watches has stopped scheduling anything else")]
pub fn watch(observer: Observer) {
    std::thread::spawn(move || {
        let mut seen = 0;
        loop {
            std::thread::sleep(STILL_MAX);
            let steps = STEPS.load(Ordering::Relaxed);
            if steps == seen {
                println!(
                    "violation  hung: simulated time has stood at {} ms for {STILL_MAX:?}",
                    SIMULATED_MS.load(Ordering::Relaxed)
                );
                for line in observer.last_lines() {
                    println!("before     {line}");
                }
                exit(HUNG);
            }
            seen = steps;
        }
    });
}
