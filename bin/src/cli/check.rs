//! `check`: judges a recorded history.

use super::args::Format;
use super::failure::{FAILED, Failure, IO};
use super::output::{self, Rows};
use serde_json::json;
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use trandb_judge::{Anomaly, History, Kind, Level, Malformed};

/// A file that is no history, as the table of exit codes has it.
const CORRUPT: u8 = 65;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The history: JSON lines, as docs/histories.md describes them; `-` for standard input.
    file: PathBuf,
    /// What it is held to: read_committed, snapshot, serializable or strict_serializable.
    #[arg(long, default_value_t = Level::default())]
    level: Level,
}

pub(crate) fn run(args: &Args, format: Format, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let history = read(args)?;
    let found = trandb_judge::judge(&history, args.level);
    print(&found, format, out)?;
    let count = |kind| history.events().iter().filter(|event| event.kind == kind).count();
    eprintln!(
        "{} transactions, {} committed and {} of unknown outcome: {}{}",
        count(Kind::Invoke),
        count(Kind::Ok),
        count(Kind::Info),
        if found.is_empty() { "" } else { "not " },
        args.level,
    );
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn read(args: &Args) -> Result<History, Failure> {
    let named = |error: Malformed| {
        let exit = if matches!(error, Malformed::Io(_)) { IO } else { CORRUPT };
        Failure::new(exit, format!("{}: {error}", args.file.display()))
    };
    if args.file.as_os_str() == "-" {
        return History::read(std::io::stdin().lock()).map_err(named);
    }
    let file = File::open(&args.file).map_err(|error| named(error.into()))?;
    History::read(BufReader::new(file)).map_err(named)
}

fn print(found: &[Anomaly], format: Format, out: &mut dyn Write) -> std::io::Result<()> {
    match format {
        Format::Table => found.iter().try_for_each(|anomaly| writeln!(out, "{anomaly}")),
        Format::Json => {
            let anomaly = |anomaly: &Anomaly| json!({"anomaly": anomaly.name, "why": anomaly.message});
            output::print_json(&found.iter().map(anomaly).collect(), out)
        }
        Format::Csv => {
            let mut rows = Rows::new(&["anomaly", "why"]);
            for anomaly in found {
                rows.push(vec![json!(anomaly.name), json!(anomaly.message)]);
            }
            rows.print(format, out)
        }
    }
}
