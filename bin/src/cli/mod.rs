//! The command line: one file for each family of commands.
//!
//! Data goes to stdout, messages to stderr. Exit codes follow the error table of the database.

mod args;
mod bench;
mod check;
mod cluster;
mod config;
mod data;
mod failure;
mod local;
mod output;
mod place;
mod processes;
mod repl;
mod soak;
mod txn;

use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use failure::Failure;
use place::Place;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;
use trandb_client::Client;

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let Some(command) = cli.command else {
        if std::io::stdin().is_terminal() {
            return repl::run(&cli.global, repl::Args::default());
        }
        Cli::command().print_help()?;
        return Ok(ExitCode::from(failure::USAGE));
    };
    match command {
        Command::Repl(args) => repl::run(&cli.global, args),
        Command::Bench(args) => bench::run(&cli.global, args),
        Command::Local(args) => local::run(args),
        Command::Soak(args) => soak::run(args),
        Command::Check(args) => {
            let mut out = std::io::stdout().lock();
            let code = check::run(&args, cli.global.output, &mut out)?;
            out.flush()?;
            Ok(code)
        }
        Command::Config(command) => {
            let mut out = std::io::stdout().lock();
            let code = config::run(*command, &cli.global, &mut out)?;
            out.flush()?;
            Ok(code)
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "trandb", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man => {
            clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Online(command) => {
            let runtime = runtime()?;
            let mut out = std::io::stdout().lock();
            let code = runtime.block_on(async {
                let client = connect(&cli.global).await?;
                online(command, &cli.global, Place::Cluster(&client), &mut out).await
            })?;
            out.flush()?;
            Ok(code)
        }
    }
}

/// Runs a command that talks to the cluster; the command line and the REPL both end up here.
async fn online(
    command: args::Online,
    global: &args::Global,
    place: Place<'_>,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    use args::Online;
    match command {
        Online::Get(args) => data::get(args, global, place, out).await,
        Online::Put(args) => data::put(args, global, place, out).await,
        Online::Del(args) => data::del(args, global, place, out).await,
        Online::Exists(args) => data::exists(args, global, place, out).await,
        Online::Scan(args) => data::scan(args, global, place, out).await,
        Online::Txn(command) => txn::run(command, global, place.client(), out).await,
        Online::Cluster(command) => cluster::run(command, global, place.client(), out).await,
        Online::Checkpoint => cluster::checkpoint(global, place.client(), out).await,
        Online::Health => cluster::health(global, place.client(), out).await,
    }
}

async fn connect(global: &args::Global) -> Result<Client, Failure> {
    let client = Client::builder()
        .name(concat!("trandb/", env!("CARGO_PKG_VERSION")))
        .timeout(Duration::from_millis(global.timeout_ms))
        .connect(&global.addr)
        .await?;
    Ok(match &global.keyspace {
        Some(keyspace) => client.with_keyspace(keyspace),
        None => client,
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// A length of time as people write it, in milliseconds: `500ms`, `2s`, `1.5s`, `3m`; a bare number is seconds.
fn parse_duration_ms(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| format!("not a length of time: {text}"))?;
    let unit_ms = match unit {
        "ms" => 1.0,
        "" | "s" => 1_000.0,
        "m" => 60_000.0,
        _ => return Err(format!("unknown unit of time: {unit} (ms, s, m)")),
    };
    // Rounded up, so that a tenth of a millisecond is not taken for no time at all.
    Ok((number * unit_ms).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lengths_of_time() {
        let good = [("500ms", 500), ("2s", 2000), ("1.5s", 1500), ("3m", 180_000), ("7", 7000), ("0.1ms", 1)];
        for (text, ms) in good {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
        }
        for text in ["", "s", "1h", "1..2s", "-1s"] {
            assert!(parse_duration_ms(text).is_err(), "{text}");
        }
    }
}
