//! The oracle, with the system group's state as the log sees it.

use crate::args::{named, next, optional};
use goldenscript::{Command, Context};
use std::error::Error;
use trandb_cluster::Timestamp;
use trandb_cluster::oracle::{Grant, Oracle};
use trandb_cluster::system::{SystemApplied, SystemCommand, SystemState};

#[test]
fn oracle() {
    crate::run_all::<Runner>("oracle");
}

struct Runner {
    oracle: Oracle,
    /// What is replicated: it outlives leaders.
    state: SystemState,
    index: u64,
    /// The highest timestamp that any leader issued.
    issued: Timestamp,
}

impl Default for Runner {
    fn default() -> Self {
        Self { oracle: Oracle::new(1000), state: SystemState::default(), index: 0, issued: Timestamp::ZERO }
    }
}

/// `5ms`, or `5ms+3` for the third timestamp after its first.
fn show(timestamp: Timestamp) -> String {
    match timestamp.0 - Timestamp::from_millis(timestamp.millis()).0 {
        0 => format!("{}ms", timestamp.millis()),
        counter => format!("{}ms+{counter}", timestamp.millis()),
    }
}

impl Runner {
    fn reserve(&mut self, until: Timestamp) -> Result<(Timestamp, Timestamp), Box<dyn Error>> {
        self.index += 1;
        match self.state.apply(self.index, SystemCommand::ReserveTimestamps { until }) {
            SystemApplied::Reserved { from, until } => Ok((from, until)),
            other => Err(format!("{other:?}").into()),
        }
    }
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let output = match command.name.as_str() {
            // A leader that has applied an entry of its own term.
            "lead" => {
                self.oracle.lead(self.state.timestamp_window);
                format!("from {}", show(self.state.timestamp_window))
            }
            // The leader's process dies, and another one starts.
            "crash" => {
                self.oracle = Oracle::new(1000);
                String::new()
            }
            "retire" => {
                self.oracle.retire();
                String::new()
            }
            // grant NOW_MS [count=N]
            "grant" => {
                let now_ms = next(&mut args)?;
                let count = optional(&mut args, "count")?.unwrap_or(1);
                match self.oracle.grant(now_ms, count) {
                    Grant::Ready { first } => {
                        assert!(first > self.issued, "issued twice");
                        assert!(first >= Timestamp::from_millis(now_ms), "below the clock");
                        self.issued = first.plus(count - 1);
                        assert!(self.issued < self.state.timestamp_window, "not reserved");
                        if count == 1 {
                            show(first)
                        } else {
                            format!("{} to {}", show(first), show(self.issued))
                        }
                    }
                    Grant::Reserve { until } => format!("reserve until {}", show(until)),
                    Grant::NotLeader => "not the leader".to_owned(),
                }
            }
            // reserve UNTIL_MS: the leader's proposal is applied, and it hears of it.
            "reserve" => {
                let (from, until) = self.reserve(Timestamp::from_millis(next(&mut args)?))?;
                self.oracle.reserved(from, until);
                format!("{} to {}", show(from), show(until))
            }
            // apply UNTIL_MS: somebody's proposal is applied; this node's oracle does not hear of it.
            "apply" => {
                let (from, until) = self.reserve(Timestamp::from_millis(next(&mut args)?))?;
                format!("{} to {}", show(from), show(until))
            }
            // hear from=MS until=MS: an answer arrives late.
            "hear" => {
                let from = Timestamp::from_millis(named(&mut args, "from")?);
                self.oracle.reserved(from, Timestamp::from_millis(named(&mut args, "until")?));
                String::new()
            }
            "wants" => match self.oracle.wants_more(next(&mut args)?) {
                Some(until) => format!("until {}", show(until)),
                None => "nothing".to_owned(),
            },
            name => return Err(format!("no command {name}").into()),
        };
        args.reject_next()?;
        Ok(output)
    }
}
