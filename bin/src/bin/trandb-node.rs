//! The database's server. See `trandb-node --help`.

use std::process::ExitCode;
use trandb::node::{Launch, run, serve};

fn main() -> ExitCode {
    run(|launch: Launch| serve(launch))
}
