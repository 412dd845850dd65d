//! Applying steps of transactions, and what reads see of those that are undecided.

use super::super::PartitionState;
use super::outcome::Outcome;
use super::{Held, Unresolved};
use crate::command::Applied;
use crate::ids::PartitionId;
use crate::key::EncodedKey;
use crate::limits::{TXN_LEASE_MS, TXN_LIFE_MS_MAX};
use crate::timestamp::Timestamp;
use crate::txn::{Blocker, Conflict, Effects, Prepare, TxnApplied, TxnEntry, TxnId, TxnPut, TxnStep};
use crate::wire::{RangeScan, Versioned};
use std::collections::BTreeSet;
use std::ops::Bound;

/// Writes of a transaction among which one is looked for: that takes less time than its resolution.
const INTENDED_LOOK_MAX: usize = 256;

impl PartitionState {
    pub(in crate::partition) fn apply_txns(&mut self, entry: TxnEntry) -> Applied {
        if entry.timestamp <= self.last_timestamp {
            return Applied::StaleTimestamp(self.last_timestamp);
        }
        self.gc_floor = self.gc_floor.max(entry.gc_floor);
        let used = (entry.steps.len() as u64).max(1);
        self.last_timestamp = entry.timestamp.plus(used - 1);
        let mut now = entry.timestamp;
        let mut answers = Vec::with_capacity(entry.steps.len());
        for step in entry.steps {
            answers.push(self.apply_step(now, step));
            now = now.plus(1);
        }
        Applied::Txns(answers)
    }

    fn apply_step(&mut self, now: Timestamp, step: TxnStep) -> TxnApplied {
        let txn = step.txn();
        if let Some(outcome) = self.outcome(txn) {
            match step {
                TxnStep::Finish { txn } => self.holdings.finish(txn),
                // What another partition decided counts, if this one was asked about it before.
                TxnStep::Resolve { txn, committed } => return self.resolve(txn, committed),
                _ => return outcome.answer(),
            }
            return TxnApplied::Resolved;
        }
        match step {
            TxnStep::Commit { txn, participants, effects } => self.commit(txn, participants, effects, now),
            TxnStep::Prepare(prepare) => self.prepare(prepare, now),
            TxnStep::Extend { txn, anchor } => {
                self.hold_until(txn, anchor, now);
                TxnApplied::Prepared
            }
            TxnStep::Push { txn, expires } => self.push(txn, expires, now),
            TxnStep::Abort { txn, why } => self.abort(txn, why, now),
            TxnStep::Resolve { txn, committed } => self.resolve(txn, committed),
            TxnStep::Finish { txn } => {
                self.holdings.finish(txn);
                TxnApplied::Resolved
            }
            TxnStep::Inquire { txn } => self.inquire(txn, now),
        }
    }

    fn commit(
        &mut self,
        txn: TxnId,
        participants: Vec<PartitionId>,
        effects: Effects,
        now: Timestamp,
    ) -> TxnApplied {
        if let Err(conflict) = self.check(txn, &effects, now) {
            return TxnApplied::Refused(conflict);
        }
        if !participants.is_empty() {
            self.holdings.add_unresolved(txn, Unresolved { committed: now, participants });
        }
        self.keep_outcome(txn, &Outcome::Committed(now), now);
        self.resolve(txn, Some(now));
        self.install_all(effects, now);
        TxnApplied::Committed(now)
    }

    fn prepare(&mut self, prepare: Prepare, now: Timestamp) -> TxnApplied {
        let Prepare { txn, anchor, part, effects } = prepare;
        if self.holdings.get(txn).is_some_and(|held| held.parts.contains_key(&part)) {
            return TxnApplied::Prepared;
        }
        if let Err(conflict) = self.check(txn, &effects, now) {
            return TxnApplied::Refused(conflict);
        }
        self.hold_until(txn, anchor, now);
        self.holdings.hold(txn, part, effects);
        TxnApplied::Prepared
    }

    /// Gives a transaction another lease from now on.
    fn hold_until(&mut self, txn: TxnId, anchor: PartitionId, now: Timestamp) {
        self.holdings.change(txn, |held| {
            held.anchor = anchor;
            held.expires = now.plus_millis(TXN_LEASE_MS);
        });
    }

    /// Whether nothing that was read or is to be written has changed, or is about to.
    fn check(&self, txn: TxnId, effects: &Effects, now: Timestamp) -> Result<(), Conflict> {
        if now.millis().saturating_sub(txn.begin.millis()) > TXN_LIFE_MS_MAX {
            return Err(Conflict::TooOld);
        }
        // A key that was removed after that may be forgotten by now.
        let known = |since: Timestamp| if since < self.gc_floor { Err(Conflict::TooOld) } else { Ok(()) };
        let unchanged = |key: &EncodedKey, since: Timestamp| match self.keys.get(key) {
            Some(chain) if chain.newest().timestamp > since => {
                Err(Conflict::Changed { key: key.clone(), version: chain.newest().timestamp })
            }
            _ => known(since),
        };
        let blocked = |key: &EncodedKey, by: Option<TxnId>, writes: bool| match by {
            Some(by) => Err(Conflict::Blocked { key: key.clone(), by, writes }),
            None => Ok(()),
        };
        for write in &effects.writes {
            unchanged(&write.key, write.since)?;
            blocked(&write.key, self.holdings.writer(&write.key, Some(txn)), true)?;
            blocked(&write.key, self.holdings.reader(&write.key, Some(txn)), false)?;
        }
        for read in &effects.reads {
            unchanged(&read.key, read.since)?;
            blocked(&read.key, self.holdings.writer(&read.key, Some(txn)), true)?;
        }
        for range in &effects.ranges {
            if range.end <= range.start {
                continue;
            }
            known(range.since)?;
            for (key, chain) in self.keys.range(&range.start..&range.end) {
                if chain.newest().timestamp > range.since {
                    let version = chain.newest().timestamp;
                    return Err(Conflict::Changed { key: key.clone(), version });
                }
            }
            let end = Bound::Excluded(&range.end);
            if let Some((key, by)) = self.holdings.writer_in(&range.start, end, Some(txn)) {
                return Err(Conflict::Blocked { key: key.clone(), by, writes: true });
            }
        }
        Ok(())
    }

    fn push(&mut self, txn: TxnId, expires: Timestamp, now: Timestamp) -> TxnApplied {
        let expires = self.holdings.get(txn).map_or(expires, |held| held.expires);
        if now > expires {
            let why = "its coordinator was not heard from for longer than its lease";
            return self.abort(txn, why.into(), now);
        }
        // A commit that comes later in this log has a higher timestamp.
        TxnApplied::Pushed(now)
    }

    fn abort(&mut self, txn: TxnId, why: String, now: Timestamp) -> TxnApplied {
        if !self.holds(txn) && txn.begin <= self.commit_floor {
            return TxnApplied::Forgotten;
        }
        self.keep_outcome(txn, &Outcome::Aborted(why.clone()), now);
        self.resolve(txn, None);
        TxnApplied::Aborted(why)
    }

    fn resolve(&mut self, txn: TxnId, committed: Option<Timestamp>) -> TxnApplied {
        let Some(Held { parts, .. }) = self.holdings.release(txn) else { return TxnApplied::Resolved };
        let Some(at) = committed else { return TxnApplied::Resolved };
        for effects in parts.into_values() {
            self.install_all(effects, at);
        }
        TxnApplied::Resolved
    }

    /// Nobody else wrote the keys since they were checked. If one has a newer version all the same, this was prepared a
    /// second time, by a message that was late, or by another run of the same transaction.
    fn install_all(&mut self, effects: Effects, at: Timestamp) {
        for TxnPut { key, value, .. } in effects.writes {
            if self.may_install(&key, at) {
                self.install(key, at, value);
            }
        }
    }

    fn may_install(&self, key: &EncodedKey, at: Timestamp) -> bool {
        self.keys.get(key).is_none_or(|chain| chain.newest().timestamp < at)
    }

    fn inquire(&mut self, txn: TxnId, now: Timestamp) -> TxnApplied {
        if let Some(held) = self.holdings.get(txn) {
            return TxnApplied::Held { anchor: held.anchor, expires: held.expires };
        }
        let may_have_committed = txn.begin <= self.commit_floor;
        // One that is too old can commit no more, and needs no record for it.
        if now.millis().saturating_sub(txn.begin.millis()) <= TXN_LIFE_MS_MAX {
            let outcome = match may_have_committed {
                true => Outcome::Forgotten,
                false => Outcome::Aborted("it was asked for before it was committed".into()),
            };
            self.keep_outcome(txn, &outcome, now);
            return outcome.answer();
        }
        if may_have_committed {
            return TxnApplied::Forgotten;
        }
        TxnApplied::Aborted("it did not commit within its time".into())
    }

    /// The undecided transaction that is going to write `key`.
    pub fn intent(&self, key: &EncodedKey) -> Option<Blocker> {
        self.holdings.writer(key, None).map(|txn| self.holdings.blocker(txn))
    }

    /// What the undecided transaction that has an intent on `key` is going to write there. None where it writes so many
    /// keys, more than 256, that finding this one takes long.
    fn intended(&self, key: &EncodedKey) -> Option<&TxnPut> {
        let held = self.holdings.get(self.holdings.writer(key, None)?)?;
        let writes: usize = held.parts.values().map(|effects| effects.writes.len()).sum();
        if writes > INTENDED_LOOK_MAX {
            return None;
        }
        held.parts.values().flat_map(|effects| &effects.writes).find(|write| write.key == *key)
    }

    /// Whether [`Self::get_decided`] can say what `key` holds.
    pub fn is_intended_known(&self, key: &EncodedKey) -> bool {
        self.intended(key).is_some()
    }

    /// As [`Self::get`], with the transaction that has an intent on `key` taken for committed at `committed`: what a get
    /// answers once that is resolved.
    pub fn get_decided(&self, key: &EncodedKey, at: Timestamp, committed: Timestamp) -> Option<Versioned> {
        match self.intended(key) {
            Some(put) if committed <= at && self.may_install(key, committed) => {
                put.value.clone().map(|value| Versioned { value, version: committed })
            }
            _ => self.get(key, at),
        }
    }

    /// The undecided transactions that are going to write in a scan's range, each once.
    pub fn intents_of(&self, scan: &RangeScan) -> Vec<Blocker> {
        let end = match &scan.end {
            Some(end) if *end <= scan.start => return Vec::new(),
            Some(end) => Bound::Excluded(end),
            None => Bound::Unbounded,
        };
        let txns: BTreeSet<TxnId> = self.holdings.intents_in(&scan.start, end).collect();
        txns.into_iter().map(|txn| self.holdings.blocker(txn)).collect()
    }

    /// The undecided transactions that hold something here.
    pub fn held(&self) -> impl ExactSizeIterator<Item = Blocker> {
        self.holdings.iter().map(|(txn, held)| Blocker { txn, anchor: held.anchor, expires: held.expires })
    }

    /// Keys that undecided transactions are going to write.
    pub fn open_intents(&self) -> usize {
        self.holdings.intents()
    }

    /// A transaction as it holds something here.
    pub fn held_by(&self, txn: TxnId) -> Option<Blocker> {
        self.holds(txn).then(|| self.holdings.blocker(txn))
    }

    /// Whether a transaction holds something here.
    pub fn holds(&self, txn: TxnId) -> bool {
        self.holdings.get(txn).is_some()
    }

    /// Commits that were decided here and that other partitions have perhaps not resolved: when, and which.
    pub fn unresolved(&self) -> impl ExactSizeIterator<Item = (TxnId, Timestamp, &[PartitionId])> {
        self.holdings.unresolved().map(|(txn, one)| (txn, one.committed, one.participants.as_slice()))
    }
}
