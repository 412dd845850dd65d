//! `get`, `put`, `del`, `exists`, `scan`, on the cluster or within the open transaction of a session.

use super::args::{Format, Global};
use super::failure::{FAILED, Failure};
use super::output::{self, Rows};
use super::place::Place;
use serde_json::{Value, json};
use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;
use trandb_client::{Condition, Entry, ScanRequest, Timestamp, Written};
use trandb_cluster::limits::{SCAN_PAGE_ENTRIES_DEFAULT, SCAN_PAGE_ENTRIES_MAX, VALUE_BYTES_MAX};

#[derive(clap::Args)]
pub(crate) struct Get {
    /// The key.
    pub(crate) key: String,
    /// Read as of this version.
    #[arg(long, value_name = "VERSION")]
    pub(crate) at: Option<Timestamp>,
    /// Lock the key until the transaction ends, then read its newest value; only within one.
    #[arg(long, conflicts_with = "at")]
    pub(crate) for_update: bool,
}

pub(crate) async fn get(
    args: Get,
    global: &Global,
    place: Place<'_>,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let Some(found) = place.get(&args).await? else { return Err(absent(&args.key)) };
    match global.output {
        Format::Table => {
            out.write_all(&found.value)?;
            // A file or a program gets exactly the value; a person gets it on a line of its own.
            if global.in_lines || std::io::stdout().is_terminal() {
                writeln!(out)?;
            }
        }
        format => {
            let (name, value) = json_value(&found.value);
            let headings: &[&str] =
                if name == "value" { &["key", "value", "version"] } else { &["key", "value_hex", "version"] };
            let fields = vec![json!(args.key), value, output::version(found.version)];
            output::print_fields(headings, fields, format, out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(clap::Args)]
pub(crate) struct Put {
    /// The key.
    pub(crate) key: String,
    /// The value; `-` reads it from stdin.
    #[arg(allow_hyphen_values = true)]
    pub(crate) value: String,
    /// Only if the key's value has this version.
    #[arg(long, value_name = "VERSION", conflicts_with = "if_absent")]
    pub(crate) if_version: Option<Timestamp>,
    /// Only if the key has no value.
    #[arg(long)]
    pub(crate) if_absent: bool,
}

pub(crate) async fn put(
    args: Put,
    global: &Global,
    place: Place<'_>,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let value = match args.value.as_str() {
        "-" => {
            // One byte more than allowed, so that the client can refuse it by its size.
            let mut value = Vec::new();
            std::io::stdin().lock().take(VALUE_BYTES_MAX as u64 + 1).read_to_end(&mut value)?;
            value
        }
        _ => args.value.into_bytes(),
    };
    let condition = match (args.if_version, args.if_absent) {
        (Some(version), _) => Condition::Version(version),
        (None, true) => Condition::Absent,
        (None, false) => Condition::Any,
    };
    written(place.put_if(&args.key, value, condition).await?, global, out)
}

#[derive(clap::Args)]
pub(crate) struct Del {
    /// The key.
    pub(crate) key: String,
    /// Only if the key's value has this version.
    #[arg(long, value_name = "VERSION")]
    pub(crate) if_version: Option<Timestamp>,
}

pub(crate) async fn del(
    args: Del,
    global: &Global,
    place: Place<'_>,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let condition = args.if_version.map_or(Condition::Any, Condition::Version);
    written(place.delete_if(&args.key, condition).await?, global, out)
}

#[derive(clap::Args)]
pub(crate) struct Exists {
    /// The key.
    pub(crate) key: String,
}

pub(crate) async fn exists(
    args: Exists,
    global: &Global,
    place: Place<'_>,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let Some(version) = place.exists(&args.key).await? else { return Err(absent(&args.key)) };
    match global.output {
        Format::Table => writeln!(out, "{}", output::text(&output::version(version)))?,
        format => {
            let fields = vec![json!(args.key), output::version(version)];
            output::print_fields(&["key", "version"], fields, format, out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(clap::Args)]
pub(crate) struct Scan {
    /// Only keys that start with this.
    #[arg(long, default_value = "")]
    pub(crate) prefix: String,
    /// Only keys at or after this.
    #[arg(long)]
    pub(crate) start: Option<String>,
    /// Only keys before this.
    #[arg(long)]
    pub(crate) end: Option<String>,
    /// Keys at the most.
    #[arg(long, default_value_t = SCAN_PAGE_ENTRIES_DEFAULT as u32, conflicts_with = "all",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// Leave the values out.
    #[arg(long)]
    pub(crate) keys_only: bool,
    /// Every key, however many.
    #[arg(long)]
    pub(crate) all: bool,
    /// Go on where an earlier scan stopped.
    #[arg(long, value_parser = output::unhex)]
    pub(crate) cursor: Option<bytes::Bytes>,
    /// Read as of this version.
    #[arg(long, value_name = "VERSION")]
    pub(crate) at: Option<Timestamp>,
}

pub(crate) async fn scan(
    args: Scan,
    global: &Global,
    place: Place<'_>,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let mut left = if args.all { usize::MAX } else { args.limit as usize };
    let mut request = ScanRequest {
        prefix: args.prefix.into_bytes().into(),
        start: args.start.map(|start| start.into_bytes().into()),
        end: args.end.map(|end| end.into_bytes().into()),
        cursor: args.cursor,
        at: args.at,
        keys_only: args.keys_only,
        ..ScanRequest::default()
    };
    let mut printer = Printer { format: global.output, keys_only: args.keys_only, entries: 0 };
    // Page by page, so that scanning everything takes no more memory than one page.
    loop {
        request.limit = left.min(SCAN_PAGE_ENTRIES_MAX) as u32;
        let page = place.scan(request.clone()).await?;
        left = left.saturating_sub(page.entries.len());
        printer.page(page.entries, out)?;
        match page.cursor {
            Some(cursor) if left > 0 => request.cursor = Some(cursor),
            cursor => {
                printer.end(out)?;
                if let Some(cursor) = cursor {
                    out.flush()?;
                    eprintln!("trandb: there is more: --all, or --cursor {}", output::hex(&cursor));
                }
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
}

/// Prints pages so that together they are one table, one JSON array, or one file of values.
struct Printer {
    format: Format,
    keys_only: bool,
    entries: usize,
}

impl Printer {
    fn page(&mut self, entries: Vec<Entry>, out: &mut dyn Write) -> std::io::Result<()> {
        let first = self.entries == 0;
        self.entries += entries.len();
        match self.format {
            Format::Json => {
                for (i, entry) in entries.iter().enumerate() {
                    write!(out, "{}", if first && i == 0 { "[\n  " } else { ",\n  " })?;
                    serde_json::to_writer(&mut *out, &self.object(entry))?;
                }
                Ok(())
            }
            Format::Csv => self.rows(&entries).print_csv(first, out),
            Format::Table if entries.is_empty() => Ok(()),
            Format::Table => self.rows(&entries).print_table(out),
        }
    }

    fn end(&self, out: &mut dyn Write) -> std::io::Result<()> {
        match self.format {
            Format::Json => writeln!(out, "{}", if self.entries == 0 { "[]" } else { "\n]" }),
            Format::Csv | Format::Table => Ok(()),
        }
    }

    fn rows(&self, entries: &[Entry]) -> Rows {
        let headings: &[&str] =
            if self.keys_only { &["key", "version"] } else { &["key", "value", "version"] };
        let mut rows = Rows::new(headings);
        for entry in entries {
            let (key, version) = (output::bytes(&entry.key), output::version(entry.version));
            rows.push(match self.keys_only {
                true => vec![key, version],
                false => vec![key, output::bytes(&entry.value), version],
            });
        }
        rows
    }

    fn object(&self, entry: &Entry) -> Value {
        let mut object =
            json!({ "key": output::bytes(&entry.key), "version": output::version(entry.version) });
        if !self.keys_only {
            let (name, value) = json_value(&entry.value);
            object[name] = value;
        }
        object
    }
}

/// Prints the new version. Within a transaction there is none before it commits.
fn written(written: Option<Written>, global: &Global, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    match global.output {
        Format::Table => written.map_or(Ok(()), |written| writeln!(out, "{}", written.version))?,
        format => {
            let version = written.map_or(Value::Null, |written| output::version(written.version));
            let previous = written.and_then(|written| written.previous).map_or(Value::Null, output::version);
            let fields = vec![version, previous];
            output::print_fields(&["version", "previous"], fields, format, out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A value's field in JSON: text where it is text, else hexadecimal under another name, so that nothing is lost.
fn json_value(value: &[u8]) -> (&'static str, Value) {
    match std::str::from_utf8(value) {
        Ok(text) => ("value", json!(text)),
        Err(_) => ("value_hex", json!(output::hex(value))),
    }
}

fn absent(key: &str) -> Failure {
    Failure::new(FAILED, format!("no value for key {key:?}"))
}
