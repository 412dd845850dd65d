//! `txn`: what became of a transaction; and what the REPL says about the one it has open.

use super::args::{Format, Global};
use super::failure::{Failure, USAGE};
use super::output;
use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;
use trandb_client::{Client, Isolation, Timestamp, Txn, TxnId, TxnOptions, TxnOutcome};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Print what became of a transaction, which is kept for up to 24 hours. One that nobody knows can never be committed
    /// afterwards.
    Outcome {
        /// Its id, as `begin` prints it.
        id: TxnId,
    },
}

pub(crate) async fn run(
    command: Command,
    global: &Global,
    client: &Client,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let Command::Outcome { id } = command;
    let (name, timestamp, reason) = match client.outcome(id).await? {
        TxnOutcome::Open => ("open", Value::Null, Value::Null),
        TxnOutcome::Committed(at) => ("committed", output::version(at), Value::Null),
        TxnOutcome::Aborted(reason) => ("aborted", Value::Null, json!(reason)),
        TxnOutcome::Unknown => ("unknown", Value::Null, Value::Null),
    };
    let fields = vec![json!(id.to_string()), json!(name), timestamp, reason];
    output::print_fields(&["id", "outcome", "timestamp", "reason"], fields, global.output, out)?;
    Ok(ExitCode::SUCCESS)
}

/// The options that the words after `begin` stand for.
pub(crate) fn options(words: &[String]) -> Result<TxnOptions, Failure> {
    let text = words.join("_").to_ascii_lowercase().replace('-', "_");
    let (isolation, read_only) = match text.strip_suffix("read_only") {
        Some(rest) => (rest.trim_end_matches('_'), true),
        None => (text.as_str(), false),
    };
    let isolation = if isolation.is_empty() { Ok(Isolation::default()) } else { self::isolation(isolation) };
    let isolation = isolation.map_err(|_| {
        let wanted = "begin [read_committed|snapshot|serializable] [read only]";
        Failure::new(USAGE, format!("not `begin {}` but {wanted}", words.join(" ")))
    })?;
    Ok(TxnOptions { isolation, read_only, ..TxnOptions::default() })
}

/// An isolation level by any of its names.
pub(crate) fn isolation(name: &str) -> Result<Isolation, String> {
    match name {
        "serializable" => Ok(Isolation::Serializable),
        "snapshot" | "repeatable_read" => Ok(Isolation::Snapshot),
        "read_committed" | "read_uncommitted" => Ok(Isolation::ReadCommitted),
        _ => Err(format!("{name} is none of read_committed, snapshot, serializable")),
    }
}

/// Prints a transaction's name.
pub(crate) fn begun(txn: &Txn, global: &Global, out: &mut dyn Write) -> std::io::Result<()> {
    match global.output {
        Format::Table => writeln!(out, "{}", txn.id()),
        format => {
            let fields = vec![json!(txn.id().to_string()), output::version(txn.read_at())];
            output::print_fields(&["id", "read_at"], fields, format, out)
        }
    }
}

/// Prints the version of all that was written.
pub(crate) fn committed(at: Timestamp, global: &Global, out: &mut dyn Write) -> std::io::Result<()> {
    match global.output {
        Format::Table => writeln!(out, "{at}"),
        format => output::print_fields(&["timestamp"], vec![output::version(at)], format, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_after_begin_are_options() {
        let of = |text: &str| {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            options(&words).map(|options| (options.isolation.name(), options.read_only))
        };
        for (text, wanted) in [
            ("", ("serializable", false)),
            ("read only", ("serializable", true)),
            ("snapshot", ("snapshot", false)),
            ("REPEATABLE READ read-only", ("snapshot", true)),
            ("read committed", ("read_committed", false)),
            ("read_committed read only", ("read_committed", true)),
        ] {
            assert_eq!(of(text).expect(text), wanted, "{text}");
        }
        for text in ["read", "only", "chaos", "snapshot please", "read only snapshot"] {
            let failure = of(text).expect_err(text);
            assert_eq!(failure.exit, USAGE);
            assert!(failure.message.starts_with(&format!("not `begin {text}`")), "{}", failure.message);
        }
    }
}
