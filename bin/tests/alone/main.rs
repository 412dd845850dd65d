//! A database of one node: what the README shows, what survives, what is refused.

// Whole processes on a real machine: the doors of the simulation are not theirs.
#![allow(clippy::disallowed_methods)]

#[path = "../harness/mod.rs"]
mod harness;

use harness::PATIENT as TIMING;

mod compressed;
mod engines;
mod hostile;
mod memory;
mod panics;
mod refusals;
mod tour;
