//! Transactions that stand in the way: reads and writes that meet what is prepared and undecided wait here while the
//! partition's leader finds out what became of it.
//!
//! ```text
//! read meets an intent ──▶ Push at the anchor ──Pushed(t)──▶ snapshots up to t pass
//! write is blocked ──────▶ waits a little, then the same
//!                                    └──Committed, Aborted──▶ Resolve here ─▶ all of them go on
//! ```
//!
//! So nobody waits for a dead coordinator longer than its lease, after which a push aborts. What nobody meets is looked
//! after once per tick, and so are commits whose other partitions were not all told.

use super::message::{LocalPartition, PartitionMessage};
use super::proposing::BlockedWrites;
use super::reads::Parked;
use super::writes::{PendingStep, Refusal};
use super::{Partition, TICK};
use crate::database::{Database, RequestContext};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;
use tracing::Span;
use trandb_cluster::limits::TXN_LEASE_MS;
use trandb_cluster::txn::{Blocker, TxnApplied, TxnStep};
use trandb_cluster::{Error, PartitionId, Timestamp, TxnId};
use trandb_runtime::planted::{Planted, is_planted};

/// Callers that may wait for transactions at once in one partition; beyond it `overloaded`.
const WAITING_MAX: usize = 8192;

/// How long writers wait before they ask for the first time what became of the transaction that blocks them: most are
/// resolved by then.
const ASK_AFTER: Duration = Duration::from_millis(5);

/// How long until they ask again, doubled each time.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// See [`ASK_AGAIN`].
const ASK_AGAIN_MAX: Duration = Duration::from_millis(320);

/// How long one push may take.
const PUSH_MAX: Duration = Duration::from_secs(2);

/// How long a resolution may take before it is looked for again.
const RESOLVE_MAX: Duration = Duration::from_secs(2);

/// Abandoned transactions that one tick looks after.
const PER_TICK_MAX: usize = 64;

/// How long the coordinator has for telling the other partitions of a commit, before the anchor does.
const FINISH_AFTER_MS: u64 = TXN_LEASE_MS;

/// A push that was answered: what the transaction did not do up to then.
#[derive(Debug, Clone, Copy)]
struct Pushed {
    /// It commits above this, if it does.
    above: Timestamp,
    /// Which push it was.
    push: u64,
}

/// One transaction that stands in the way.
#[derive(Debug, Default)]
struct Chase {
    reads: Vec<Parked>,
    writes: Vec<BlockedWrites>,
    /// A push is under way.
    pushing: bool,
    /// A look is due later.
    again: bool,
    pause: Duration,
    pushed: Option<Pushed>,
    /// A resolution has been proposed.
    resolving: bool,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Chases {
    open: BTreeMap<TxnId, Chase>,
    waiting: usize,
    /// Pushes begun so far.
    pushes: u64,
    finishing: BTreeSet<TxnId>,
    /// The newest timestamp of the state, in milliseconds, and since when it is known.
    newest: Option<(u64, Instant)>,
}

impl Chases {
    /// About what time it is in timestamps, in milliseconds. They may be ahead of this node's clock for long, after another
    /// leader's clock, and leases are held to them.
    fn now_ms(&mut self, clock_ms: u64, newest: Timestamp) -> u64 {
        let known = self.newest.filter(|(known_ms, _)| *known_ms >= newest.millis());
        let (known_ms, since) = *self.newest.insert(known.unwrap_or((newest.millis(), Instant::now())));
        clock_ms.max(known_ms + since.elapsed().as_millis() as u64)
    }

    /// The number of the next push: one that begins after now has it or a higher one.
    pub(super) fn next_push(&self) -> u64 {
        self.pushes
    }

    /// Whether a read at `at` may pass over what the transaction is going to write; the latest read may if the
    /// transaction was found undecided after the read had come, which was before the push numbered `since`.
    pub(super) fn passes(&self, txn: TxnId, at: Option<Timestamp>, since: u64) -> bool {
        if is_planted(Planted::PassIntent) {
            return true;
        }
        let Some(pushed) = self.open.get(&txn).and_then(|chase| chase.pushed) else { return false };
        match at {
            Some(at) => at <= pushed.above,
            None => pushed.push >= since,
        }
    }
}

impl Partition {
    /// Holds a read until the transaction in its way is decided or pushed.
    pub(super) fn wait_to_read(&mut self, blocker: Blocker, read: Parked) {
        if self.chases.waiting >= WAITING_MAX {
            read.refuse(&too_many());
            return;
        }
        self.chases.waiting += 1;
        self.chases.open.entry(blocker.txn).or_default().reads.push(read);
        self.push(blocker);
    }

    /// Holds writes until the transaction in their way is resolved.
    pub(super) fn wait_to_write(&mut self, blocked: BlockedWrites) {
        if self.chases.waiting >= WAITING_MAX {
            blocked.pending.refuse(&too_many());
            return;
        }
        let Blocker { txn, .. } = blocked.by;
        let resolving = self.hasten(txn);
        if !self.state.holds(txn) {
            self.writes.push(blocked.pending);
            return;
        }
        self.chases.waiting += 1;
        let chase = self.chases.open.entry(txn).or_default();
        chase.writes.push(blocked);
        chase.resolving |= resolving;
        self.look_again(txn, if resolving { RESOLVE_MAX } else { ASK_AFTER });
    }

    /// Whether somebody waits for a transaction here.
    pub(super) fn is_met(&self, txn: TxnId) -> bool {
        self.chases.open.contains_key(&txn)
    }

    fn look_again(&mut self, txn: TxnId, after: Duration) {
        let Some(chase) = self.chases.open.get_mut(&txn) else { return };
        if !std::mem::replace(&mut chase.again, true) {
            self.me.send_after(after, move || PartitionMessage::Local(LocalPartition::ChaseAgain(txn)));
        }
    }

    pub(super) fn chase_again(&mut self, txn: TxnId) {
        if let Some(chase) = self.chases.open.get_mut(&txn) {
            chase.again = false;
            // If that was done, nothing is held any more.
            chase.resolving = false;
        }
        if let Some(blocker) = self.state.held_by(txn) {
            self.push(blocker);
        } else {
            self.released(txn);
        }
    }

    /// Asks the anchor what became of a transaction, unless that is being done.
    fn push(&mut self, blocker: Blocker) {
        let txn = blocker.txn;
        let resolving = self.hasten(txn);
        let chase = self.chases.open.entry(txn).or_default();
        if chase.pushing || chase.resolving {
            return;
        }
        if resolving {
            chase.resolving = true;
            self.look_again(txn, RESOLVE_MAX);
            return;
        }
        chase.pushing = true;
        let push = self.chases.pushes;
        self.chases.pushes += 1;
        metrics::counter!("trandb_txn_pushes_total").increment(1);
        let (context, me) = (self.context.clone(), self.me.clone());
        tokio::spawn(async move {
            let database = Database::new(context);
            let request = RequestContext { deadline: Instant::now() + PUSH_MAX, trace: None };
            let step = TxnStep::Push { txn, expires: blocker.expires };
            let mut answer = database.txn_step(blocker.anchor, step, &request).await;
            if is_planted(Planted::LoseAnchorRecord) && matches!(answer, Ok(TxnApplied::Committed(_))) {
                answer = Ok(TxnApplied::Aborted("nobody knows of it".into()));
            }
            // A partition that died meanwhile has dropped who waited; they ask again.
            let _ = me.cast(PartitionMessage::Local(LocalPartition::Chased { txn, push, answer }));
        });
    }

    pub(super) fn chased(&mut self, txn: TxnId, push: u64, answer: Result<TxnApplied, Error>) {
        let Some(chase) = self.chases.open.get_mut(&txn) else { return };
        chase.pushing = false;
        let committed = match answer {
            Ok(TxnApplied::Committed(at)) => Some(at),
            Ok(TxnApplied::Aborted(_)) => None,
            Ok(TxnApplied::Pushed(above)) => {
                chase.pushed = Some(Pushed { above, push });
                let pause = chase.pause.clamp(ASK_AGAIN, ASK_AGAIN_MAX);
                chase.pause = pause * 2;
                let writers = !chase.writes.is_empty();
                let reads = std::mem::take(&mut chase.reads);
                self.chases.waiting -= reads.len();
                for read in reads {
                    self.read(read);
                }
                if writers {
                    // No later than right after its lease, when it can be given up.
                    let now_ms = self.now_ms();
                    let lease_ms = |held: Blocker| held.expires.millis().saturating_sub(now_ms);
                    let left = self.state.held_by(txn).map(lease_ms).filter(|&left| left > 0);
                    let pause = left.map_or(pause, |left| pause.min(Duration::from_millis(left + 1)));
                    self.look_again(txn, pause);
                } else {
                    self.forget_chase(txn);
                }
                return;
            }
            other => {
                tracing::debug!(%txn, ?other, "what became of a transaction is not known yet");
                self.look_again(txn, ASK_AGAIN_MAX);
                return;
            }
        };
        chase.resolving = true;
        let step = TxnStep::Resolve { txn, committed };
        self.writes.push_step(PendingStep { step, reply: None, span: Span::none() });
        // Should the proposal be lost, another look finds the transaction still held.
        self.look_again(txn, RESOLVE_MAX);
        self.pump();
    }

    fn now_ms(&mut self) -> u64 {
        self.chases.now_ms(self.context.clock.now_ms(), self.state.last_timestamp())
    }

    /// Forgets a chase that nobody waits for and that is at rest.
    fn forget_chase(&mut self, txn: TxnId) {
        let idle = |chase: &Chase| {
            chase.reads.is_empty() && chase.writes.is_empty() && !chase.pushing && !chase.again
        };
        if self.chases.open.get(&txn).is_some_and(idle) {
            self.chases.open.remove(&txn);
        }
    }

    /// After entries were applied: who waited for transactions that hold nothing any more goes on.
    pub(super) fn wake_released(&mut self) {
        if self.chases.open.is_empty() {
            return;
        }
        let gone: Vec<TxnId> =
            self.chases.open.keys().filter(|&&txn| !self.state.holds(txn)).copied().collect();
        for txn in gone {
            self.released(txn);
        }
    }

    fn released(&mut self, txn: TxnId) {
        let Some(chase) = self.chases.open.remove(&txn) else { return };
        self.chases.waiting -= chase.reads.len() + chase.writes.len();
        for blocked in chase.writes {
            self.writes.push(blocked.pending);
        }
        for read in chase.reads {
            self.read(read);
        }
        self.pump();
    }

    /// Refuses all who wait: this replica leads no more.
    fn refuse_waiting(&mut self, refusal: &Refusal) {
        for (_, chase) in std::mem::take(&mut self.chases.open) {
            for read in chase.reads {
                read.refuse(refusal);
            }
            for blocked in chase.writes {
                blocked.pending.refuse(refusal);
            }
        }
        self.chases.waiting = 0;
    }

    /// Once per [`TICK`]: looks after transactions that were abandoned.
    pub(super) fn tend_transactions(&mut self) {
        self.state.gc_outcomes(1024);
        let (held, intents) = (self.state.held().len(), self.state.open_intents());
        self.context.gauges.held(self.id, held, intents, self.locked_keys());
        if let Err(leader) = self.leads() {
            self.refuse_waiting(&Refusal::NotLeader(leader));
            self.chases.finishing.clear();
            return;
        }
        let now = Timestamp::from_millis(self.now_ms());
        let abandoned: Vec<Blocker> =
            self.state.held().filter(|held| held.expires < now).take(PER_TICK_MAX).collect();
        for blocker in abandoned {
            self.push(blocker);
        }
        let unfinished: Vec<(TxnId, Timestamp, Vec<PartitionId>)> = self
            .state
            .unresolved()
            .filter(|(txn, at, _)| {
                at.plus_millis(FINISH_AFTER_MS) < now && !self.chases.finishing.contains(txn)
            })
            .take(PER_TICK_MAX)
            .map(|(txn, at, participants)| (txn, at, participants.to_vec()))
            .collect();
        for (txn, at, participants) in unfinished {
            self.chases.finishing.insert(txn);
            let (context, me, anchor) = (self.context.clone(), self.me.clone(), self.id);
            tokio::spawn(async move {
                let database = Database::new(context);
                let request = RequestContext { deadline: Instant::now() + TICK * 10, trace: None };
                database.finish_commit(txn, anchor, participants, at, &request).await;
                let _ = me.cast(PartitionMessage::Local(LocalPartition::Finished(txn)));
            });
        }
    }

    pub(super) fn finished(&mut self, txn: TxnId) {
        self.chases.finishing.remove(&txn);
    }
}

fn too_many() -> Refusal {
    Refusal::Failed(Error::overloaded(format!(
        "{WAITING_MAX} requests wait for transactions in this partition, the limit"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_goes_on_from_the_newest_timestamp_where_that_is_ahead_of_the_clock() {
        let (mut chases, at) = (Chases::default(), Timestamp::from_millis);
        assert_eq!(chases.now_ms(1000, at(900)), 1000);
        assert_eq!(chases.now_ms(1000, at(9000)), 9000);
        tokio::time::sleep(Duration::from_millis(250)).await;
        assert_eq!(chases.now_ms(1250, at(9000)), 9250);
        assert_eq!(chases.now_ms(1250, at(9100)), 9100, "a newer one says better what time it is");
        // A clock that jumped ahead leaves nothing behind.
        assert_eq!(chases.now_ms(20_000, at(9100)), 20_000);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(chases.now_ms(1350, at(9100)), 9200);
    }
}
