//! The file format: one JSON object a line, as the checkers of the Jepsen family read it.
//!
//! ```text
//! {"type":"invoke","f":"txn","process":0,"time":1200,"value":[["r","x",null],["append","y",4]]}
//! {"type":"ok","f":"txn","process":0,"time":5300,"value":[["r","x",[1,2]],["append","y",4]]}
//! ```
//!
//! Each line begins or ends a transaction of a process, which has one at a time. `ok` means committed, `fail` surely
//! not, `info` that nobody knows. A key is a string or an integer. `["append",key,n]` adds to a list, `["w",key,n]`
//! overwrites a register, `["r",key,…]` shows a list, a register's number, or `null` for an absent key; before its end
//! a transaction has `null` for everything. Numbers are never written twice to one key. `time` is in nanoseconds and
//! informs people alone: what came before what is the order of the lines.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::collections::BTreeSet;
use std::io::{self, BufRead, Write};

/// Lines longer than this are refused.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// A step within a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Micro {
    /// Adds a number to the end of a list.
    Append(String, i64),
    /// Overwrites a register.
    Write(String, i64),
    /// Reads a list or a register.
    Read(String, Seen),
}

/// What a read showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// An absent key; nothing yet, as a transaction begins.
    Nothing,
    /// A list.
    List(Vec<i64>),
    /// A register.
    Number(i64),
}

impl Seen {
    /// All numbers in it.
    pub fn numbers(&self) -> &[i64] {
        match self {
            Self::Nothing => &[],
            Self::List(list) => list,
            Self::Number(number) => std::slice::from_ref(number),
        }
    }
}

impl Micro {
    /// The key it is about.
    pub fn key(&self) -> &str {
        match self {
            Self::Append(key, _) | Self::Write(key, _) | Self::Read(key, _) => key,
        }
    }
}

/// What a line says of its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It begins.
    Invoke,
    /// It is committed.
    Ok,
    /// It did nothing and never will.
    Fail,
    /// Nobody knows whether it is, or will be, committed.
    Info,
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What it says.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What is done: `txn`, always. Lines about other things are passed over.
    #[serde(default = "txn")]
    pub f: String,
    /// Who does it.
    pub process: u64,
    /// When, in nanoseconds since some beginning.
    #[serde(default)]
    pub time: u64,
    /// The steps, in their order.
    pub value: Vec<Micro>,
}

impl Event {
    /// A line about a transaction.
    pub fn new(kind: Kind, process: u64, time: u64, value: Vec<Micro>) -> Self {
        Self { kind, f: txn(), process, time, value }
    }
}

fn txn() -> String {
    "txn".to_owned()
}

/// Why a file is no history.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// It cannot be read.
    #[error("cannot read the history: {0}")]
    Io(#[from] io::Error),
    /// A line of it means nothing, and why.
    #[error("line {line}: {why}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// All lines of a run, in the order in which they happened.
#[derive(Debug, Default, Clone)]
pub struct History {
    events: Vec<Event>,
    /// Processes with a transaction under way.
    busy: BTreeSet<u64>,
}

impl History {
    /// Adds what has just happened. A process that begins must have nothing under way, one that ends must.
    pub fn push(&mut self, event: Event) -> Result<(), String> {
        let known = match event.kind {
            Kind::Invoke => self.busy.insert(event.process),
            Kind::Ok | Kind::Fail | Kind::Info => self.busy.remove(&event.process),
        };
        if !known {
            let state = if event.kind == Kind::Invoke { "a" } else { "no" };
            return Err(format!("process {} has {state} transaction under way", event.process));
        }
        self.events.push(event);
        Ok(())
    }

    /// The lines so far.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Reads a file of lines. Empty ones, and those about anything but transactions, are passed over.
    pub fn read(mut from: impl BufRead) -> Result<Self, Malformed> {
        let (mut history, mut text) = (Self::default(), String::new());
        for line in 1.. {
            text.clear();
            let wrong = |why| Malformed::Line { line, why };
            let length = io::Read::take(&mut from, LINE_BYTES_MAX).read_line(&mut text)?;
            if length == 0 {
                break;
            }
            if length as u64 == LINE_BYTES_MAX {
                return Err(wrong(format!("longer than {LINE_BYTES_MAX} bytes")));
            }
            if text.trim().is_empty() {
                continue;
            }
            let any: serde_json::Value =
                serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
            if any.get("f").is_some_and(|f| f != "txn") {
                continue;
            }
            let event = serde_json::from_value(any).map_err(|error| wrong(error.to_string()))?;
            history.push(event).map_err(wrong)?;
        }
        Ok(history)
    }

    /// Writes the lines.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        for event in &self.events {
            serde_json::to_writer(&mut to, event)?;
            to.write_all(b"\n")?;
        }
        to.flush()
    }
}

/// `[what, key, value]`, as it stands in a line.
#[derive(Serialize, Deserialize)]
struct Triple(String, Key, Option<Value>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Key {
    Text(String),
    Number(i64),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Value {
    Number(i64),
    List(Vec<i64>),
}

impl Serialize for Micro {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (what, value) = match self {
            Self::Append(_, number) => ("append", Some(Value::Number(*number))),
            Self::Write(_, number) => ("w", Some(Value::Number(*number))),
            Self::Read(_, Seen::Nothing) => ("r", None),
            Self::Read(_, Seen::List(list)) => ("r", Some(Value::List(list.clone()))),
            Self::Read(_, Seen::Number(number)) => ("r", Some(Value::Number(*number))),
        };
        Triple(what.to_owned(), Key::Text(self.key().to_owned()), value).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Micro {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Triple(what, key, value) = Triple::deserialize(deserializer)?;
        let key = match key {
            Key::Text(text) => text,
            Key::Number(number) => number.to_string(),
        };
        match (what.as_str(), value) {
            ("append", Some(Value::Number(number))) => Ok(Self::Append(key, number)),
            ("w", Some(Value::Number(number))) => Ok(Self::Write(key, number)),
            ("r", None) => Ok(Self::Read(key, Seen::Nothing)),
            ("r", Some(Value::List(list))) => Ok(Self::Read(key, Seen::List(list))),
            ("r", Some(Value::Number(number))) => Ok(Self::Read(key, Seen::Number(number))),
            ("append" | "w", _) => Err(de::Error::custom(format!("{what} of {key} has no number"))),
            _ => Err(de::Error::custom(format!("{what:?} is none of append, w and r"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"{"type":"invoke","f":"txn","process":0,"time":1,"value":[["r","x",null],["append","y",4]]}
{"type":"invoke","f":"txn","process":1,"time":2,"value":[["w","z",1],["r","z",null]]}
{"type":"ok","f":"txn","process":0,"time":3,"value":[["r","x",[1,2]],["append","y",4]]}
{"type":"info","f":"txn","process":1,"time":4,"value":[["w","z",1],["r","z",1]]}
"#;

    fn refused(text: &str) -> String {
        History::read(text.as_bytes()).expect_err("it must be refused").to_string()
    }

    #[test]
    fn what_is_read_is_written_the_same() {
        let history = History::read(LINES.as_bytes()).expect("a history");
        assert_eq!(history.events().len(), 4);
        assert_eq!(history.events()[2].value[0], Micro::Read("x".into(), Seen::List(vec![1, 2])));
        let mut written = Vec::new();
        history.write(&mut written).expect("into memory");
        assert_eq!(String::from_utf8(written).expect("text"), LINES);
    }

    #[test]
    fn keys_may_be_integers_and_other_lines_are_passed_over() {
        let lines = r#"
{"type":"info","f":"kill","process":"nemesis","value":"n1"}

{"type":"invoke","process":7,"value":[["append",3,1]]}"#;
        let history = History::read(lines.as_bytes()).expect("a history");
        assert_eq!(history.events(), [Event::new(Kind::Invoke, 7, 0, vec![Micro::Append("3".into(), 1)])]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_line() {
        assert!(refused("{\"type\":\"invoke\",\"process\":0,\"value\":[]}\nx").starts_with("line 2: "));
        let twice = r#"{"type":"invoke","process":0,"value":[]}"#;
        assert_eq!(refused(&format!("{twice}\n{twice}")), "line 2: process 0 has a transaction under way");
        assert_eq!(
            refused(r#"{"type":"ok","process":0,"value":[]}"#),
            "line 1: process 0 has no transaction under way"
        );
        let line = |value| refused(&format!(r#"{{"type":"invoke","process":0,"value":[{value}]}}"#));
        assert_eq!(line(r#"["append","x",null]"#), "line 1: append of x has no number");
        assert_eq!(line(r#"["cas","x",1]"#), "line 1: \"cas\" is none of append, w and r");
    }
}
