//! The outside world behind small doors, and the toolkit that actors are built with.

pub mod clock;
pub mod config;
pub mod datadir;
pub mod disk;
pub mod engine;
pub mod memory;
pub mod net;
pub mod pace;
pub mod peer;
pub mod planted;
mod priority;
pub mod raft;
pub mod random;
pub mod rpc;
pub mod telemetry;
pub mod wal;
