//! Transactions as a history for the judges: what each read and wrote, and how it ended. What its workloads share.

use super::Board;
use crate::history::now;
use std::cell::RefCell;
use trandb_client::{Client, Error, ErrorCode, Isolation, Txn, TxnOptions};
use trandb_judge::{Event, History, Kind, Level, Micro, Seen, judge};

/// Violations that are told; one cause shows in many.
const TOLD_MAX: usize = 5;

/// A history under way.
pub(super) struct Record {
    board: Board,
    isolation: Isolation,
    level: Level,
    history: RefCell<History>,
    processes: RefCell<u64>,
    numbers: RefCell<i64>,
}

/// A step that a transaction is to take.
pub(super) enum Step {
    /// Reads a list.
    List(String),
    /// Reads a register.
    Register(String),
    /// Adds a number that is nowhere else to a list.
    Append(String),
    /// Writes such a number to a register.
    Write(String),
}

impl Record {
    /// Of transactions of this level, whatever the database calls what it promises for it.
    pub(super) fn new(board: Board, isolation: Isolation) -> Self {
        let level = match isolation {
            Isolation::Serializable => Level::StrictSerializable,
            Isolation::Snapshot => Level::Snapshot,
            Isolation::ReadCommitted => Level::ReadCommitted,
        };
        Self {
            board,
            isolation,
            level,
            history: RefCell::default(),
            processes: RefCell::new(0),
            numbers: RefCell::new(0),
        }
    }

    /// A number that no transaction has written yet.
    fn number(&self) -> i64 {
        *self.numbers.borrow_mut() += 1;
        *self.numbers.borrow()
    }

    /// A process that has nothing under way. One whose last transaction has an unknown end may still have.
    pub(super) fn process(&self) -> u64 {
        *self.processes.borrow_mut() += 1;
        *self.processes.borrow()
    }

    /// Runs one transaction; answers the process for the next one.
    pub(super) async fn run(&self, client: &Client, process: u64, steps: Vec<Step>) -> u64 {
        let begun: Vec<Micro> = steps.into_iter().map(|step| self.plan(step)).collect();
        let read_only = begun.iter().all(|micro| matches!(micro, Micro::Read(..)));
        let options = TxnOptions { isolation: self.isolation, read_only, ..TxnOptions::default() };
        self.note(Kind::Invoke, process, begun.iter().map(blank).collect());
        let mut done = Vec::new();
        let result = attempt(client, options, &begun, &mut done).await;
        match result {
            Ok(()) => self.note(Kind::Ok, process, done),
            Err(error) if matches!(error.code, ErrorCode::Unknown | ErrorCode::Internal) => {
                self.note(Kind::Info, process, begun.iter().map(blank).collect());
                return self.process();
            }
            Err(_) => self.note(Kind::Fail, process, begun.iter().map(blank).collect()),
        }
        process
    }

    /// What a step will be; reads do not know yet what they will show, but which kind of thing.
    fn plan(&self, step: Step) -> Micro {
        match step {
            Step::List(key) => Micro::Read(key, Seen::List(Vec::new())),
            Step::Register(key) => Micro::Read(key, Seen::Nothing),
            Step::Append(key) => Micro::Append(key, self.number()),
            Step::Write(key) => Micro::Write(key, self.number()),
        }
    }

    fn note(&self, kind: Kind, process: u64, value: Vec<Micro>) {
        let event = Event::new(kind, process, now().as_nanos() as u64, value);
        self.history.borrow_mut().push(event).expect("each client runs one transaction at a time");
    }

    /// What the level forbids and is there all the same.
    pub(super) fn violations(&self, name: &str) -> Vec<String> {
        let found = judge(&self.history.borrow(), self.level);
        found.iter().take(TOLD_MAX).map(|anomaly| format!("{name}: {anomaly}")).collect()
    }

    /// What the client and the scenario share.
    pub(super) fn board(&self) -> &Board {
        &self.board
    }
}

/// A step as it stands where it has shown nothing yet.
fn blank(micro: &Micro) -> Micro {
    match micro {
        Micro::Read(key, _) => Micro::Read(key.clone(), Seen::Nothing),
        other => other.clone(),
    }
}

async fn attempt(
    client: &Client,
    options: TxnOptions,
    steps: &[Micro],
    done: &mut Vec<Micro>,
) -> Result<(), Error> {
    // What was not sent to commit surely never does: an error before that says nothing about the outcome.
    let before = |error: Error| Error { code: ErrorCode::Unavailable, ..error };
    let txn = client.begin_with(options).await.map_err(before)?;
    for step in steps {
        done.push(take(&txn, step).await.map_err(before)?);
    }
    txn.commit().await.map(drop)
}

async fn take(txn: &Txn, step: &Micro) -> Result<Micro, Error> {
    match step {
        Micro::Read(key, kind) => {
            let found = txn.get(key).await?.map(|found| numbers(&found.value));
            let seen = match (kind, found) {
                (_, None) => Seen::Nothing,
                (Seen::List(_), Some(numbers)) => Seen::List(numbers),
                (_, Some(numbers)) => Seen::Number(numbers[0]),
            };
            return Ok(Micro::Read(key.clone(), seen));
        }
        Micro::Append(key, number) => {
            let mut list = txn.get(key).await?.map(|found| numbers(&found.value)).unwrap_or_default();
            list.push(*number);
            let text: Vec<String> = list.iter().map(i64::to_string).collect();
            txn.put(key, text.join(",")).await?;
        }
        Micro::Write(key, number) => txn.put(key, number.to_string()).await?,
    }
    Ok(step.clone())
}

/// What a key holds; what is no number is none that anybody wrote.
fn numbers(value: &[u8]) -> Vec<i64> {
    let text = String::from_utf8_lossy(value);
    text.split(',').map(|number| number.parse().unwrap_or(i64::MIN)).collect()
}
