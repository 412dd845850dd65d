//! What is read of a transaction that is known to be committed, before its resolution and after.

use bytes::Bytes;
use proptest::prelude::*;
use trandb_cluster::command::{Command, Condition, Write, WriteBatch};
use trandb_cluster::partition::PartitionState;
use trandb_cluster::txn::{Effects, Prepare, TxnEntry, TxnPut, TxnStep};
use trandb_cluster::{EncodedKey, KeyspaceId, NodeId, PartitionId, Timestamp, TxnId};

const KEYS: u8 = 4;

/// A key, and its new value; none deletes.
type Put = (u8, Option<u8>);

fn key(number: u8) -> EncodedKey {
    EncodedKey::from_parts(KeyspaceId::DEFAULT, &[number])
}

fn value(of: Option<u8>) -> Option<Bytes> {
    of.map(|byte| Bytes::from(vec![byte]))
}

fn put() -> impl Strategy<Value = Put> {
    (0..KEYS, proptest::option::of(any::<u8>()))
}

/// A log of one partition: each entry takes ten timestamps.
#[derive(Default)]
struct Log(Vec<Command>);

impl Log {
    fn now(&self) -> Timestamp {
        Timestamp(1000 + 10 * self.0.len() as u64)
    }

    fn write(&mut self, (number, new): Put) {
        let writes = vec![Write { key: key(number), value: value(new), condition: Condition::Any }];
        let (timestamp, gc_floor) = (self.now(), Timestamp::ZERO);
        self.0.push(Command::Write(WriteBatch { timestamp, gc_floor, writes }));
    }

    fn step(&mut self, step: TxnStep) {
        let (timestamp, gc_floor) = (self.now(), Timestamp::ZERO);
        self.0.push(Command::Txn(TxnEntry { timestamp, gc_floor, steps: vec![step] }));
    }

    fn applied(&self) -> PartitionState {
        let mut state = PartitionState::new();
        for (at, command) in self.0.iter().enumerate() {
            state.apply(at as u64 + 1, command.clone());
        }
        state
    }
}

fn txn() -> TxnId {
    TxnId { begin: Timestamp(1000), node: NodeId(1) }
}

fn prepare(part: u32, puts: &[Put]) -> TxnStep {
    let write = |(number, new): &Put| TxnPut { key: key(*number), value: value(*new), since: Timestamp::MAX };
    let effects = Effects { writes: puts.iter().map(write).collect(), ..Effects::default() };
    TxnStep::Prepare(Prepare { txn: txn(), anchor: PartitionId(7), part, effects })
}

proptest! {
    /// Whatever was written before, in how many parts it was prepared, and also where it was resolved before, others have
    /// written since, and a late message prepares it once more.
    #[test]
    fn a_decided_get_is_the_get_after_the_resolution(
        before in proptest::collection::vec(put(), 0..6),
        puts in proptest::collection::btree_map(0..KEYS, proptest::option::of(any::<u8>()), 0..=KEYS as usize),
        first in 0..=KEYS as usize,
        since in proptest::option::of(proptest::collection::vec(put(), 0..6)),
    ) {
        let mut log = Log::default();
        before.into_iter().for_each(|put| log.write(put));
        let puts: Vec<Put> = puts.into_iter().collect();
        let parts = puts.split_at(first.min(puts.len()));
        let prepare_all = |log: &mut Log| {
            log.step(prepare(0, parts.0));
            log.step(prepare(1, parts.1));
        };
        prepare_all(&mut log);
        let committed = log.now();
        let resolve = TxnStep::Resolve { txn: txn(), committed: Some(committed) };
        if let Some(since) = since {
            log.step(resolve.clone());
            since.into_iter().for_each(|put| log.write(put));
            prepare_all(&mut log);
        }
        let decided = log.applied();
        log.step(resolve);
        let resolved = log.applied();
        for number in 0..KEYS {
            let key = key(number);
            prop_assert_eq!(decided.intent(&key).is_some(), decided.is_intended_known(&key));
            for at in (990..log.now().0 + 10).map(Timestamp).chain([Timestamp::MAX]) {
                prop_assert_eq!(decided.get_decided(&key, at, committed), resolved.get(&key, at), "{} at {:?}", number, at);
            }
        }
    }
}

#[test]
fn what_is_one_of_very_many_is_not_looked_for() {
    let many = |count: u16| {
        let put = |number: u16| TxnPut {
            key: EncodedKey::from_parts(KeyspaceId::DEFAULT, &number.to_be_bytes()),
            value: value(Some(1)),
            since: Timestamp::MAX,
        };
        let effects = Effects { writes: (0..count).map(put).collect(), ..Effects::default() };
        let mut log = Log::default();
        log.step(TxnStep::Prepare(Prepare { txn: txn(), anchor: PartitionId(7), part: 0, effects }));
        log.applied().is_intended_known(&put(count - 1).key)
    };
    assert!(many(256));
    assert!(!many(257));
}
