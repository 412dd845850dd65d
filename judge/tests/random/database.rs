//! A toy database with as many faults as one likes, whose clients do random things.

use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fmt;
use trandb_judge::{Event, History, Kind, Micro, Seen};

const KEYS: [&str; 2] = ["x", "y"];

/// What the database promises, or fails to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// Transactions are done at once.
    Serial,
    /// Snapshots, and the first to commit wins.
    Snapshots,
    /// Snapshots that may be old.
    OldSnapshots,
    /// Snapshots, and the last to commit wins.
    LostUpdates,
    /// Reads of what is committed.
    ReadCommitted,
    /// Reads of anything.
    Nothing,
}

/// What histories are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    Lists,
    /// Read before they are written.
    Registers,
    /// One step to a transaction.
    SingleRegisters,
}

/// How a run of it goes: everything else follows from the choices.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) keeps: Keeps,
    pub(crate) holds: Holds,
    pub(crate) transactions: usize,
    choices: Vec<u8>,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {:?}", self.keeps, self.holds)
    }
}

pub(crate) fn plans(transactions: usize, holds: impl Strategy<Value = Holds>) -> impl Strategy<Value = Plan> {
    use Keeps::{LostUpdates, Nothing, OldSnapshots, ReadCommitted, Serial, Snapshots};
    let keeps =
        prop::sample::select(vec![Serial, Snapshots, OldSnapshots, LostUpdates, ReadCommitted, Nothing]);
    let choices = prop::collection::vec(any::<u8>(), 16 * transactions);
    (keeps, holds, choices).prop_map(move |(keeps, holds, choices)| Plan {
        keeps,
        holds,
        transactions,
        choices,
    })
}

type State = BTreeMap<&'static str, Vec<i64>>;

struct Open {
    steps: Vec<Micro>,
    next: usize,
    snapshot: State,
    /// How many had committed when it began.
    began: usize,
    own: Vec<(&'static str, i64)>,
}

impl Open {
    /// What it read, as nobody is told.
    fn forget(&mut self) {
        for step in &mut self.steps {
            if let Micro::Read(_, seen) = step {
                *seen = Seen::Nothing;
            }
        }
    }
}

struct Database {
    plan: Plan,
    at: usize,
    number: i64,
    /// The state after each commit, and who wrote which keys in it.
    states: Vec<State>,
    wrote: Vec<Vec<&'static str>>,
    /// What is written and not committed.
    dirty: Vec<(&'static str, i64)>,
}

impl Database {
    /// The next choice among that many.
    fn choose(&mut self, among: usize) -> usize {
        let choice = self.plan.choices.get(self.at).copied().unwrap_or(self.at as u8);
        self.at += 1;
        usize::from(choice) % among
    }

    fn key(&mut self) -> &'static str {
        KEYS[self.choose(KEYS.len())]
    }

    fn write(&mut self) -> Vec<Micro> {
        let key = self.key();
        self.number += 1;
        match self.plan.holds {
            Holds::Lists => vec![Micro::Append(key.into(), self.number)],
            Holds::SingleRegisters => vec![Micro::Write(key.into(), self.number)],
            Holds::Registers => {
                vec![Micro::Read(key.into(), Seen::Nothing), Micro::Write(key.into(), self.number)]
            }
        }
    }

    fn steps(&mut self) -> Vec<Micro> {
        let count = if self.plan.holds == Holds::SingleRegisters { 1 } else { 1 + self.choose(3) };
        let mut steps = Vec::new();
        for _ in 0..count {
            match self.choose(2) {
                0 => steps.push(Micro::Read(self.key().into(), Seen::Nothing)),
                _ => steps.extend(self.write()),
            }
        }
        steps
    }

    fn begin(&mut self) -> Open {
        let newest = self.states.len() - 1;
        let began = match self.plan.keeps {
            Keeps::OldSnapshots => newest - self.choose(newest.min(2) + 1),
            _ => newest,
        };
        Open { steps: self.steps(), next: 0, snapshot: self.states[began].clone(), began, own: Vec::new() }
    }

    fn step(&mut self, open: &mut Open) {
        let mut state = match self.plan.keeps {
            Keeps::Snapshots | Keeps::OldSnapshots | Keeps::LostUpdates => open.snapshot.clone(),
            Keeps::Serial | Keeps::ReadCommitted | Keeps::Nothing => self.states.last().expect("one").clone(),
        };
        if self.plan.keeps == Keeps::Nothing {
            for (key, number) in &self.dirty {
                state.entry(key).or_default().push(*number);
            }
        } else {
            for (key, number) in &open.own {
                state.entry(key).or_default().push(*number);
            }
        }
        let lists = self.plan.holds == Holds::Lists;
        match &mut open.steps[open.next] {
            Micro::Read(key, seen) => {
                *seen = match state.remove(key.as_str()) {
                    None => Seen::Nothing,
                    Some(list) if lists => Seen::List(list),
                    Some(versions) => versions.last().map_or(Seen::Nothing, |last| Seen::Number(*last)),
                };
            }
            Micro::Append(key, number) | Micro::Write(key, number) => {
                let key = KEYS.into_iter().find(|known| known == key).expect("one of them");
                open.own.push((key, *number));
                self.dirty.push((key, *number));
            }
        }
        open.next += 1;
    }

    fn forget(&mut self, open: &Open) {
        self.dirty.retain(|written| !open.own.contains(written));
    }

    /// Whether it may.
    fn commit(&mut self, open: &Open) -> bool {
        let overwritten = |written: &Vec<&'static str>| open.own.iter().any(|(key, _)| written.contains(key));
        let first = !self.wrote[open.began + 1..].iter().any(overwritten);
        if !first && matches!(self.plan.keeps, Keeps::Snapshots | Keeps::OldSnapshots) {
            return false;
        }
        let mut state = self.states.last().expect("one").clone();
        for (key, _) in &open.own {
            if self.plan.keeps == Keeps::LostUpdates {
                state.insert(key, open.snapshot.get(key).cloned().unwrap_or_default());
            }
        }
        for (key, number) in &open.own {
            state.entry(key).or_default().push(*number);
        }
        self.states.push(state);
        self.wrote.push(open.own.iter().map(|(key, _)| *key).collect());
        true
    }
}

/// Runs a plan with three clients.
pub(crate) fn run(plan: Plan) -> History {
    let mut history = History::default();
    let transactions = plan.transactions;
    let mut database = Database {
        plan,
        at: 0,
        number: 0,
        states: vec![State::new()],
        wrote: vec![Vec::new()],
        dirty: Vec::new(),
    };
    let mut clients: BTreeMap<u64, Open> = BTreeMap::new();
    let (mut begun, mut renamed) = (0, [0, 1, 2]);
    while begun < transactions || !clients.is_empty() {
        let client = database.choose(renamed.len());
        let process = renamed[client];
        let push = |history: &mut History, kind, steps: &[Micro]| {
            history
                .push(Event::new(kind, process, 0, steps.to_vec()))
                .expect("processes do one thing at a time");
        };
        let Some(mut open) = clients.remove(&process) else {
            if begun < transactions {
                begun += 1;
                let open = database.begin();
                push(&mut history, Kind::Invoke, &open.steps);
                clients.insert(process, open);
            }
            continue;
        };
        let at_once = database.plan.keeps == Keeps::Serial;
        while open.next < open.steps.len() {
            database.step(&mut open);
            if !at_once {
                break;
            }
        }
        if !at_once && open.next < open.steps.len() {
            clients.insert(process, open);
            continue;
        }
        let fate = database.choose(8);
        let kind = match fate {
            0 => Kind::Fail,
            // Done or not, nobody is told.
            1 | 2 if fate == 1 || database.commit(&open) => Kind::Info,
            3.. if database.commit(&open) => Kind::Ok,
            _ => Kind::Fail,
        };
        database.forget(&open);
        if kind != Kind::Ok {
            open.forget();
        }
        push(&mut history, kind, &open.steps);
        if kind == Kind::Info {
            renamed[client] += 3;
        }
    }
    // What nobody has seen nobody can order.
    if database.plan.holds == Holds::SingleRegisters {
        return history;
    }
    let mut last = database.begin();
    last.steps = KEYS.map(|key| Micro::Read(key.into(), Seen::Nothing)).to_vec();
    for kind in [Kind::Invoke, Kind::Ok] {
        history.push(Event::new(kind, 99, 0, last.steps.clone())).expect("it has done nothing before");
        while kind == Kind::Invoke && last.next < last.steps.len() {
            database.step(&mut last);
        }
    }
    history
}
