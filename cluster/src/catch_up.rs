//! How fast a node sends snapshots to replicas that are far behind, so that its clients hardly notice.
//!
//! A replica that comes back after many writes wants the state of every partition. All of it at once, as fast as it can be
//! read, sent and taken in, takes all cores there are, and small requests wait for one. So the node's snapshots share one
//! [`Pace`], whoever they are for: what one of them has sent puts off the next part of each.
//!
//! ```text
//!   part ──▶ rest ──▶ part ──▶ rest ──▶       one partition's
//!                └─▶ part ──▶ rest ──▶        another's: its rest begins where the last one ends
//! ```
//!
//! The pace begins at its floor, since a transfer is long and the first second of it would be noticed, and grows while
//! nobody is held up. It is stricter than that of large values: those are asked for by a client who waits for them.
//!
//! **A snapshot that comes too late.** While it is on its way the log goes on. Should entries after it be gone when it is there,
//! the replica needs another one. That is seen from the outside: the same replica asks again soon after. Each time it does, its
//! parts rest half as long, so that at last a snapshot is faster than the log, and whoever is held up pays for it.
//!
//! # Caveats
//! Lag is measured where a snapshot comes from. A receiver that leads other partitions is spared by the floor alone, while
//! nobody is late at the sender.

use crate::ids::{NodeId, PartitionId};
use crate::pace::{Limits, Pace};
use std::collections::BTreeMap;

/// A million keys of 16 + 100 bytes are some 170 MB on their way: with two leaders that send them, 20 seconds at the
/// floor. One wakeup in sixty that is a whole tick late is more than an idle machine has.
pub const SNAPSHOTS: Limits =
    Limits { late_ms: 2, late_allowed: 1, window: 64, slowest: 4 << 20, fastest: 1 << 30 };

/// A pace that nothing was sent at for so long says nothing about now.
const FORGET_MS: u64 = 10_000;

/// A replica that needs another snapshot so soon after it got one was overtaken by the log.
const AGAIN_MS: u64 = 60_000;

/// Halvings of the rests, at the most: then a snapshot goes 32 times as fast as the pace, which is faster than it can be read.
const HASTE_MAX: u32 = 5;

/// The snapshots that a node sends. Pure; the caller brings the time in milliseconds since whatever began, and keeps the rests.
#[derive(Debug, Clone)]
pub struct CatchUp {
    pace: Pace,
    /// When the next part may be sent, of whichever snapshot.
    free_at_ms: u64,
    /// When something was last sent.
    sent_at_ms: u64,
    /// Replicas that got one lately.
    lately: BTreeMap<(PartitionId, NodeId), Lately>,
}

#[derive(Debug, Clone, Copy)]
struct Lately {
    installed_at_ms: u64,
    haste: u32,
}

/// A snapshot on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sending {
    group: PartitionId,
    to: NodeId,
    /// How often its rests are halved.
    haste: u32,
}

impl Default for CatchUp {
    fn default() -> Self {
        Self { pace: Pace::slowest(SNAPSHOTS), free_at_ms: 0, sent_at_ms: 0, lately: BTreeMap::new() }
    }
}

impl CatchUp {
    /// A snapshot of `group` goes to `to` from now on.
    pub fn begin(&mut self, now_ms: u64, group: PartitionId, to: NodeId) -> Sending {
        if now_ms.saturating_sub(self.sent_at_ms) >= FORGET_MS {
            self.pace = Pace::slowest(SNAPSHOTS);
        }
        self.lately.retain(|_, lately| now_ms.saturating_sub(lately.installed_at_ms) < AGAIN_MS);
        let haste = self.lately.get(&(group, to)).map_or(0, |lately| (lately.haste + 1).min(HASTE_MAX));
        Sending { group, to, haste }
    }

    /// So many bytes of it were sent and taken. Milliseconds to wait before its next part.
    pub fn sent(&mut self, now_ms: u64, sending: Sending, bytes: u64) -> u64 {
        self.sent_at_ms = now_ms;
        self.free_at_ms = self.free_at_ms.max(now_ms) + (self.pace.rest_ms(bytes) >> sending.haste);
        self.free_at_ms - now_ms
    }

    /// The replica has the whole of it.
    pub fn installed(&mut self, now_ms: u64, sending: Sending) {
        let lately = Lately { installed_at_ms: now_ms, haste: sending.haste };
        self.lately.insert((sending.group, sending.to), lately);
    }

    /// While something is sent: a task of this node was woken this many milliseconds after the time that it asked for.
    pub fn sample(&mut self, lag_ms: u64) {
        self.pace.sample(lag_ms);
    }

    /// Bytes per second, of all snapshots together, that are not in haste.
    pub fn per_second(&self) -> u64 {
        self.pace.per_second()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: u64 = 64 << 10;
    const GROUP: PartitionId = PartitionId(3);
    const TO: NodeId = NodeId(2);

    /// How long a snapshot of so many bytes takes whose parts take no time themselves, and what is then.
    fn send(catch_up: &mut CatchUp, mut now_ms: u64, bytes: u64, lag_ms: u64) -> (Sending, u64) {
        let sending = catch_up.begin(now_ms, GROUP, TO);
        for _ in 0..bytes / PART {
            let rest_ms = catch_up.sent(now_ms, sending, PART);
            (0..rest_ms / 2).for_each(|_| catch_up.sample(lag_ms));
            now_ms += rest_ms;
        }
        catch_up.installed(now_ms, sending);
        (sending, now_ms)
    }

    #[test]
    fn a_million_keys_take_no_minute_however_busy_the_node_is() {
        let mut catch_up = CatchUp::default();
        let (_, took_ms) = send(&mut catch_up, 0, 170_000_000, u64::MAX);
        assert!((35_000..45_000).contains(&took_ms), "{took_ms} ms from one leader");
        assert_eq!(catch_up.per_second(), SNAPSHOTS.slowest);
    }

    #[test]
    fn it_begins_at_the_floor_and_is_faster_where_nobody_is_held_up() {
        let mut catch_up = CatchUp::default();
        let sending = catch_up.begin(0, GROUP, TO);
        assert_eq!(catch_up.sent(0, sending, PART), PART * 1000 / SNAPSHOTS.slowest);
        let (_, busy_ms) = send(&mut CatchUp::default(), 0, 170_000_000, 100);
        let (_, idle_ms) = send(&mut CatchUp::default(), 0, 170_000_000, 0);
        assert!(idle_ms * 3 < busy_ms, "{idle_ms} ms and {busy_ms} ms");
    }

    #[test]
    fn snapshots_share_one_pace_whoever_they_are_for() {
        let mut catch_up = CatchUp::default();
        let (one, other) = (catch_up.begin(0, GROUP, TO), catch_up.begin(0, PartitionId(4), NodeId(9)));
        let alone_ms = catch_up.sent(0, one, PART);
        assert_eq!(catch_up.sent(0, other, PART), 2 * alone_ms);
        assert_eq!(catch_up.sent(0, one, PART), 3 * alone_ms);
        assert_eq!(catch_up.sent(60_000, one, PART), alone_ms, "what was not used is not owed");
    }

    #[test]
    fn a_replica_that_needs_one_snapshot_after_the_other_gets_them_ever_faster() {
        let mut catch_up = CatchUp::default();
        let mut now_ms = 0;
        let mut took_ms = Vec::new();
        for run in 0..8 {
            let (sending, ended_ms) = send(&mut catch_up, now_ms, 64 << 20, 100);
            assert_eq!(sending.haste, run.min(HASTE_MAX));
            took_ms.push(ended_ms - now_ms);
            now_ms = ended_ms;
        }
        assert!(took_ms.windows(2).take(4).all(|runs| runs[1] < runs[0]), "{took_ms:?}");
        assert!(took_ms[HASTE_MAX as usize] * 20 < took_ms[0], "{took_ms:?}");
        // Others are not in haste for it, and neither is the same one once it has kept up for a while.
        assert_eq!(catch_up.begin(now_ms, PartitionId(4), TO).haste, 0);
        assert_eq!(catch_up.begin(now_ms + AGAIN_MS, GROUP, TO).haste, 0);
        assert!(catch_up.lately.is_empty(), "nothing is remembered for ever");
    }

    #[test]
    fn a_pace_of_long_ago_does_not_count() {
        let mut catch_up = CatchUp::default();
        let (_, ended_ms) = send(&mut catch_up, 0, 64 << 20, 0);
        let grown = catch_up.per_second();
        assert!(grown > SNAPSHOTS.slowest);
        catch_up.begin(ended_ms + FORGET_MS / 2, GROUP, TO);
        assert_eq!(catch_up.per_second(), grown);
        catch_up.begin(ended_ms + FORGET_MS, GROUP, TO);
        assert_eq!(catch_up.per_second(), SNAPSHOTS.slowest);
    }
}
