//! Transactions over two partitions, step by step: the protocol's paths, and every anomaly at every level.

use crate::args::next;
use crate::shared::{Partitions, all, home, key, steps};
use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command, Context};
use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use trandb_cluster::command::{Applied, Condition, Write, WriteBatch, WriteOutcome};
use trandb_cluster::txn::{Coordinator, Isolation, Plan, TxnApplied, TxnId, TxnStep};
use trandb_cluster::{EncodedKey, NodeId, PartitionId, Timestamp};

#[test]
fn transactions() {
    crate::run_all::<Runner>("transactions");
}

/// A coordinator, and the steps of its commit that are still to come.
struct Txn {
    core: Coordinator,
    anchor: Option<PartitionId>,
    others: Vec<PartitionId>,
    prepares: VecDeque<(PartitionId, TxnStep)>,
    /// Decides, when all that is above has prepared.
    commit: Option<TxnStep>,
    committed: Option<Timestamp>,
}

#[derive(Default)]
struct Runner {
    partitions: Partitions,
    isolation: Isolation,
    txns: BTreeMap<String, Txn>,
    /// Keys that were ever written.
    known: Vec<EncodedKey>,
    /// Timestamps in the order in which they were shown.
    shown: Vec<Timestamp>,
}

/// A value of which an entry of the log holds one.
const LARGE_BYTES: usize = 700 << 10;

fn text(value: &Bytes) -> String {
    if value.len() == LARGE_BYTES {
        return "large".to_owned();
    }
    String::from_utf8_lossy(value).into_owned()
}

fn level(name: &str) -> Result<Isolation, Box<dyn Error>> {
    let all = [Isolation::ReadCommitted, Isolation::Snapshot, Isolation::Serializable];
    all.into_iter().find(|level| level.name() == name).ok_or_else(|| format!("no level {name}").into())
}

impl Runner {
    /// `t1`, `t2`, … in the order in which scripts meet them.
    fn show(&mut self, timestamp: Timestamp) -> String {
        let at = self.shown.iter().position(|known| *known == timestamp).unwrap_or_else(|| {
            self.shown.push(timestamp);
            self.shown.len() - 1
        });
        format!("t{}", at + 1)
    }

    fn answer(&mut self, answer: TxnApplied) -> String {
        match answer {
            TxnApplied::Committed(at) => format!("committed at {}", self.show(at)),
            TxnApplied::Refused(conflict) => self.without_ids(&format!("refused: {conflict}")),
            TxnApplied::Aborted(why) => self.without_ids(&format!("aborted: {why}")),
            TxnApplied::Pushed(_) => "undecided".to_owned(),
            other => format!("{other:?}").to_lowercase(),
        }
    }

    /// Transactions by their names in the script, and timestamps that were shown as they were.
    fn without_ids(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (at, timestamp) in self.shown.iter().enumerate() {
            text = text.replace(&timestamp.to_string(), &format!("t{}", at + 1));
        }
        let replace =
            |text: String, (name, txn): (&String, &Txn)| text.replace(&txn.core.txn().to_string(), name);
        self.txns.iter().fold(text, replace)
    }

    fn txn(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<(String, &mut Txn), Box<dyn Error>> {
        let name: String = next(args)?;
        let txn = self.txns.get_mut(&name).ok_or_else(|| format!("{name} has not begun"))?;
        Ok((name, txn))
    }

    /// A blind one reads nothing, so that it has a name but no snapshot.
    fn begin(&mut self, name: String, isolation: Isolation, blind: bool) {
        let begin = self.partitions.timestamp();
        let id = TxnId { begin, node: NodeId(1) };
        let core = Coordinator::new(id, isolation, false, if blind { Timestamp::MAX } else { begin });
        let (others, prepares) = (Vec::new(), VecDeque::new());
        let txn = Txn { core, anchor: None, others, prepares, commit: None, committed: None };
        self.txns.insert(name, txn);
    }

    /// The timestamp at which the next statement of a transaction reads.
    fn statement(&mut self, name: &str) -> Timestamp {
        let now = self.partitions.timestamp();
        let core = &mut self.txns.get_mut(name).expect("it has begun").core;
        if core.wants_statement_snapshots() {
            core.set_statement_snapshot(now);
        }
        core.read_at()
    }

    fn get(&mut self, name: &str, of: &EncodedKey) -> Result<String, Box<dyn Error>> {
        let at = self.statement(name);
        let found = self.partitions.get(of, at).map(|found| text(&found.value));
        let core = &mut self.txns.get_mut(name).expect("it has begun").core;
        if let Some(own) = core.own(of) {
            return Ok(own
                .as_ref()
                .map_or("none, its own".to_owned(), |own| format!("{}, its own", text(own))));
        }
        core.saw(of, at)?;
        Ok(found.unwrap_or_else(|| "none".to_owned()))
    }

    fn scan(&mut self, name: &str) -> Result<String, Box<dyn Error>> {
        let at = self.statement(name);
        let range = || (key("a0"), key("zz"));
        let found = self.partitions.scan(range(), &self.known, at);
        let core = &mut self.txns.get_mut(name).expect("it has begun").core;
        let (start, end) = range();
        core.saw_range(start, end, at)?;
        let entries: Vec<String> = found
            .into_iter()
            .map(|(key, found)| format!("{}={}", text(&key.user_key()), text(&found.value)))
            .collect();
        Ok(if entries.is_empty() { "nothing".to_owned() } else { entries.join(" ") })
    }

    fn write(&mut self, name: &str, assignment: &str) -> Result<(), Box<dyn Error>> {
        let (of, value) = match assignment.split_once('=') {
            Some((of, value)) => (key(of), Some(Bytes::copy_from_slice(value.as_bytes()))),
            None => (key(assignment), None),
        };
        self.known.push(of.clone());
        Ok(self.txns.get_mut(name).ok_or("it has not begun")?.core.write(of, value)?)
    }

    /// Plans the commit, once. Whether there is something to do.
    fn plan(&mut self, name: &str) -> Result<bool, Box<dyn Error>> {
        let txn = self.txns.get_mut(name).ok_or("it has not begun")?;
        if txn.anchor.is_some() {
            return Ok(true);
        }
        let everywhere: Vec<PartitionId> = all().collect();
        let known = &self.known;
        let of = |token| known.iter().find(|key| key.token() == token).map(home).or(Some(PartitionId(0)));
        let id = txn.core.txn();
        match txn.core.plan(of, &everywhere).expect("all keys have a home") {
            Plan::Nothing => Ok(false),
            Plan::Commit { anchor, prepares, last } => {
                txn.anchor = Some(anchor);
                txn.others = prepares.keys().copied().filter(|partition| *partition != anchor).collect();
                let (prepares, commit) = steps(id, anchor, prepares, last);
                (txn.prepares, txn.commit) = (prepares, Some(commit));
                Ok(true)
            }
        }
    }

    /// Sends the next prepare: what it said, and whether to go on.
    fn prepare(&mut self, name: &str) -> Result<(String, bool), Box<dyn Error>> {
        let txn = self.txns.get_mut(name).ok_or("it has not begun")?;
        let (partition, step) = txn.prepares.pop_front().ok_or("all is prepared")?;
        let answer = self.partitions.send(partition, step);
        let go_on = answer == TxnApplied::Prepared;
        Ok((format!("in {partition}: {}\n", self.answer(answer)), go_on))
    }

    /// Has the anchor decide.
    fn decide(&mut self, name: &str) -> Result<String, Box<dyn Error>> {
        let txn = self.txns.get(name).ok_or("it has not begun")?;
        let anchor = txn.anchor.ok_or("it has no anchor")?;
        let step = txn.commit.clone().ok_or("it has no plan")?;
        let answer = self.partitions.commit(anchor, step);
        if let TxnApplied::Committed(at) = answer {
            self.txns.get_mut(name).expect("just seen").committed = Some(at);
        }
        Ok(format!("in {anchor}: {}\n", self.answer(answer)))
    }

    fn abort(&mut self, name: &str) -> Result<String, Box<dyn Error>> {
        let txn = self.txns.get(name).ok_or("it has not begun")?;
        let anchor = txn.anchor.ok_or("it has no anchor")?;
        let why = "its coordinator gave up".to_owned();
        let answer = self.partitions.send(anchor, TxnStep::Abort { txn: txn.core.txn(), why });
        Ok(format!("in {anchor}: {}\n", self.answer(answer)))
    }

    /// The coordinator is alive.
    fn extend(&mut self, name: &str) -> Result<String, Box<dyn Error>> {
        let txn = self.txns.get(name).ok_or("it has not begun")?;
        let anchor = txn.anchor.ok_or("it has no anchor")?;
        let answer = self.partitions.send(anchor, TxnStep::Extend { txn: txn.core.txn(), anchor });
        Ok(format!("in {anchor}: {}\n", self.answer(answer)))
    }

    fn resolve(&mut self, name: &str) -> Result<String, Box<dyn Error>> {
        let txn = self.txns.get(name).ok_or("it has not begun")?;
        let (id, committed) = (txn.core.txn(), txn.committed);
        let mut output = String::new();
        for other in txn.others.clone() {
            let answer = self.partitions.send(other, TxnStep::Resolve { txn: id, committed });
            output.push_str(&format!("in {other}: {}\n", self.answer(answer)));
        }
        Ok(output)
    }

    fn finish(&mut self, name: &str) -> Result<String, Box<dyn Error>> {
        let txn = self.txns.get(name).ok_or("it has not begun")?;
        let (id, anchor) = (txn.core.txn(), txn.anchor.ok_or("it has no anchor")?);
        let answer = self.partitions.send(anchor, TxnStep::Finish { txn: id });
        Ok(format!("in {anchor}: {}\n", self.answer(answer)))
    }

    /// All steps of a commit, as coordinators take them; just the outcome is shown.
    fn commit(&mut self, name: &str) -> Result<String, Box<dyn Error>> {
        if !self.plan(name)? {
            return Ok("committed, having written nothing".to_owned());
        }
        while !self.txns[name].prepares.is_empty() {
            let (said, go_on) = self.prepare(name)?;
            if !go_on {
                self.abort(name)?;
                self.resolve(name)?;
                return Ok(said);
            }
        }
        let said = self.decide(name)?;
        if self.txns[name].others.is_empty() {
            return Ok(said);
        }
        if self.txns[name].committed.is_none() {
            self.abort(name)?;
        }
        self.resolve(name)?;
        if self.txns[name].committed.is_some() {
            self.finish(name)?;
        }
        Ok(said)
    }

    fn plain(&mut self, assignment: &str) -> Result<String, Box<dyn Error>> {
        let (of, value) = assignment.split_once('=').ok_or("KEY=VALUE is wanted")?;
        let (of, value) = (key(of), Some(Bytes::copy_from_slice(value.as_bytes())));
        self.known.push(of.clone());
        let timestamp = self.partitions.timestamp();
        let partition = home(&of);
        let writes = vec![Write { key: of, value, condition: Condition::Any }];
        let batch = WriteBatch { timestamp, gc_floor: self.partitions.gc_floor, writes };
        let state = self.partitions.state(partition);
        let index = state.applied() + 1;
        match state.apply(index, trandb_cluster::command::Command::Write(batch)) {
            Applied::Writes(outcomes) => Ok(match &outcomes[0] {
                WriteOutcome::Done { version, .. } => format!("done at {}", self.show(*version)),
                WriteOutcome::Blocked(by) => self.without_ids(&format!("blocked by {}", by.txn)),
                other => format!("{other:?}"),
            }),
            other => Err(format!("{other:?}").into()),
        }
    }

    fn held(&self) -> String {
        let states = all().zip(&self.partitions.states);
        let held = states.flat_map(|(id, state)| state.held().map(move |by| format!("{} in {id}", by.txn)));
        let held: Vec<String> = held.map(|text| self.without_ids(&text)).collect();
        if held.is_empty() { "nothing".to_owned() } else { held.join("\n") }
    }
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let output = match command.name.as_str() {
            // A fresh cluster, and the level of those that begin in it. cluster LEVEL
            "cluster" => {
                *self = Self { isolation: level(&next::<String>(&mut args)?)?, ..Self::default() };
                String::new()
            }
            // begin TXN; name TXN for one that reads nothing, which may begin later
            "begin" | "name" => {
                self.begin(next(&mut args)?, self.isolation, command.name == "name");
                String::new()
            }
            // get TXN KEY
            "get" => {
                let (name, _) = self.txn(&mut args)?;
                self.get(&name, &key(&next::<String>(&mut args)?))?
            }
            // All keys there are. scan TXN
            "scan" => {
                let (name, _) = self.txn(&mut args)?;
                self.scan(&name)?
            }
            // put TXN "KEY=VALUE", or delete TXN KEY
            "put" | "delete" => {
                let (name, _) = self.txn(&mut args)?;
                self.write(&name, &next::<String>(&mut args)?)?;
                String::new()
            }
            // Writes a value of which an entry holds one. large TXN KEY
            "large" => {
                let (_, txn) = self.txn(&mut args)?;
                let of = key(&next::<String>(&mut args)?);
                txn.core.write(of.clone(), Some(vec![b'x'; LARGE_BYTES].into()))?;
                self.known.push(of);
                String::new()
            }
            // commit TXN
            "commit" => {
                let (name, _) = self.txn(&mut args)?;
                self.commit(&name)?
            }
            // The next prepare. prepare TXN
            "prepare" => {
                let (name, _) = self.txn(&mut args)?;
                self.plan(&name)?;
                self.prepare(&name)?.0
            }
            // decide TXN, abort TXN, extend TXN, resolve TXN, finish TXN
            "decide" => {
                let (name, _) = self.txn(&mut args)?;
                self.plan(&name)?;
                self.decide(&name)?
            }
            "abort" => {
                let (name, _) = self.txn(&mut args)?;
                self.plan(&name)?;
                self.abort(&name)?
            }
            "extend" => {
                let (name, _) = self.txn(&mut args)?;
                self.plan(&name)?;
                self.extend(&name)?
            }
            "resolve" => {
                let (name, _) = self.txn(&mut args)?;
                self.resolve(&name)?
            }
            "finish" => {
                let (name, _) = self.txn(&mut args)?;
                self.finish(&name)?
            }
            // What a stranger is told who asks everywhere. inquire TXN
            "inquire" => {
                let (_, txn) = self.txn(&mut args)?;
                let id = txn.core.txn();
                let ask = |partition| {
                    let mut answer = self.partitions.send(partition, TxnStep::Inquire { txn: id });
                    if let TxnApplied::Held { anchor, expires } = answer {
                        answer = self.partitions.send(anchor, TxnStep::Push { txn: id, expires });
                    }
                    format!("in {partition}: {}\n", self.answer(answer))
                };
                all().map(ask).collect()
            }
            // The last step comes once more.
            "again" => {
                let (partition, step) = self.partitions.sent.last().cloned().ok_or("nothing was sent")?;
                let answer = self.partitions.send(partition, step);
                format!("in {partition}: {}", self.answer(answer))
            }
            // A single read, or write, of the newest. read KEY, write "KEY=VALUE"
            "read" => {
                let now = self.partitions.timestamp();
                let found = self.partitions.get(&key(&next::<String>(&mut args)?), now);
                found.map_or("none".to_owned(), |found| text(&found.value))
            }
            "write" => self.plain(&next::<String>(&mut args)?)?,
            // Time passes for all leases.
            "expire" => {
                self.partitions.pass_lease();
                String::new()
            }
            // History up to now may be forgotten from the next entry on.
            "forget" => {
                self.partitions.gc_floor = self.partitions.timestamp();
                String::new()
            }
            // Leaders look after what is left.
            "tend" => {
                self.partitions.tend();
                String::new()
            }
            "held" => self.held(),
            other => return Err(format!("no command {other}").into()),
        };
        args.reject_next()?;
        Ok(output)
    }
}
