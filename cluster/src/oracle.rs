//! Issuing timestamps: strictly increasing over the whole cluster, whatever clocks and leaders do.
//!
//! The leader of the system group reserves a window of future timestamps through Raft before it issues any
//! of them; a new leader starts where the window ends, since its predecessor may have issued all of it:
//!
//! ```text
//! leader 1   lead(0)  grant ─▶ Reserve{3000}  reserved  grant ─▶ 1000, 1001, …  dies
//! log                          ReserveTimestamps{3000}
//! leader 2                                                         lead(3000)  grant ─▶ Reserve{6000} …
//! ```
//!
//! Within its window timestamps follow the clock where it is ahead, and run ahead of it where it stands still, goes
//! back, or where more than 2^18 are wanted in a millisecond. After the idea of TSO in Percolator ("Large-scale
//! Incremental Processing Using Distributed Transactions and Notifications", 2010, section 2.1).
//!
//! Ahead of the clock they still go on, at three quarters of its pace, until it has caught up. If they stood still as long
//! as that, so would leases of transactions, whose holders may be dead: for as long as the clocks of two leaders are apart.
//!
//! **Caveat:** a clock that is far in the future drags the cluster's timestamps there; they stay correct, but history and
//! expiry, which count in their milliseconds, take up to a third longer until clocks have caught up, which takes four
//! times as long as they are ahead.

use crate::timestamp::Timestamp;

/// Timestamps that one grant may be asked for: far above any batch of requests, far below a window.
pub const GRANT_MAX: u64 = 1 << 20;

/// What [`Oracle::grant`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// The timestamps from `first` on, as many as were asked for, are the caller's.
    Ready {
        /// The first of them.
        first: Timestamp,
    },
    /// The window is used up. Get `ReserveTimestamps{until}` applied, pass its answer to
    /// [`Oracle::reserved`], and ask again.
    Reserve {
        /// The end of the window to reserve.
        until: Timestamp,
    },
    /// This node may not issue timestamps.
    NotLeader,
}

/// The timestamps that this node may issue.
#[derive(Debug)]
pub struct Oracle {
    /// How much is reserved at a time.
    window_ms: u64,
    /// None while another node leads.
    window: Option<Window>,
}

#[derive(Debug)]
struct Window {
    /// Nothing below this is issued any more.
    next: Timestamp,
    /// Nothing from here on may be issued; not below `next`.
    end: Timestamp,
    /// Whether it is worth extending ahead of need: something was issued since the last extension, or there
    /// was none yet. An idle cluster writes nothing.
    in_use: bool,
    /// Where the clock was, when it was looked at last.
    clock_ms: Option<u64>,
    /// How far timestamps have come at their own pace, in quarters of a millisecond.
    quarters: u64,
}

impl Window {
    /// The first timestamp that may be issued when the clock is at `now_ms`.
    fn first(&mut self, now_ms: u64) -> Timestamp {
        let passed = self.clock_ms.map_or(0, |before| now_ms.saturating_sub(before));
        self.clock_ms = Some(now_ms);
        self.quarters = self.quarters.saturating_add(3 * passed).max(4 * self.next.millis());
        self.next.max(Timestamp::from_millis(now_ms.max(self.quarters / 4)))
    }
}

impl Oracle {
    /// An oracle that reserves `window_ms` milliseconds at a time, at least one. It issues nothing until it leads.
    pub fn new(window_ms: u64) -> Self {
        Self { window_ms: window_ms.max(1), window: None }
    }

    /// This node now leads the system group and has applied an entry of its own term: `window_end` is what is
    /// reserved in that state, and what another leader may have issued up to.
    pub fn lead(&mut self, window_end: Timestamp) {
        self.window =
            Some(Window { next: window_end, end: window_end, in_use: true, clock_ms: None, quarters: 0 });
    }

    /// This node no longer leads the system group.
    pub fn retire(&mut self) {
        self.window = None;
    }

    /// Issues `count` timestamps, at least one: never below the clock's `now_ms`, never below an earlier one.
    ///
    /// # Panics
    /// When `count` is over [`GRANT_MAX`]: callers check what peers ask for.
    pub fn grant(&mut self, now_ms: u64, count: u64) -> Grant {
        assert!(count <= GRANT_MAX, "{count} timestamps at once, the limit is {GRANT_MAX}");
        let Some(window) = &mut self.window else { return Grant::NotLeader };
        let first = window.first(now_ms);
        let after = first.plus(count.max(1));
        if after <= window.end {
            window.next = after;
            window.in_use = true;
            Grant::Ready { first }
        } else {
            Grant::Reserve { until: window_from(after, self.window_ms) }
        }
    }

    /// A `ReserveTimestamps` that this node proposed was applied, with this answer.
    pub fn reserved(&mut self, from: Timestamp, until: Timestamp) {
        let Some(window) = &mut self.window else { return };
        if until <= window.end {
            return;
        }
        if from > window.end {
            // Somebody else reserved what lies between, and may have issued it.
            window.next = window.next.max(from);
        }
        window.end = until;
        window.in_use = false;
    }

    /// The end of a window to reserve in the background, when less than half of this one is left and it is
    /// in use; so a grant rarely has to wait for one.
    pub fn wants_more(&mut self, now_ms: u64) -> Option<Timestamp> {
        let window = self.window.as_mut().filter(|window| window.in_use)?;
        let next = window.first(now_ms);
        let left = window.end.0.saturating_sub(next.0);
        (left < Timestamp::from_millis(self.window_ms).0 / 2).then(|| window_from(next, self.window_ms))
    }
}

/// The end of a window that starts at `next`, rounded up to a whole millisecond.
fn window_from(next: Timestamp, window_ms: u64) -> Timestamp {
    Timestamp::from_millis(next.millis() + 1 + window_ms)
}
