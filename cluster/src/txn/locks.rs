//! Key locks of one partition, as its leader keeps them: a queue per key, first come, first served.
//!
//! Locks are not replicated. They spare transactions the work of running into each other; what is correct is decided
//! when they commit. So a leader that dies, or leads no more, may forget them.
//!
//! A holder's lease is kept alive by its coordinator. A waiter waits behind the one before it in the queue, which is what
//! deadlocks are made of ([`super::Waits`]).

use super::TxnId;
use crate::error::Error;
use crate::key::EncodedKey;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How long a lock is held without a word from its holder's coordinator, in milliseconds.
pub const LOCK_LEASE_MS: u64 = 3_000;

/// Transactions that may wait for locks of one partition; beyond it `overloaded`.
pub const LOCK_WAITERS_MAX: usize = 8_192;

/// What changed for someone who waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockEvent {
    /// It holds the lock now.
    Granted {
        /// The key.
        key: EncodedKey,
        /// Who.
        txn: TxnId,
    },
    /// It waits no more: its time is over.
    TimedOut {
        /// The key.
        key: EncodedKey,
        /// Who.
        txn: TxnId,
        /// Who held the lock.
        holder: TxnId,
    },
    /// It waits behind another one now.
    Behind {
        /// Who.
        txn: TxnId,
        /// The one before it.
        behind: TxnId,
    },
}

/// What asking for a lock answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It is held now.
    Granted,
    /// It will be, after this one.
    Behind(TxnId),
}

#[derive(Debug)]
struct Waiter {
    txn: TxnId,
    until_ms: u64,
}

#[derive(Debug)]
struct Queue {
    holder: TxnId,
    waiters: VecDeque<Waiter>,
}

impl Queue {
    /// Whom the waiter at a place waits behind.
    fn before(&self, place: usize) -> TxnId {
        place.checked_sub(1).map_or(self.holder, |before| self.waiters[before].txn)
    }
}

/// The locks of one partition.
#[derive(Debug, Default)]
pub struct Locks {
    queues: BTreeMap<EncodedKey, Queue>,
    /// By transaction, the keys that it holds or waits for, and until when its coordinator is known to be alive.
    keys: BTreeMap<TxnId, (u64, BTreeSet<EncodedKey>)>,
    waiting: usize,
}

impl Locks {
    /// Asks for a lock at `now_ms`, to be waited for until `until_ms`. Whoever holds it already, or waits for it, is told so.
    ///
    /// # Errors
    /// `overloaded` when too many wait.
    pub fn ask(&mut self, key: &EncodedKey, txn: TxnId, now_ms: u64, until_ms: u64) -> Result<Asked, Error> {
        let asked = match self.queues.get_mut(key) {
            None => {
                let queue = Queue { holder: txn, waiters: VecDeque::new() };
                self.queues.insert(key.clone(), queue);
                Asked::Granted
            }
            Some(queue) if queue.holder == txn => Asked::Granted,
            Some(queue) => {
                if let Some(place) = queue.waiters.iter().position(|waiter| waiter.txn == txn) {
                    queue.waiters[place].until_ms = until_ms;
                    return Ok(Asked::Behind(queue.before(place)));
                }
                if self.waiting >= LOCK_WAITERS_MAX {
                    return Err(Error::overloaded(format!(
                        "{LOCK_WAITERS_MAX} transactions wait for locks in this partition, the limit"
                    )));
                }
                self.waiting += 1;
                queue.waiters.push_back(Waiter { txn, until_ms });
                Asked::Behind(queue.before(queue.waiters.len() - 1))
            }
        };
        let (alive_ms, keys) = self.keys.entry(txn).or_default();
        *alive_ms = (*alive_ms).max(now_ms + LOCK_LEASE_MS);
        keys.insert(key.clone());
        Ok(asked)
    }

    /// The transaction's coordinator is alive.
    pub fn keep(&mut self, txn: TxnId, now_ms: u64) {
        if let Some((alive_ms, _)) = self.keys.get_mut(&txn) {
            *alive_ms = now_ms + LOCK_LEASE_MS;
        }
    }

    /// Lets go of all that a transaction holds or waits for.
    pub fn release(&mut self, txn: TxnId) -> Vec<LockEvent> {
        let mut events = Vec::new();
        let Some((_, keys)) = self.keys.remove(&txn) else { return events };
        for key in keys {
            self.leave(&key, txn, &mut events);
        }
        events
    }

    /// Waits for a lock no more.
    pub fn give_up(&mut self, key: &EncodedKey, txn: TxnId) -> Vec<LockEvent> {
        let mut events = Vec::new();
        if self.queues.get(key).is_some_and(|queue| queue.holder != txn) {
            self.forget(key, txn);
            self.leave(key, txn, &mut events);
        }
        events
    }

    fn forget(&mut self, key: &EncodedKey, txn: TxnId) {
        if let Some((_, keys)) = self.keys.get_mut(&txn) {
            keys.remove(key);
            if keys.is_empty() {
                self.keys.remove(&txn);
            }
        }
    }

    fn leave(&mut self, key: &EncodedKey, txn: TxnId, events: &mut Vec<LockEvent>) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        if queue.holder == txn {
            let Some(next) = queue.waiters.pop_front() else {
                self.queues.remove(key);
                return;
            };
            // The one behind it still waits for the same one.
            queue.holder = next.txn;
            self.waiting -= 1;
            events.push(LockEvent::Granted { key: key.clone(), txn: next.txn });
            return;
        }
        let Some(place) = queue.waiters.iter().position(|waiter| waiter.txn == txn) else { return };
        queue.waiters.remove(place);
        self.waiting -= 1;
        if let Some(after) = queue.waiters.get(place) {
            events.push(LockEvent::Behind { txn: after.txn, behind: queue.before(place) });
        }
    }

    /// Frees what is held by transactions whose coordinators are gone, and ends waits whose time is over.
    pub fn expire(&mut self, now_ms: u64) -> Vec<LockEvent> {
        let gone: Vec<TxnId> =
            self.keys.iter().filter(|(_, (alive_ms, _))| *alive_ms < now_ms).map(|(&txn, _)| txn).collect();
        let mut events: Vec<LockEvent> = gone.into_iter().flat_map(|txn| self.release(txn)).collect();
        let overdue: Vec<(EncodedKey, TxnId, TxnId)> = self
            .queues
            .iter()
            .flat_map(|(key, queue)| {
                let overdue = queue.waiters.iter().filter(|waiter| waiter.until_ms <= now_ms);
                overdue.map(|waiter| (key.clone(), waiter.txn, queue.holder))
            })
            .collect();
        for (key, txn, holder) in overdue {
            events.extend(self.give_up(&key, txn));
            events.push(LockEvent::TimedOut { key, txn, holder });
        }
        events
    }

    /// When something is due next: a wait or a lease is over.
    pub fn next_due_ms(&self) -> Option<u64> {
        let waits = self.queues.values().flat_map(|queue| queue.waiters.iter().map(|waiter| waiter.until_ms));
        let leases = self.keys.values().map(|(alive_ms, _)| *alive_ms);
        waits.chain(leases).min()
    }

    /// Who holds a key.
    pub fn holder(&self, key: &EncodedKey) -> Option<TxnId> {
        self.queues.get(key).map(|queue| queue.holder)
    }

    /// Keys that are locked.
    pub fn held(&self) -> usize {
        self.queues.len()
    }

    /// Whether nobody holds anything.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;
    use crate::ids::{KeyspaceId, NodeId};

    fn txn(begin: u64) -> TxnId {
        TxnId { begin: Timestamp(begin), node: NodeId(1) }
    }

    fn key(name: &str) -> EncodedKey {
        EncodedKey::from_parts(KeyspaceId::DEFAULT, name.as_bytes())
    }

    fn granted(name: &str, to: u64) -> LockEvent {
        LockEvent::Granted { key: key(name), txn: txn(to) }
    }

    #[test]
    fn first_come_first_served() {
        let mut locks = Locks::default();
        assert_eq!(locks.ask(&key("a"), txn(1), 0, 100), Ok(Asked::Granted));
        assert_eq!(locks.ask(&key("a"), txn(1), 0, 100), Ok(Asked::Granted), "it holds it already");
        assert_eq!(locks.ask(&key("a"), txn(3), 0, 100), Ok(Asked::Behind(txn(1))));
        assert_eq!(locks.ask(&key("a"), txn(2), 0, 100), Ok(Asked::Behind(txn(3))));
        assert_eq!(locks.release(txn(1)), [granted("a", 3)]);
        assert_eq!(locks.ask(&key("a"), txn(2), 0, 100), Ok(Asked::Behind(txn(3))), "once more");
        assert_eq!(locks.release(txn(3)), [granted("a", 2)]);
        assert_eq!(locks.release(txn(2)), []);
        assert!(locks.is_empty() && locks.next_due_ms().is_none());
    }

    #[test]
    fn who_gives_up_leaves_the_queue_whole() {
        let mut locks = Locks::default();
        for number in 1..5 {
            locks.ask(&key("a"), txn(number), 0, 100).expect("there is room");
        }
        assert_eq!(locks.give_up(&key("a"), txn(3)), [LockEvent::Behind { txn: txn(4), behind: txn(2) }]);
        assert_eq!(locks.give_up(&key("a"), txn(1)), [], "a holder has nothing to give up");
        assert_eq!(locks.release(txn(1)), [granted("a", 2)]);
    }

    #[test]
    fn waits_and_leases_end() {
        let mut locks = Locks::default();
        locks.ask(&key("a"), txn(1), 0, 100).expect("there is room");
        locks.ask(&key("a"), txn(2), 0, 100).expect("there is room");
        locks.ask(&key("a"), txn(3), 0, 9_000).expect("there is room");
        locks.keep(txn(3), 2_000);
        let timed_out = LockEvent::TimedOut { key: key("a"), txn: txn(2), holder: txn(1) };
        assert_eq!(locks.expire(100), [LockEvent::Behind { txn: txn(3), behind: txn(1) }, timed_out]);
        assert_eq!(locks.expire(LOCK_LEASE_MS), []);
        assert_eq!(locks.expire(LOCK_LEASE_MS + 1), [granted("a", 3)], "the holder's coordinator is gone");
    }

    #[test]
    fn the_number_of_waiters_is_bounded() {
        let mut locks = Locks::default();
        locks.ask(&key("a"), txn(0), 0, 1).expect("there is room");
        for number in 1..=LOCK_WAITERS_MAX as u64 {
            locks.ask(&key("a"), txn(number), 0, 1).expect("there is room");
        }
        let error = locks.ask(&key("a"), txn(1 << 20), 0, 1).expect_err("one too many");
        assert_eq!(error.message, "8192 transactions wait for locks in this partition, the limit");
        locks.give_up(&key("a"), txn(7));
        locks.ask(&key("a"), txn(1 << 20), 0, 1).expect("there is room again");
    }
}
