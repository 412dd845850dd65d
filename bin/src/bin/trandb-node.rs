//! The database's server. See `trandb-node --help`.

#[path = "../allocator.rs"]
mod allocator;

use std::process::ExitCode;
use std::sync::Arc;
use trandb::node::{Launch, run, serve};

fn main() -> ExitCode {
    run(|launch: Launch| serve(launch, Arc::new(allocator::JemallocMeter)))
}
