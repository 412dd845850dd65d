//! The table that a run ends with.

use crate::settings;
use std::fmt::Display;
use std::time::Duration;

/// One line of a [`Figures`] table.
struct Line {
    name: String,
    value: String,
    limit: String,
    kept: bool,
    /// Whether a miss fails the run even when it is lenient.
    strict: bool,
}

/// What a run measured, and what it should have.
pub(crate) struct Figures {
    title: &'static str,
    lines: Vec<Line>,
}

impl Figures {
    /// An empty table.
    pub(crate) fn new(title: &'static str) -> Self {
        Self { title, lines: Vec::new() }
    }

    /// Something worth knowing that nothing is promised about.
    pub(crate) fn note(&mut self, name: impl Into<String>, value: impl Display) {
        self.push(name, value, String::new(), true, false);
    }

    /// A duration of at most `limit`.
    pub(crate) fn within(&mut self, name: impl Into<String>, value: Duration, limit: Duration) {
        self.push(name, format_args!("{value:.1?}"), format!("<= {limit:?}"), value <= limit, false);
    }

    /// A number of at most `limit`.
    pub(crate) fn at_most(&mut self, name: impl Into<String>, value: f64, limit: f64) {
        self.push(name, format_args!("{value:.1}"), format!("<= {limit}"), value <= limit, false);
    }

    /// What safety demands: no machine is an excuse.
    pub(crate) fn must<T: Display + PartialEq>(&mut self, name: impl Into<String>, value: T, wanted: T) {
        let kept = value == wanted;
        self.push(name, value, format!("= {wanted}"), kept, true);
    }

    /// The median, the 99th percentile and the longest of `samples`, of which the last two may have limits.
    pub(crate) fn spread(&mut self, name: &str, samples: &[Duration], p99: Option<Duration>) {
        let Some(spread) = Spread::of(samples) else {
            return self.push(name, "no samples", "some".to_owned(), false, true);
        };
        self.note(format!("{name}, samples"), samples.len());
        self.note(format!("{name}, p50"), format_args!("{:.1?}", spread.p50));
        match p99 {
            Some(limit) => self.within(format!("{name}, p99"), spread.p99, limit),
            None => self.note(format!("{name}, p99"), format_args!("{:.1?}", spread.p99)),
        }
        self.note(format!("{name}, max"), format_args!("{:.1?}", spread.max));
    }

    fn push(
        &mut self,
        name: impl Into<String>,
        value: impl Display,
        limit: String,
        kept: bool,
        strict: bool,
    ) {
        self.lines.push(Line { name: name.into(), value: value.to_string(), limit, kept, strict });
    }

    /// Prints the table and fails the run if something was missed.
    pub(crate) fn finish(self) {
        let name_width = self.lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0);
        let value_width = self.lines.iter().map(|line| line.value.chars().count()).max().unwrap_or(0);
        println!("\n{} ({})", self.title, settings::programs().display());
        for line in &self.lines {
            let verdict = match (line.limit.is_empty(), line.kept) {
                (true, _) => "",
                (false, true) => "kept",
                (false, false) => "MISSED",
            };
            let text = format!(
                "  {:name_width$}  {:>value_width$}  {:12} {verdict}",
                line.name, line.value, line.limit
            );
            println!("{}", text.trim_end());
        }
        let missed: Vec<&str> = self
            .lines
            .iter()
            .filter(|line| !line.kept && (line.strict || !settings::is_lenient()))
            .map(|line| line.name.as_str())
            .collect();
        assert!(missed.is_empty(), "missed: {}", missed.join(", "));
    }
}

/// Percentiles by rank: a percentile is a sample that was really seen.
pub(crate) struct Spread {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) max: Duration,
}

impl Spread {
    /// None of no samples.
    pub(crate) fn of(samples: &[Duration]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable();
        let max = *sorted.last()?;
        let rank = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1];
        Some(Self { p50: rank(50), p99: rank(99), max })
    }
}

#[test]
fn percentiles_are_by_rank() {
    let samples: Vec<Duration> = (1..=20).rev().map(Duration::from_millis).collect();
    let spread = Spread::of(&samples).expect("there are samples");
    let found = [spread.p50, spread.p99, spread.max].map(|found| found.as_millis());
    assert_eq!(found, [10, 20, 20]);
    assert!(Spread::of(&[]).is_none());
}

#[test]
fn a_missed_promise_fails_the_run() {
    let mut figures = Figures::new("safety");
    figures.must("lost", 0, 0);
    figures.finish();
    let mut figures = Figures::new("safety");
    figures.must("lost", 1, 0);
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| figures.finish()));
    assert!(failed.is_err());
}
