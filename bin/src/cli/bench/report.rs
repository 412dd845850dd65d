//! What the generator saw, added up.

use super::Args;
use super::template::Kind;
use crate::cli::args::Format;
use crate::cli::output::{self, Rows};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;
use trandb_client::ErrorCode;

/// Longest latency told apart, in microseconds; anything above counts as this.
const LATENCY_US_MAX: u64 = 60_000_000;

/// Digits that are exact: one part in a hundred, and a few kilobytes per connection and kind.
const LATENCY_DIGITS: u8 = 2;

/// Counts and latencies, of one connection or of all.
pub(crate) struct Tally {
    latencies_us: [Histogram<u64>; Kind::ALL.len()],
    failed: [u64; Kind::ALL.len()],
    /// Transactions that lost a conflict: nobody's fault, so not among the failed.
    conflicts: [u64; Kind::ALL.len()],
    errors: BTreeMap<String, u64>,
    reconnects_failed: u64,
}

impl Default for Tally {
    fn default() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_US_MAX, LATENCY_DIGITS).expect("the bounds are in order")
        };
        Self {
            latencies_us: std::array::from_fn(|_| histogram()),
            failed: Default::default(),
            conflicts: Default::default(),
            errors: BTreeMap::new(),
            reconnects_failed: 0,
        }
    }
}

impl Tally {
    pub(crate) fn done(&mut self, kind: Kind, latency: Duration) {
        self.latencies_us[kind as usize].saturating_record(latency.as_micros() as u64);
    }

    pub(crate) fn failed(&mut self, kind: Kind, code: ErrorCode) {
        if code == ErrorCode::Conflict {
            self.conflicts[kind as usize] += 1;
            return;
        }
        self.failed[kind as usize] += 1;
        *self.errors.entry(code.to_string()).or_default() += 1;
    }

    /// Requests without an answer.
    pub(crate) fn lost(&mut self, count: u64, reason: &str) {
        if count > 0 {
            *self.errors.entry(reason.to_owned()).or_default() += count;
        }
    }

    pub(crate) fn reconnect_failed(&mut self) {
        self.reconnects_failed += 1;
    }

    /// How often what went wrong.
    pub(crate) fn errors(&self) -> &BTreeMap<String, u64> {
        &self.errors
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for kind in 0..Kind::ALL.len() {
            self.latencies_us[kind].add(&other.latencies_us[kind]).expect("all have the same bounds");
            self.failed[kind] += other.failed[kind];
            self.conflicts[kind] += other.conflicts[kind];
        }
        for (error, count) in &other.errors {
            *self.errors.entry(error.clone()).or_default() += count;
        }
        self.reconnects_failed += other.reconnects_failed;
    }
}

/// The result of a run.
pub(crate) struct Report {
    settings: Value,
    tally: Tally,
    length: Duration,
}

impl Report {
    pub(crate) fn new(args: &Args, addrs: &[String], tally: Tally, length: Duration) -> Self {
        let settings = json!({
            "addresses": addrs,
            "mix": Kind::ALL.map(|kind| format!("{}:{}", kind.name(), args.mix.share(kind))).join(","),
            "connections": args.connections,
            "pipeline": args.pipeline,
            "value_bytes": args.value_bytes,
            "keys": args.keys,
            "isolation": args.isolation.name(),
            "distribution": format!("{:?}", args.distribution).to_lowercase(),
            "rate": args.rate,
            "seconds": args.seconds,
            "threads": args.threads,
        });
        Self { settings, tally, length }
    }

    /// Whether anything was done at all.
    pub(crate) fn succeeded(&self) -> bool {
        self.tally.latencies_us.iter().any(|histogram| !histogram.is_empty())
    }

    pub(crate) fn print(&self, format: Format, out: &mut dyn Write) -> io::Result<()> {
        let rows = self.rows();
        match format {
            Format::Json => {
                let result = json!({
                    "settings": self.settings,
                    "results": rows.into_objects(),
                    "errors": self.tally.errors,
                    "reconnects_failed": self.tally.reconnects_failed,
                });
                output::print_json(&result, out)
            }
            Format::Csv => rows.print(format, out),
            Format::Table => {
                rows.print(format, out)?;
                for (error, count) in &self.tally.errors {
                    writeln!(out, "{count} times: {error}")?;
                }
                if self.tally.reconnects_failed > 0 {
                    writeln!(out, "{} attempts to connect again failed", self.tally.reconnects_failed)?;
                }
                Ok(())
            }
        }
    }

    fn rows(&self) -> Rows {
        let mut rows = Rows::new(&[
            "kind",
            "ops",
            "ops_per_second",
            "p50_us",
            "p95_us",
            "p99_us",
            "max_us",
            "errors",
            "conflicts",
            "aborted_percent",
        ]);
        let mut all = Tally::default();
        let mut kinds = 0;
        for kind in Kind::ALL {
            let (latencies_us, failed) =
                (&self.tally.latencies_us[kind as usize], self.tally.failed[kind as usize]);
            let conflicts = self.tally.conflicts[kind as usize];
            if latencies_us.is_empty() && failed == 0 && conflicts == 0 {
                continue;
            }
            kinds += 1;
            all.latencies_us[0].add(latencies_us).expect("all have the same bounds");
            all.failed[0] += failed;
            all.conflicts[0] += conflicts;
            rows.push(self.row(kind.name(), latencies_us, failed, conflicts));
        }
        if kinds != 1 {
            rows.push(self.row("all", &all.latencies_us[0], all.failed[0], all.conflicts[0]));
        }
        rows
    }

    fn row(&self, name: &str, latencies_us: &Histogram<u64>, failed: u64, conflicts: u64) -> Vec<Value> {
        let quantile = |quantile| json!(latencies_us.value_at_quantile(quantile));
        let per_second = latencies_us.len() as f64 / self.length.as_secs_f64();
        let decided = latencies_us.len() + conflicts;
        // Of those that were decided, to a tenth.
        let aborted_percent =
            (1000 * conflicts).checked_div(decided).map_or(0.0, |tenths| tenths as f64 / 10.0);
        vec![
            json!(name),
            json!(latencies_us.len()),
            json!(per_second.round() as u64),
            quantile(0.50),
            quantile(0.95),
            quantile(0.99),
            json!(latencies_us.max()),
            json!(failed),
            json!(conflicts),
            json!(aborted_percent),
        ]
    }
}
