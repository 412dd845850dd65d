//! Everything that nodes, their network and the simulation itself say, to whoever listens. One subscriber for all of
//! them, since who wants an event depends on its target and level alone, and spans are of no use here: a stack of
//! layers with a filter each took a seventh of a run's time.

use crate::entries::Entries;
use crate::net::READS;
use crate::observe::Observer;
use crate::trace::Trace;
use std::fmt::{self, Write};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, SetGlobalDefaultError};
use tracing::{Event, Level, Metadata, Subscriber};
use trandb_runtime::raft::witness::ENTRIES;

/// Targets of what is part of the trace from the level of information on.
const TRACED: [&str; 4] = ["trandb_actors", "trandb_runtime", "trandb_client", "trandb_sim"];

/// Who listens.
pub struct Listeners {
    /// Hears of every message, and what nodes log.
    pub trace: Trace,
    /// Hears what nodes log, debugging included.
    pub observer: Observer,
    /// Hears of every entry.
    pub entries: Entries,
    /// What nodes log from this level on is shown on standard error.
    pub shown: Option<Level>,
}

impl Listeners {
    /// Listens to this process from now on: a simulation is the only thing that runs in it.
    ///
    /// # Errors
    /// When something else does already.
    pub fn start(self) -> Result<(), SetGlobalDefaultError> {
        tracing::subscriber::set_global_default(self)
    }

    fn is_shown(&self, of: &Metadata<'_>) -> bool {
        let most =
            if of.target().starts_with("trandb") { self.shown } else { self.shown.and(Some(Level::ERROR)) };
        most.is_some_and(|most| *of.level() <= most)
    }
}

fn is_traced(of: &Metadata<'_>) -> bool {
    let target = of.target();
    target.starts_with("turmoil")
        || target == READS
        || *of.level() <= Level::INFO && TRACED.iter().any(|traced| target.starts_with(traced))
}

fn is_observed(of: &Metadata<'_>) -> bool {
    *of.level() <= Level::DEBUG && of.target().starts_with("trandb")
}

fn is_entry(of: &Metadata<'_>) -> bool {
    of.target() == ENTRIES
}

impl Subscriber for Listeners {
    fn register_callsite(&self, of: &'static Metadata<'static>) -> Interest {
        if self.enabled(of) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, of: &Metadata<'_>) -> bool {
        !of.is_span() && (is_traced(of) || is_observed(of) || is_entry(of) || self.is_shown(of))
    }

    fn event(&self, event: &Event<'_>) {
        let of = event.metadata();
        if is_entry(of) {
            self.entries.event(event);
            return;
        }
        if is_traced(of) {
            self.trace.event(event);
        }
        if is_observed(of) {
            self.observer.event(event);
        }
        if self.is_shown(of) {
            let mut line = Shown::default();
            event.record(&mut line);
            eprintln!("{:>5} {}:{}", of.level(), of.target(), line.0);
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// An event's fields as people read them.
#[derive(Default)]
struct Shown(String);

impl Visit for Shown {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
