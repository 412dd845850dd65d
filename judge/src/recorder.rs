//! Writing a history down while it happens.

use crate::history::{Event, History, Kind, Micro, Seen};
use std::collections::BTreeMap;

/// What clients do, noted line by line. A client whose transaction ended in the unknown goes on as another process, for
/// the old one may still be at it.
#[derive(Debug, Default)]
pub struct Recorder {
    history: History,
    /// What each client goes by now.
    names: BTreeMap<usize, u64>,
    processes: u64,
}

impl Recorder {
    /// Notes that a client's transaction begins: its steps with nothing read yet. Times are in nanoseconds.
    ///
    /// # Panics
    /// If its last one has not ended.
    pub fn begin(&mut self, client: usize, time: u64, steps: &[Micro]) {
        let process = *self.names.entry(client).or_insert_with(|| {
            self.processes += 1;
            self.processes - 1
        });
        self.push(Event::new(Kind::Invoke, process, time, blank(steps)));
    }

    /// Notes that it is committed, and what it read.
    ///
    /// # Panics
    /// If it has not begun.
    pub fn committed(&mut self, client: usize, time: u64, steps: Vec<Micro>) {
        self.push(Event::new(Kind::Ok, self.names[&client], time, steps));
    }

    /// Notes that it surely did nothing and never will.
    ///
    /// # Panics
    /// If it has not begun.
    pub fn failed(&mut self, client: usize, time: u64, steps: &[Micro]) {
        self.push(Event::new(Kind::Fail, self.names[&client], time, blank(steps)));
    }

    /// Notes that nobody knows what became of it.
    ///
    /// # Panics
    /// If it has not begun.
    pub fn unknown(&mut self, client: usize, time: u64, steps: &[Micro]) {
        let process = self.names.remove(&client).expect("it has begun");
        self.push(Event::new(Kind::Info, process, time, blank(steps)));
    }

    /// All so far.
    pub fn history(&self) -> &History {
        &self.history
    }

    fn push(&mut self, event: Event) {
        self.history.push(event).expect("a client does one thing at a time");
    }
}

/// What was read before the end is nobody's business: it may never have been so.
fn blank(steps: &[Micro]) -> Vec<Micro> {
    let blank = |step: &Micro| match step {
        Micro::Read(key, _) => Micro::Read(key.clone(), Seen::Nothing),
        step => step.clone(),
    };
    steps.iter().map(blank).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_ended_in_the_unknown_goes_on_under_another_name() {
        let mut recorder = Recorder::default();
        let steps = [Micro::Read("x".into(), Seen::Number(1)), Micro::Write("x".into(), 2)];
        recorder.begin(0, 1, &steps);
        recorder.begin(1, 2, &steps);
        recorder.unknown(0, 3, &steps);
        recorder.begin(0, 4, &steps);
        recorder.committed(0, 5, steps.to_vec());
        recorder.failed(1, 6, &steps);
        let mut text = Vec::new();
        recorder.history().write(&mut text).expect("into memory");
        let lines = [
            r#"{"type":"invoke","f":"txn","process":0,"time":1,"value":[["r","x",null],["w","x",2]]}"#,
            r#"{"type":"invoke","f":"txn","process":1,"time":2,"value":[["r","x",null],["w","x",2]]}"#,
            r#"{"type":"info","f":"txn","process":0,"time":3,"value":[["r","x",null],["w","x",2]]}"#,
            r#"{"type":"invoke","f":"txn","process":2,"time":4,"value":[["r","x",null],["w","x",2]]}"#,
            r#"{"type":"ok","f":"txn","process":2,"time":5,"value":[["r","x",1],["w","x",2]]}"#,
            r#"{"type":"fail","f":"txn","process":1,"time":6,"value":[["r","x",null],["w","x",2]]}"#,
            "",
        ];
        assert_eq!(String::from_utf8(text).expect("text"), lines.join("\n"));
    }
}
