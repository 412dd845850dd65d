//! A few partitions, an oracle, and coordinators that go one step at a time.

use crate::shared::{self, PARTITIONS, Partitions, home};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use trandb_cluster::command::{Applied, Command, Condition, Write, WriteBatch, WriteOutcome};
use trandb_cluster::mvcc::Version;
use trandb_cluster::partition::PartitionState;
use trandb_cluster::txn::{Coordinator, Effects, Isolation, Plan, TxnApplied, TxnId, TxnStep};
use trandb_cluster::{EncodedKey, NodeId, PartitionId, Timestamp};

const KEYS: usize = 4;
const TXNS: usize = 4;

/// A fault that the judge must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    SkipReadValidation,
    PassIntents,
    CommitBeforePrepared,
    LeaveRefusedCommits,
    ForgetEarlierRun,
    LoseAnchor,
    ResolveLater,
}

/// What one statement saw.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) at: Timestamp,
    /// By key, what others had committed; what the transaction itself had written is left out.
    pub(crate) values: BTreeMap<usize, Option<u64>>,
}

#[derive(Debug)]
pub(crate) struct Txn {
    pub(crate) name: String,
    /// When it began and ended, in steps of the schedule.
    pub(crate) started: usize,
    pub(crate) ended: usize,
    /// Its snapshot.
    pub(crate) began: Timestamp,
    pub(crate) committed: Option<Timestamp>,
    pub(crate) observed: Vec<Observed>,
    pub(crate) writes: BTreeMap<usize, Option<u64>>,
    /// A write of one key without a transaction, which overwrites whatever is there.
    pub(crate) is_plain: bool,
}

#[derive(Debug)]
pub(crate) struct History {
    pub(crate) isolation: Isolation,
    pub(crate) txns: Vec<Txn>,
    pub(crate) end: BTreeMap<usize, u64>,
    /// Transactions that still hold something after all was looked after.
    pub(crate) left: Vec<TxnId>,
    pub(crate) pushes: usize,
    pub(crate) dead: usize,
}

/// xorshift64*: enough to draw schedules.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Get(usize),
    Scan,
    Put(usize),
    Delete(usize),
}

/// Where a coordinator stands.
enum Stage {
    Running(VecDeque<Op>),
    Preparing { anchor: PartitionId, steps: VecDeque<(PartitionId, TxnStep)>, commit: TxnStep },
    Resolving { steps: VecDeque<(PartitionId, TxnStep)> },
    Over,
}

struct Runner {
    core: Coordinator,
    stage: Stage,
    others: Vec<PartitionId>,
    txn: Txn,
}

struct Plain {
    key: usize,
    value: u64,
    txn: Txn,
    done: bool,
}

struct Cluster {
    dice: Dice,
    partitions: Partitions,
    /// Per partition, its engine.
    engines: Vec<BTreeMap<(EncodedKey, Timestamp), Version>>,
    fault: Option<Fault>,
}

fn key(number: usize) -> EncodedKey {
    shared::key(&format!("k{number}"))
}

fn number(key: &EncodedKey) -> usize {
    usize::from(key.as_bytes()[5] - b'0')
}

fn value(bytes: &Bytes) -> u64 {
    u64::from_be_bytes(bytes[..].try_into().expect("eight bytes"))
}

impl Cluster {
    /// A read at `at`, as a partition's leader does it.
    fn read(&mut self, keys: &[EncodedKey], scan: bool, at: Timestamp) -> BTreeMap<usize, Option<u64>> {
        let mut found: BTreeMap<usize, Option<u64>> = keys.iter().map(|key| (number(key), None)).collect();
        if scan {
            let seen = self.partitions.scan((key(0), key(KEYS)), keys, at);
            found.extend(seen.into_iter().map(|(key, seen)| (number(&key), Some(value(&seen.value)))));
            return found;
        }
        for key in keys {
            found.insert(number(key), self.partitions.get(key, at).map(|found| value(&found.value)));
        }
        found
    }

    /// Aborts, unless an earlier run has committed.
    fn give_up(&mut self, anchor: PartitionId, abort: TxnStep) -> Option<Timestamp> {
        match self.partitions.send(anchor, abort) {
            TxnApplied::Committed(at) if self.fault != Some(Fault::ForgetEarlierRun) => Some(at),
            _ => None,
        }
    }

    /// A replica is made anew, from a checkpoint or from another one's snapshot.
    fn restart(&mut self, partition: usize) {
        let digest = self.partitions.states[partition].digest();
        let restored = if self.dice.one_in(2) {
            let state = &mut self.partitions.states[partition];
            let engine = &mut self.engines[partition];
            let header = state.begin_checkpoint();
            while let Some(puts) = state.checkpoint_puts(64) {
                engine.extend(puts.into_iter().map(|one| ((one.key, one.version.timestamp), one.version)));
            }
            drop(state.end_checkpoint(true));
            loop {
                let names = state.checkpoint_removes(3);
                if names.is_empty() {
                    break;
                }
                names.iter().for_each(|name| drop(engine.remove(name)));
            }
            let mut restore = PartitionState::restore_from_checkpoint(header);
            for ((key, _), version) in engine.iter() {
                restore
                    .add(trandb_cluster::mvcc::StoredVersion { key: key.clone(), version: version.clone() });
            }
            restore.finish()
        } else {
            let state = &mut self.partitions.states[partition];
            let header = state.pin_snapshot();
            let mut restore = PartitionState::restore_from_snapshot(header.clone());
            let mut cursor = None;
            loop {
                let (chunk, next) = state.snapshot_chunk(header.index, cursor.as_ref(), 64);
                chunk.into_iter().for_each(|one| restore.add(one));
                cursor = next;
                if cursor.is_none() {
                    break;
                }
            }
            self.engines[partition].clear();
            restore.finish()
        };
        let restored = restored.expect("restores");
        assert_eq!(restored.digest(), digest);
        assert_eq!(restored.recompute_digest(), digest);
        self.partitions.states[partition] = restored;
    }
}

impl Runner {
    fn step(&mut self, cluster: &mut Cluster, step: usize) {
        let txn = self.core.txn();
        match &mut self.stage {
            Stage::Running(ops) => match ops.pop_front() {
                Some(op) => self.op(cluster, op),
                None => self.begin_commit(cluster, step),
            },
            Stage::Preparing { anchor, steps, commit } => {
                let anchor = *anchor;
                if cluster.dice.one_in(8) {
                    cluster.partitions.send(anchor, TxnStep::Extend { txn, anchor });
                } else if let Some((partition, prepare)) = steps.pop_front() {
                    let answer = cluster.partitions.send(partition, prepare);
                    if answer != TxnApplied::Prepared {
                        let why = format!("{answer:?}");
                        let committed = cluster.give_up(anchor, TxnStep::Abort { txn, why });
                        self.resolve(committed, anchor, step, false);
                    }
                } else {
                    let commit = commit.clone();
                    self.commit(cluster, anchor, commit, step);
                }
            }
            Stage::Resolving { steps } => match steps.pop_front() {
                Some((partition, step)) => drop(cluster.partitions.send(partition, step)),
                None => self.stage = Stage::Over,
            },
            Stage::Over => {}
        }
    }

    fn op(&mut self, cluster: &mut Cluster, op: Op) {
        if self.core.wants_statement_snapshots() {
            self.core.set_statement_snapshot(cluster.partitions.timestamp());
        }
        let at = self.core.read_at();
        match op {
            Op::Get(at_key) => {
                let key = key(at_key);
                if self.core.own(&key).is_none() {
                    let values = cluster.read(std::slice::from_ref(&key), false, at);
                    self.core.saw(&key, at).expect("within bounds");
                    self.txn.observed.push(Observed { at, values });
                }
            }
            Op::Scan => {
                let all: Vec<EncodedKey> = (0..KEYS).map(key).collect();
                let mut values = cluster.read(&all, true, at);
                values.retain(|&number, _| self.core.own(&key(number)).is_none());
                self.core.saw_range(key(0), key(KEYS), at).expect("within bounds");
                self.txn.observed.push(Observed { at, values });
            }
            Op::Put(at_key) => {
                let new = cluster.partitions.timestamp().0;
                self.core
                    .write(key(at_key), Some(Bytes::copy_from_slice(&new.to_be_bytes())))
                    .expect("within bounds");
                self.txn.writes.insert(at_key, Some(new));
            }
            Op::Delete(at_key) => {
                self.core.write(key(at_key), None).expect("within bounds");
                self.txn.writes.insert(at_key, None);
            }
        }
    }

    fn begin_commit(&mut self, cluster: &mut Cluster, step: usize) {
        let all: Vec<PartitionId> = shared::all().collect();
        // The core asks by token, which a test cannot choose: keys are told apart by it.
        let plan = self
            .core
            .plan(|token| (0..KEYS).map(key).find(|key| key.token() == token).map(|key| home(&key)), &all)
            .expect("all keys have a home");
        let txn = self.core.txn();
        match plan {
            Plan::Nothing => {
                self.txn.committed = Some(self.core.read_at());
                self.end(step);
            }
            Plan::Commit { anchor, mut prepares, mut last } => {
                if cluster.fault == Some(Fault::SkipReadValidation) {
                    for effects in prepares.values_mut().flatten().chain([&mut last]) {
                        effects.reads.clear();
                        effects.ranges.clear();
                    }
                }
                if cluster.dice.one_in(3) {
                    // As if it did not all fit into one entry.
                    let (reads, ranges) = (std::mem::take(&mut last.reads), std::mem::take(&mut last.ranges));
                    let first = Effects { reads, ranges, writes: last.writes.split_off(1) };
                    if !first.is_empty() {
                        prepares.entry(anchor).or_default().push(first);
                    }
                }
                self.others = prepares.keys().copied().filter(|&partition| partition != anchor).collect();
                let (mut steps, commit) = shared::steps(txn, anchor, prepares, last);
                if cluster.dice.one_in(2) {
                    steps.make_contiguous().reverse();
                }
                if cluster.fault == Some(Fault::CommitBeforePrepared) {
                    self.commit(cluster, anchor, commit, step);
                    if let Stage::Resolving { steps: later } = &mut self.stage {
                        steps.into_iter().rev().for_each(|prepare| later.push_front(prepare));
                    }
                    return;
                }
                self.stage = Stage::Preparing { anchor, steps, commit };
            }
        }
    }

    /// All that is to be prepared has been.
    fn commit(&mut self, cluster: &mut Cluster, anchor: PartitionId, commit: TxnStep, step: usize) {
        let txn = self.core.txn();
        let later = cluster.fault == Some(Fault::ResolveLater);
        match cluster.partitions.commit(anchor, commit) {
            TxnApplied::Committed(at) => self.resolve(Some(at), anchor, step, later),
            TxnApplied::Aborted(_) => self.resolve(None, anchor, step, false),
            TxnApplied::Refused(conflict) => {
                if !self.others.is_empty() && !cluster.partitions.leave_refused {
                    cluster.give_up(anchor, TxnStep::Abort { txn, why: conflict.to_string() });
                }
                self.resolve(None, anchor, step, false);
            }
            other => panic!("a commit was answered with {other:?}"),
        }
    }

    fn resolve(&mut self, committed: Option<Timestamp>, anchor: PartitionId, step: usize, later: bool) {
        self.note(committed);
        self.end(step);
        let txn = self.core.txn();
        let at = committed.map(|at| if later { at.plus(1000) } else { at });
        let mut steps: VecDeque<_> =
            self.others.iter().map(|&other| (other, TxnStep::Resolve { txn, committed: at })).collect();
        if committed.is_some() && !self.others.is_empty() {
            steps.push_back((anchor, TxnStep::Finish { txn }));
        }
        self.stage = Stage::Resolving { steps };
    }

    /// An end that was told before does not change.
    fn note(&mut self, committed: Option<Timestamp>) {
        if self.txn.ended != usize::MAX {
            assert_eq!(self.txn.committed, committed, "{} ends twice", self.txn.name);
        }
        self.txn.committed = committed;
    }

    /// It is sent again under the same name, to a coordinator that knows nothing of it. One that reads nothing writes the
    /// same again.
    fn run_again(&mut self) {
        if !matches!(self.stage, Stage::Running(_)) {
            self.stage = Stage::Running(VecDeque::new());
        }
    }

    fn end(&mut self, step: usize) {
        self.txn.ended = self.txn.ended.min(step);
        self.stage = Stage::Over;
    }

    fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }
}

/// What a transaction does; only writes, if it is blind.
fn ops(dice: &mut Dice, blind: bool) -> VecDeque<Op> {
    (0..1 + dice.below(4))
        .map(|_| match if blind { 4 + dice.below(4) } else { dice.below(8) } {
            0 => Op::Scan,
            1..4 => Op::Get(dice.below(KEYS)),
            4 => Op::Delete(dice.below(KEYS)),
            _ => Op::Put(dice.below(KEYS)),
        })
        .collect()
}

/// Runs one schedule.
pub(crate) fn run(seed: u64, isolation: Isolation, fault: Option<Fault>) -> History {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for _ in 0..8 {
        dice.below(2);
    }
    let mut cluster = Cluster {
        dice,
        partitions: Partitions {
            pass_intents: fault == Some(Fault::PassIntents),
            leave_refused: fault == Some(Fault::LeaveRefusedCommits),
            ..Partitions::default()
        },
        engines: vec![BTreeMap::new(); PARTITIONS],
        fault,
    };
    // Blind ones are named long before they begin.
    let mut waiting: Vec<(VecDeque<Op>, Option<Timestamp>)> = (0..TXNS)
        .map(|_| {
            let name = cluster.partitions.timestamp();
            let blind = cluster.dice.one_in(5).then_some(name);
            (ops(&mut cluster.dice, blind.is_some()), blind)
        })
        .collect();
    let mut runners: Vec<Runner> = Vec::new();
    let mut plain: Option<Plain> = None;
    let (mut over, mut left_alone): (Vec<Txn>, Vec<Runner>) = (Vec::new(), Vec::new());
    let (mut step, mut dead) = (0, 0);
    while !(waiting.is_empty() && runners.is_empty()) {
        step += 1;
        let choice = cluster.dice.below(20);
        if choice == 0 {
            let partition = cluster.dice.below(PARTITIONS);
            cluster.restart(partition);
        } else if choice == 1 && !cluster.partitions.sent.is_empty() {
            // A message comes once more, perhaps long after.
            let which = cluster.dice.below(cluster.partitions.sent.len());
            let (partition, again) = cluster.partitions.sent[which].clone();
            cluster.partitions.send(partition, again);
        } else if choice == 2 && plain.is_none() {
            let (key, value) = (cluster.dice.below(KEYS), cluster.partitions.timestamp().0);
            let txn = new_txn("plain".into(), step, Timestamp::ZERO, true);
            plain = Some(Plain { key, value, txn, done: false });
        } else if choice < 5 && plain.as_ref().is_some_and(|plain| !plain.done) {
            let plain = plain.as_mut().expect("just seen");
            write_plain(&mut cluster, plain, step);
        } else if !waiting.is_empty() && (runners.is_empty() || choice < 8) {
            let (ops, blind) = waiting.pop().expect("just seen");
            let now = cluster.partitions.timestamp();
            let id = TxnId { begin: blind.unwrap_or(now), node: NodeId(1) };
            let read_at = if blind.is_some() { Timestamp::MAX } else { now };
            let core = Coordinator::new(id, isolation, false, read_at);
            let txn = new_txn(id.to_string(), step, read_at, false);
            runners.push(Runner { core, stage: Stage::Running(ops), others: Vec::new(), txn });
        } else if !runners.is_empty() {
            let which = cluster.dice.below(runners.len());
            if cluster.dice.one_in(40) {
                // Its coordinator dies.
                dead += 1;
                if runners[which].txn.began == Timestamp::MAX && cluster.dice.one_in(2) {
                    runners[which].run_again();
                } else {
                    left_alone.push(runners.swap_remove(which));
                }
                continue;
            }
            runners[which].step(&mut cluster, step);
            if runners[which].is_over() {
                over.push(runners.swap_remove(which).txn);
            }
        }
    }
    if fault == Some(Fault::LoseAnchor) {
        cluster.partitions.states[0] = PartitionState::new();
    }
    cluster.partitions.tend();
    for runner in left_alone {
        let mut txn = runner.txn;
        txn.ended = usize::MAX;
        if txn.committed.is_none() {
            txn.committed = inquire(&mut cluster, runner.core.txn());
        }
        over.push(txn);
    }
    if let Some(mut plain) = plain {
        while !plain.done {
            write_plain(&mut cluster, &mut plain, step);
        }
        over.push(plain.txn);
    }
    cluster.partitions.tend();
    for txn in over.iter_mut().filter(|txn| txn.began == Timestamp::MAX) {
        // What read nothing has its snapshot where it commits.
        txn.began = txn.committed.map_or(Timestamp::ZERO, |at| Timestamp(at.0 - 1));
    }
    let all: Vec<EncodedKey> = (0..KEYS).map(key).collect();
    let now = cluster.partitions.timestamp();
    let end = cluster.read(&all, false, now);
    History {
        isolation,
        txns: over,
        end: end.into_iter().filter_map(|(key, value)| Some((key, value?))).collect(),
        left: cluster.partitions.states.iter().flat_map(|state| state.held().map(|by| by.txn)).collect(),
        pushes: cluster.partitions.pushes,
        dead,
    }
}

fn new_txn(name: String, started: usize, began: Timestamp, is_plain: bool) -> Txn {
    Txn {
        name,
        started,
        ended: usize::MAX,
        began,
        committed: None,
        observed: Vec::new(),
        writes: BTreeMap::new(),
        is_plain,
    }
}

/// Tries a write without a transaction.
fn write_plain(cluster: &mut Cluster, plain: &mut Plain, step: usize) {
    let key = key(plain.key);
    let partition = home(&key);
    let value = Some(Bytes::copy_from_slice(&plain.value.to_be_bytes()));
    let timestamp = cluster.partitions.timestamp();
    let writes = vec![Write { key, value, condition: Condition::Any }];
    let batch = WriteBatch { timestamp, gc_floor: Timestamp::ZERO, writes };
    let state = cluster.partitions.state(partition);
    let index = state.applied() + 1;
    match state.apply(index, Command::Write(batch)) {
        Applied::Writes(outcomes) => match outcomes[0] {
            WriteOutcome::Done { version, .. } => {
                plain.txn.committed = Some(version);
                plain.txn.writes.insert(plain.key, Some(plain.value));
                plain.txn.ended = step;
                plain.done = true;
            }
            WriteOutcome::Blocked(_) => {}
            WriteOutcome::ConditionFailed { .. } => panic!("it has no condition"),
        },
        other => panic!("a write was answered with {other:?}"),
    }
}

/// Asks every partition, as a stranger does.
fn inquire(cluster: &mut Cluster, txn: TxnId) -> Option<Timestamp> {
    let mut committed = None;
    for partition in shared::all() {
        match cluster.partitions.send(partition, TxnStep::Inquire { txn }) {
            TxnApplied::Committed(at) => committed = Some(at),
            TxnApplied::Aborted(_) => {}
            other => panic!("an inquiry after all leases was answered with {other:?}"),
        }
    }
    committed
}
