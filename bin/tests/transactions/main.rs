//! Transactions as clients of real nodes see them: through any node, by every door, with answers lost on the way.

// Whole processes on a real machine: the doors of the simulation are not theirs.
#![allow(clippy::disallowed_methods)]

#[path = "../harness/mod.rs"]
mod harness;

use harness::PATIENT as TIMING;

mod bounds;
mod doors;
mod levels;
mod locks;
mod lossy;
mod lost;
mod metrics;
mod named;
mod prompt;
