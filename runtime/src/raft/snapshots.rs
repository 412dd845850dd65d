//! The snapshots that a node sends: one at a time to each peer, all of them at one pace ([`CatchUp`]).
//!
//! A peer that comes back needs a snapshot of many groups at the same moment. One after the other is no slower in all, and both
//! sides hold one state in the making instead of many. Who waits for its turn has frozen nothing: a state that waited for minutes
//! would lack what was written meanwhile, and keep old versions from being forgotten.

use metrics::gauge;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use trandb_cluster::catch_up::{CatchUp, Sending};
use trandb_cluster::{NodeId, PartitionId};

/// Between two samples of lag.
const SAMPLE: Duration = Duration::from_millis(2);

/// How long a group waits for its turn before it gives up its place, and asks anew: whether it still leads, and its follower
/// still lacks what is gone.
const TURN_MAX: Duration = Duration::from_secs(60);

/// Whose turn it is to send a snapshot, and how fast. Clones share it.
#[derive(Clone)]
pub struct Snapshots {
    shared: Arc<Shared>,
}

struct Shared {
    began: Instant,
    catch_up: Mutex<CatchUp>,
    turns: Mutex<BTreeMap<NodeId, Arc<Semaphore>>>,
    transfers: AtomicU64,
}

/// Held by the one snapshot that is being sent to a peer.
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Snapshots {
    /// Nothing is being sent.
    #[allow(clippy::new_without_default, reason = "it looks at the clock")]
    pub fn new() -> Self {
        let shared = Shared {
            began: Instant::now(),
            catch_up: Mutex::default(),
            turns: Mutex::default(),
            transfers: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The turn to send to that peer, if nobody has it or waits for it.
    pub(super) fn try_turn(&self, to: NodeId) -> Option<Turn> {
        self.turns(to).try_acquire_owned().ok().map(|permit| Turn { _permit: permit })
    }

    /// Waits for the turn to send to that peer, in the order of asking; none after [`TURN_MAX`].
    pub(super) async fn turn(&self, to: NodeId) -> Option<Turn> {
        let permit = tokio::time::timeout(TURN_MAX, self.turns(to).acquire_owned()).await.ok()?;
        Some(Turn { _permit: permit.expect("the semaphore is never closed") })
    }

    fn turns(&self, to: NodeId) -> Arc<Semaphore> {
        let mut turns = self.shared.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // Peers that nobody sends to are forgotten, since members come and go.
        turns.retain(|&peer, turn| peer == to || Arc::strong_count(turn) > 1);
        turns.entry(to).or_insert_with(|| Arc::new(Semaphore::new(1))).clone()
    }

    /// Begins to send a snapshot of that group.
    pub(super) fn begin(&self, group: PartitionId, to: NodeId) -> Transfer {
        let sending = self.catch_up().begin(self.now_ms(), group, to);
        Transfer {
            // No two of a node's are the same: one that takes the place of another in the same term does not go on with it.
            number: self.shared.transfers.fetch_add(1, Ordering::Relaxed) + 1,
            sending,
            snapshots: self.clone(),
            sampler: tokio::spawn(sample(self.clone())),
        }
    }

    fn now_ms(&self) -> u64 {
        self.shared.began.elapsed().as_millis() as u64
    }

    /// Poisoned or not, it is a pace.
    fn catch_up(&self) -> MutexGuard<'_, CatchUp> {
        self.shared.catch_up.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A snapshot that is being sent. Lag is measured as long as there is one.
pub(super) struct Transfer {
    pub(super) number: u64,
    sending: Sending,
    snapshots: Snapshots,
    sampler: JoinHandle<()>,
}

impl Transfer {
    /// A part of so many bytes was taken. How long to wait before the next one.
    pub(super) fn sent(&self, bytes: usize) -> Duration {
        let mut catch_up = self.snapshots.catch_up();
        let rest_ms = catch_up.sent(self.snapshots.now_ms(), self.sending, bytes as u64);
        gauge!("trandb_raft_snapshot_pace_bytes").set(catch_up.per_second() as f64);
        Duration::from_millis(rest_ms)
    }

    /// The peer has the whole of it.
    pub(super) fn installed(&self) {
        self.snapshots.catch_up().installed(self.snapshots.now_ms(), self.sending);
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.sampler.abort();
    }
}

async fn sample(snapshots: Snapshots) {
    loop {
        let due = Instant::now() + SAMPLE;
        tokio::time::sleep_until(due).await;
        snapshots.catch_up().sample(due.elapsed().as_millis() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    #[tokio::test(start_paused = true)]
    async fn one_is_sent_to_a_peer_at_a_time_in_the_order_of_asking() {
        let snapshots = Snapshots::new();
        let first = snapshots.try_turn(ONE).expect("nobody has it");
        assert!(snapshots.try_turn(ONE).is_none());
        let _other = snapshots.try_turn(OTHER).expect("the other peer's");
        let wait = |name| {
            let snapshots = snapshots.clone();
            tokio::spawn(async move { (name, snapshots.turn(ONE).await.expect("in time")) })
        };
        let (second, third) = (wait("second"), wait("third"));
        tokio::time::sleep(TURN_MAX / 2).await;
        assert!(!second.is_finished() && !third.is_finished());
        drop(first);
        assert!(snapshots.try_turn(ONE).is_none(), "it is another's who waits for it");
        let (name, turn) = second.await.expect("no panic");
        assert_eq!(name, "second");
        drop(turn);
        drop(third.await.expect("no panic"));
        assert!(snapshots.try_turn(ONE).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_turn_for_ever() {
        let snapshots = Snapshots::new();
        let _held = snapshots.try_turn(ONE).expect("nobody has it");
        let asked = Instant::now();
        assert!(snapshots.turn(ONE).await.is_none());
        assert_eq!(asked.elapsed(), TURN_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn peers_that_nobody_sends_to_are_forgotten() {
        let snapshots = Snapshots::new();
        let held = snapshots.try_turn(ONE).expect("nobody has it");
        for peer in 10..20 {
            drop(snapshots.try_turn(NodeId(peer)));
        }
        assert!(snapshots.try_turn(ONE).is_none(), "it is still held");
        assert!(snapshots.shared.turns.lock().expect("nobody panics").len() <= 2);
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn lag_is_measured_while_something_is_sent() {
        let snapshots = Snapshots::new();
        let transfer = snapshots.begin(PartitionId(3), ONE);
        let floor = transfer.sent(1 << 20);
        assert!(floor > Duration::from_millis(200), "{floor:?}");
        tokio::time::sleep(Duration::from_secs(5)).await;
        let grown = transfer.sent(1 << 20);
        assert!(grown < floor / 2, "nothing is late when time stands still: {grown:?} after {floor:?}");
        let number = transfer.number;
        drop(transfer);
        assert_ne!(snapshots.begin(PartitionId(3), ONE).number, number);
    }
}
