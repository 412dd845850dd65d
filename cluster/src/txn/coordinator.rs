//! What a transaction's coordinator remembers until the commit, and how the commit is parted.
//!
//! Writes are buffered; reads are remembered as far as the isolation level wants them checked. The level turns into
//! *since* timestamps, key by key, which is all that partitions know of it:
//!
//! | level | a key that is written must not have changed since | a key or range that was read |
//! |---|---|---|
//! | read committed | any time (unless the write had a condition: since that was looked at) | is not checked |
//! | snapshot | the transaction's snapshot | is not checked |
//! | serializable | the transaction's snapshot | since it was read |
//!
//! A key that was read for an update is checked at every level, from that read on.

use super::{Effects, Isolation, ReadKey, ReadRange, TxnId, TxnPut};
use crate::error::Error;
use crate::ids::PartitionId;
use crate::key::{EncodedKey, Token};
use crate::limits::{BATCH_BYTES_MAX, BATCH_WRITES_MAX, TXN_BYTES_MAX, TXN_OPS_MAX};
use crate::timestamp::Timestamp;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;

/// How a transaction is to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// It wrote nothing: it is done as of its snapshot.
    Nothing,
    /// It wrote.
    Commit {
        /// Where it is decided: the first of the partitions that it writes in, so that of two that meet in the same two
        /// partitions one comes first in both.
        anchor: PartitionId,
        /// What each partition prepares before, in parts, one entry each; of the anchor, all parts but the last. Empty if
        /// one entry does it all.
        prepares: BTreeMap<PartitionId, Vec<Effects>>,
        /// The anchor's last part, which commits.
        last: Effects,
    },
}

/// A transaction that is open: what it has read and is going to write.
#[derive(Debug, Clone)]
pub struct Coordinator {
    txn: TxnId,
    isolation: Isolation,
    read_only: bool,
    read_at: Timestamp,
    reads: BTreeMap<EncodedKey, Timestamp>,
    ranges: Vec<ReadRange>,
    writes: BTreeMap<EncodedKey, Option<Bytes>>,
    /// Since when keys must not have changed, where that is not what the level says.
    since: BTreeMap<EncodedKey, Timestamp>,
    ops: usize,
    write_bytes: usize,
    read_bytes: usize,
}

impl Coordinator {
    /// One that reads at `read_at`; [`Timestamp::MAX`] for one that only writes: whatever is there, it is as of when it
    /// commits.
    pub fn new(txn: TxnId, isolation: Isolation, read_only: bool, read_at: Timestamp) -> Self {
        Self {
            txn,
            isolation,
            read_only,
            read_at,
            reads: BTreeMap::new(),
            ranges: Vec::new(),
            writes: BTreeMap::new(),
            since: BTreeMap::new(),
            ops: 0,
            write_bytes: 0,
            read_bytes: 0,
        }
    }

    /// The transaction.
    pub fn txn(&self) -> TxnId {
        self.txn
    }

    /// Its level.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Whether it writes nothing.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// What it reads at.
    pub fn read_at(&self) -> Timestamp {
        self.read_at
    }

    /// Whether it is going to write something.
    pub fn has_written(&self) -> bool {
        !self.writes.is_empty()
    }

    /// Whether each statement wants a snapshot of its own.
    pub fn wants_statement_snapshots(&self) -> bool {
        self.isolation == Isolation::ReadCommitted && !self.read_only
    }

    /// The next statement reads at `at`.
    pub fn set_statement_snapshot(&mut self, at: Timestamp) {
        self.read_at = self.read_at.max(at);
    }

    /// Counts an operation.
    ///
    /// # Errors
    /// `too_large` beyond [`TXN_OPS_MAX`].
    pub fn count_op(&mut self) -> Result<(), Error> {
        if self.ops == TXN_OPS_MAX {
            return Err(Error::too_large(format!("a transaction has at most {TXN_OPS_MAX} operations")));
        }
        self.ops += 1;
        Ok(())
    }

    /// What the transaction itself has made of a key: outer none if it has not written it.
    pub fn own(&self, key: &EncodedKey) -> Option<&Option<Bytes>> {
        self.writes.get(key)
    }

    /// Its own writes in a range.
    pub fn own_in(
        &self,
        start: &EncodedKey,
        end: &EncodedKey,
    ) -> impl Iterator<Item = (&EncodedKey, &Option<Bytes>)> {
        let end = end.max(start);
        self.writes.range((Bound::Included(start), Bound::Excluded(end)))
    }

    fn checks_reads(&self) -> bool {
        self.isolation == Isolation::Serializable && !self.read_only
    }

    fn count_read(&mut self, bytes: usize) -> Result<(), Error> {
        if self.read_bytes + bytes > TXN_BYTES_MAX {
            let limit = TXN_BYTES_MAX >> 20;
            return Err(Error::too_large(format!(
                "a transaction remembers at most {limit} MiB of what it read"
            )));
        }
        self.read_bytes += bytes;
        Ok(())
    }

    /// A key was read as of `at`.
    ///
    /// # Errors
    /// `too_large` beyond [`TXN_BYTES_MAX`].
    pub fn saw(&mut self, key: &EncodedKey, at: Timestamp) -> Result<(), Error> {
        if !self.checks_reads() || self.reads.contains_key(key) {
            return Ok(());
        }
        self.count_read(key.as_bytes().len() + 32)?;
        self.reads.insert(key.clone(), at);
        Ok(())
    }

    /// A key's newest version was read at `at`, for an update: from then on it must not change, whatever the level.
    ///
    /// # Errors
    /// As of [`Self::saw`].
    pub fn saw_for_update(&mut self, key: &EncodedKey, at: Timestamp) -> Result<(), Error> {
        // What was read of it before counts on, else it would have been read twice, differently.
        if self.reads.contains_key(key) || self.since.contains_key(key) {
            return Ok(());
        }
        self.count_read(2 * key.as_bytes().len() + 64)?;
        self.since.insert(key.clone(), at);
        self.reads.insert(key.clone(), at);
        Ok(())
    }

    /// A key was looked at for a write's condition.
    ///
    /// # Errors
    /// As of [`Self::saw`].
    pub fn looked_at(&mut self, key: &EncodedKey, at: Timestamp) -> Result<(), Error> {
        if self.isolation == Isolation::ReadCommitted && !self.since.contains_key(key) {
            self.count_read(key.as_bytes().len() + 32)?;
            self.since.insert(key.clone(), at);
        }
        self.saw(key, at)
    }

    /// A range was read.
    ///
    /// # Errors
    /// As of [`Self::saw`].
    pub fn saw_range(&mut self, start: EncodedKey, end: EncodedKey, at: Timestamp) -> Result<(), Error> {
        if !self.checks_reads() || end <= start {
            return Ok(());
        }
        let range = ReadRange { start, end, since: at };
        self.count_read(range.weight())?;
        // A scan's pages follow each other.
        match self.ranges.last_mut() {
            Some(last) if last.end >= range.start && last.start <= range.start && last.since == at => {
                last.end = range.end.max(last.end.clone());
            }
            _ => self.ranges.push(range),
        }
        Ok(())
    }

    /// Writes a key, or deletes it, when the transaction commits.
    ///
    /// # Errors
    /// `invalid` in a read-only transaction, `too_large` beyond [`TXN_BYTES_MAX`].
    pub fn write(&mut self, key: EncodedKey, value: Option<Bytes>) -> Result<(), Error> {
        if self.read_only {
            return Err(Error::invalid("the transaction is read only"));
        }
        let weight = |value: &Option<Bytes>| key.as_bytes().len() + value.as_ref().map_or(0, Bytes::len);
        let before = self.writes.get(&key).map_or(0, weight);
        let bytes = self.write_bytes - before + weight(&value);
        if bytes > TXN_BYTES_MAX {
            let limit = TXN_BYTES_MAX >> 20;
            return Err(Error::too_large(format!("a transaction writes at most {limit} MiB")));
        }
        self.write_bytes = bytes;
        self.writes.insert(key, value);
        Ok(())
    }

    /// How to commit. `partition_of` says where a key lives; a range is in all `partitions`.
    pub fn plan(
        &self,
        partition_of: impl Fn(Token) -> Option<PartitionId>,
        partitions: &[PartitionId],
    ) -> Option<Plan> {
        if self.writes.is_empty() {
            return Some(Plan::Nothing);
        }
        let mut effects: BTreeMap<PartitionId, Effects> = BTreeMap::new();
        for (key, &since) in &self.reads {
            let read = ReadKey { key: key.clone(), since };
            effects.entry(partition_of(key.token())?).or_default().reads.push(read);
        }
        if !self.ranges.is_empty() {
            for partition in partitions {
                effects.entry(*partition).or_default().ranges.clone_from(&self.ranges);
            }
        }
        let level = match self.isolation {
            Isolation::ReadCommitted => Timestamp::MAX,
            Isolation::Snapshot | Isolation::Serializable => self.read_at,
        };
        for (key, value) in &self.writes {
            let since = self.since.get(key).copied().unwrap_or(level);
            let write = TxnPut { key: key.clone(), value: value.clone(), since };
            effects.entry(partition_of(key.token())?).or_default().writes.push(write);
        }
        let writes = effects.iter().find(|(_, effects)| !effects.writes.is_empty());
        let anchor = *writes.expect("there is a write").0;
        let mut prepares: BTreeMap<PartitionId, Vec<Effects>> =
            effects.into_iter().map(|(partition, effects)| (partition, cut(effects))).collect();
        let parts = prepares.get_mut(&anchor)?;
        let last = parts.pop()?;
        if parts.is_empty() {
            prepares.remove(&anchor);
        }
        Some(Plan::Commit { anchor, prepares, last })
    }
}

/// Cuts what one partition has to do into entries of a bounded size.
fn cut(effects: Effects) -> Vec<Effects> {
    let mut cut = Vec::new();
    let mut part = Effects::default();
    let (mut count, mut bytes) = (0, 0);
    let mut room = |part: &mut Effects, cut: &mut Vec<Effects>, weight: usize| {
        if count > 0 && (count == BATCH_WRITES_MAX || bytes + weight > BATCH_BYTES_MAX) {
            cut.push(std::mem::take(part));
            (count, bytes) = (0, 0);
        }
        count += 1;
        bytes += weight;
    };
    for write in effects.writes {
        room(&mut part, &mut cut, write.weight());
        part.writes.push(write);
    }
    for read in effects.reads {
        room(&mut part, &mut cut, read.key.as_bytes().len() + 32);
        part.reads.push(read);
    }
    for range in effects.ranges {
        room(&mut part, &mut cut, range.weight());
        part.ranges.push(range);
    }
    if !part.is_empty() {
        cut.push(part);
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{KeyspaceId, NodeId};

    fn key(text: &str) -> EncodedKey {
        EncodedKey::from_parts(KeyspaceId::DEFAULT, text.as_bytes())
    }

    fn open(isolation: Isolation) -> Coordinator {
        Coordinator::new(TxnId { begin: Timestamp(10), node: NodeId(1) }, isolation, false, Timestamp(10))
    }

    const ALL: [PartitionId; 2] = [PartitionId(1), PartitionId(2)];

    fn by_parity(token: Token) -> Option<PartitionId> {
        Some(ALL[(token.0 % 2) as usize])
    }

    fn planned(txn: &Coordinator) -> (BTreeMap<PartitionId, Vec<Effects>>, Effects) {
        match txn.plan(by_parity, &ALL) {
            Some(Plan::Commit { prepares, last, .. }) => (prepares, last),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_anchor_is_the_first_partition_that_is_written_in() {
        let in_partition = |wanted: PartitionId| {
            (0..)
                .map(|number: u32| key(&number.to_string()))
                .find(|key| by_parity(key.token()) == Some(wanted))
        };
        let [one, two] = ALL.map(|partition| in_partition(partition).expect("there is one"));
        for keys in [[&one, &two], [&two, &one]] {
            let mut txn = open(Isolation::Snapshot);
            for key in keys {
                txn.write(key.clone(), None).expect("within bounds");
            }
            let Some(Plan::Commit { anchor, prepares, .. }) = txn.plan(by_parity, &ALL) else { panic!() };
            assert_eq!((anchor, prepares.into_keys().collect::<Vec<_>>()), (ALL[0], vec![ALL[1]]));
        }
        let mut txn = open(Isolation::Serializable);
        txn.saw(&one, Timestamp(10)).expect("within bounds");
        txn.write(two, None).expect("within bounds");
        let Some(Plan::Commit { anchor, .. }) = txn.plan(by_parity, &ALL) else { panic!() };
        assert_eq!(anchor, ALL[1], "it only reads in the first");
    }

    #[test]
    fn what_wrote_nothing_needs_no_commit() {
        let mut txn = open(Isolation::Serializable);
        txn.saw(&key("a"), Timestamp(10)).expect("within bounds");
        assert_eq!(txn.plan(by_parity, &ALL), Some(Plan::Nothing));
    }

    #[test]
    fn levels_differ_in_what_is_checked() {
        for (isolation, since, reads) in [
            (Isolation::ReadCommitted, Timestamp::MAX, 0),
            (Isolation::Snapshot, Timestamp(10), 0),
            (Isolation::Serializable, Timestamp(10), 1),
        ] {
            let mut txn = open(isolation);
            txn.saw(&key("a"), Timestamp(10)).expect("within bounds");
            txn.write(key("a"), None).expect("within bounds");
            let (prepares, last) = planned(&txn);
            assert_eq!(prepares, BTreeMap::new(), "one partition");
            assert_eq!((last.writes[0].since, last.reads.len()), (since, reads), "{isolation:?}");
        }
    }

    #[test]
    fn bounds_are_met() {
        let mut txn = open(Isolation::Snapshot);
        for _ in 0..TXN_OPS_MAX {
            txn.count_op().expect("within bounds");
        }
        assert_eq!(
            txn.count_op().expect_err("one too many").message,
            "a transaction has at most 10000 operations"
        );
        let large = Bytes::from(vec![0; 4 << 20]);
        for number in 0..15 {
            txn.write(key(&number.to_string()), Some(large.clone())).expect("within bounds");
        }
        txn.write(key("0"), Some(large.clone())).expect("replaces");
        let error = txn.write(key("x"), Some(large.clone())).and_then(|()| txn.write(key("y"), Some(large)));
        assert_eq!(error.expect_err("over").message, "a transaction writes at most 64 MiB");
        let (prepares, last) = planned(&txn);
        assert_eq!(last.writes.len(), 1);
        assert_eq!(prepares.values().map(Vec::len).sum::<usize>(), 14, "{prepares:?}");
        assert!(prepares.values().flatten().all(|part| part.writes.len() == 1));
    }

    #[test]
    fn a_range_is_guarded_in_every_partition() {
        let mut txn = open(Isolation::Serializable);
        txn.saw_range(key("a"), key("c"), Timestamp(10)).expect("within bounds");
        txn.saw_range(key("c"), key("f"), Timestamp(10)).expect("within bounds");
        txn.write(key("a"), None).expect("within bounds");
        let (prepares, last) = planned(&txn);
        assert_eq!(prepares.len(), 1);
        for part in prepares.values().flatten().chain([&last]) {
            assert_eq!(part.ranges, [ReadRange { start: key("a"), end: key("f"), since: Timestamp(10) }]);
        }
    }
}
