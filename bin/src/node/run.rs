//! The order in which a process becomes a node and ends again.

use super::args::Args;
use super::drive::{Addresses, Failure, Service, drive};
use super::process;
use super::repair::Repair;
use crate::build::{COMMIT, LONG_VERSION, VERSION};
use clap::Parser;
use std::future::Future;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;
use trandb_runtime::config::{Config, EX_CONFIG};
use trandb_runtime::telemetry::{Metrics, NodeLabel, Telemetry, TelemetryOptions, TraceOptions};

/// Exit code when the operating system refuses something basic (sysexits `EX_OSERR`, here as I/O error).
const EX_IOERR: u8 = 74;

/// How long tasks that are left over may take to end.
const RUNTIME_END: Duration = Duration::from_secs(1);

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Merged and checked.
    pub config: Config,
    /// What `/metrics` renders.
    pub metrics: Metrics,
    /// Puts the node's id on log lines.
    pub label: NodeLabel,
    /// The version that clients are told.
    pub version: &'static str,
    /// The commit it was built from.
    pub commit: &'static str,
}

/// The whole program: `start` gives the node, which is listening when its future is done.
pub fn run<S, F>(start: impl FnMut(Launch) -> F) -> ExitCode
where
    S: Service,
    F: Future<Output = Result<S, Failure>>,
{
    let args = Args::parse();
    let repair = args.repair();
    let code = match Config::load(&args.sources()) {
        Ok(config) => run_with(config, repair, start),
        Err(error) => refuse(&error),
    };
    ExitCode::from(code)
}

fn run_with<S, F>(config: Config, repair: bool, mut start: impl FnMut(Launch) -> F) -> u8
where
    S: Service,
    F: Future<Output = Result<S, Failure>>,
{
    let telemetry = match start_telemetry(&config) {
        Ok(telemetry) => telemetry,
        Err(error) => return refuse(&error),
    };
    process::log_panics();
    if let Ok(fault) = std::env::var("TRANDB_PLANT") {
        let planted = trandb_runtime::planted::plant_named(&fault);
        tracing::warn!(fault, planted, "a fault was to be planted, for tests of the tests");
    }
    process::raise_file_limit(&config);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if config.node.threads > 0 {
        builder.worker_threads(config.node.threads as usize);
    }
    let runtime = match builder.enable_all().thread_name("trandb").build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start threads");
            return EX_IOERR;
        }
    };
    let metrics = telemetry.metrics().clone();
    let label = telemetry.node_label().clone();
    tracing::info!(version = VERSION, commit = COMMIT, "starting");
    let code = runtime.block_on(async {
        let mut signals = match process::signals() {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!(%error, "cannot listen for signals");
                return EX_IOERR;
            }
        };
        tokio::spawn(metrics.clone().upkeep());
        let mut repair = Repair::new(repair, &config);
        let launch = Launch { config: config.clone(), metrics, label, version: VERSION, commit: COMMIT };
        drive(|| start(launch.clone()), |failure| repair.mend(failure), &mut signals, announce).await
    });
    if code != super::drive::EX_INTERRUPTED {
        telemetry.shutdown();
        runtime.shutdown_timeout(RUNTIME_END);
    } else {
        runtime.shutdown_background();
    }
    code
}

fn start_telemetry(config: &Config) -> Result<Telemetry, trandb_runtime::telemetry::TelemetryError> {
    let on_terminal = std::io::stderr().is_terminal();
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    Telemetry::start(&TelemetryOptions {
        log_format: config.log_format(on_terminal),
        colour: on_terminal && !no_colour,
        log_filter: std::env::var("RUST_LOG").ok(),
        trace: TraceOptions::from_environment(|variable| std::env::var(variable).ok())?,
        version: VERSION,
        commit: COMMIT,
    })
}

/// Scripts wait for this line, so it is data and goes to standard output. Nobody reading it is no failure.
fn announce(addresses: &Addresses) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "trandb-node {LONG_VERSION} ready: {addresses}").and_then(|()| out.flush());
}

fn refuse(error: &dyn std::error::Error) -> u8 {
    let _ = writeln!(std::io::stderr(), "trandb-node: {error}");
    EX_CONFIG
}
