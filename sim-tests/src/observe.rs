//! What nodes log, as facts about their inside: leaders by term, how often something was said, and the last lines
//! before a run stood still. Nodes need no hooks for this: what matters is logged with its fields.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tracing::Event;
use tracing::field::{Field, Visit};

/// Lines kept for a run that stands still.
const LAST_LINES: usize = 20;

/// Different lines counted; nodes have far fewer. At the limit: further ones are not counted.
const MESSAGES_MAX: usize = 1_000;

/// Listens to the log of all nodes. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Observer(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    counts: BTreeMap<String, u64>,
    /// Leaders of a group's term, by the nodes that say so.
    leaders: BTreeMap<(String, u64), Vec<String>>,
    last: VecDeque<String>,
}

impl Observer {
    /// How often something was logged.
    pub fn count(&self, message: &str) -> u64 {
        self.seen().counts.get(message).copied().unwrap_or_default()
    }

    /// All leaders that were seen of each group in each term.
    pub fn leaders(&self) -> BTreeMap<(String, u64), Vec<String>> {
        self.seen().leaders.clone()
    }

    /// What was logged last, oldest first.
    pub fn last_lines(&self) -> Vec<String> {
        self.seen().last.iter().cloned().collect()
    }

    /// A node has said something.
    pub fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut seen = self.seen();
        if seen.counts.len() < MESSAGES_MAX || seen.counts.contains_key(&fields.message) {
            *seen.counts.entry(fields.message.clone()).or_default() += 1;
        }
        if fields.message == "leader seen"
            && let (Some(partition), Some(term), Some(leader)) =
                (fields.get("partition"), fields.get("term"), fields.get("leader"))
            && let Ok(term) = term.parse()
        {
            let leaders = seen.leaders.entry((partition, term)).or_default();
            if !leaders.contains(&leader) {
                leaders.push(leader);
            }
        }
        if seen.last.len() >= LAST_LINES {
            seen.last.pop_front();
        }
        seen.last.push_back(format!("{} {} {:?}", event.metadata().target(), fields.message, fields.rest));
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An event's fields as text.
#[derive(Default)]
struct Fields {
    message: String,
    rest: Vec<(&'static str, String)>,
}

impl Fields {
    fn get(&self, name: &str) -> Option<String> {
        self.rest.iter().find(|(field, _)| *field == name).map(|(_, value)| value.clone())
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.rest.push((name, format!("{value:?}"))),
        }
    }
}
