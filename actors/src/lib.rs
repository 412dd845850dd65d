//! Who does it: actors, as thin shells that feed the pure cores of `trandb-cluster` and carry out what they
//! ask through the doors of `trandb-runtime`.

pub mod alarms;
pub mod context;
pub mod control;
pub mod controller;
pub mod database;
pub mod gateway;
pub mod gauges;
pub mod large;
pub mod memory;
pub mod node;
pub mod oracle;
pub mod partition;
pub mod replica;
mod retention;
pub mod router;
mod supervise;
#[cfg(test)]
mod testing;
pub mod txn;
pub mod wal;
