//! Three nodes: operations through any of them, failures of one of them, memory that changes by itself,
//! nodes that join.

// Whole processes on a real machine: the doors of the simulation are not theirs.
#![allow(clippy::disallowed_methods)]

#[path = "../harness/mod.rs"]
mod harness;

use harness::PATIENT as TIMING;

mod divergence;
mod failures;
mod idle;
mod joining;
mod limits;
mod operations;
mod past;
mod repair;
mod resuming;
mod scans;
mod traces;
mod transactions;
