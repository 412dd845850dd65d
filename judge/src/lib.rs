//! Judges of recorded histories: what clients asked of a database and what they were told, and whether a database that
//! keeps its promises could have told them so.
//!
//! Nothing here knows how TranDB works. A judge reads a [`History`] and names the anomalies in it; which of them a
//! history may show is a matter of its [`Level`]. Three steps lead there:
//!
//! 1. what a single read gives away: values nobody wrote, of a transaction that was refused, or of the middle of one;
//! 2. the order of each key's versions, as far as the reads tell it;
//! 3. a graph of who must come before whom, in which a cycle is an anomaly, named after the kinds of its edges.
//!
//! After A. Adya, "Weak Consistency" (1999), and K. Kingsbury, P. Alvaro, "Elle: Inferring Isolation Anomalies from
//! Experimental Observations" (VLDB 2020), whose file format histories share.

#![warn(missing_docs)]

mod cycles;
mod graph;
mod history;
mod level;
mod lists;
mod recorder;
mod registers;
mod seen;
mod transactions;
mod versions;

pub use history::{Event, History, Kind, Malformed, Micro, Seen};
pub use level::Level;
pub use lists::{Lists, list_from_value, list_to_value};
pub use recorder::Recorder;

use std::fmt;

/// One thing in a history that should not be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anomaly {
    /// Its name in the literature: `G0`, `G1a`, `G-single`, `lost-update`, with `-realtime` behind it where only the
    /// clock on the wall shows it.
    pub name: &'static str,
    /// Which transactions, and why.
    pub message: String,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.message)
    }
}

/// All anomalies that are found in a history, one example of each kind of cycle, whether or not a level allows them.
/// A cycle that says no more than a worse one that was found is left out.
///
/// Where transactions write registers without having read them, the order of versions is not wholly known: such a
/// history may hold anomalies that nobody can see. Lists hide nothing, if somebody reads all of them at the end, nor do
/// registers that are read before they are written.
pub fn anomalies(history: &History) -> Vec<Anomaly> {
    let run = transactions::Run::of(history);
    let mut found = seen::anomalies(&run);
    found.extend(registers::anomalies(&run));
    let (edges, of_versions) = versions::edges(&run);
    found.extend(of_versions);
    found.extend(cycles::anomalies(&run, edges));
    found
}

/// The anomalies of a history that a level forbids; empty if the history is one of it, as far as can be seen.
pub fn judge(history: &History, level: Level) -> Vec<Anomaly> {
    anomalies(history).into_iter().filter(|anomaly| level.forbids(anomaly.name)).collect()
}
