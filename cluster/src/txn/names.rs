//! Names for transactions that read nothing, ahead of need.
//!
//! A transaction takes its name and its snapshot from one question to the oracle. One that only writes, unconditionally,
//! has no use for a snapshot: it is as of whenever it commits. And a name need only be one that nobody else has, so a
//! node keeps some timestamps for that.
//!
//! **Caveat:** such a name says that the transaction began up to [`NAMES_MS_MAX`] before it did, which makes it that much
//! older to all that goes by age: how long outcomes are kept, and how long it may take to commit.

use crate::timestamp::Timestamp;

/// Names that are asked for at once: a busy node commits that many such transactions within a few hundred milliseconds.
pub const NAMES_PER_GRANT: u64 = 256;

/// How old a name may be, in milliseconds of this node's time.
pub const NAMES_MS_MAX: u64 = 1_000;

/// Timestamps that nobody else has, kept for transactions to come.
#[derive(Debug, Default)]
pub struct Names {
    next: Timestamp,
    left: u64,
    /// When they came.
    since_ms: u64,
    asking: bool,
}

impl Names {
    /// The next name, if there is one that is not too old.
    pub fn take(&mut self, now_ms: u64) -> Option<Timestamp> {
        if self.left == 0 || now_ms.saturating_sub(self.since_ms) > NAMES_MS_MAX {
            return None;
        }
        let name = self.next;
        self.next = name.plus(1);
        self.left -= 1;
        Some(name)
    }

    /// About what time it is at the oracle, by this node's clock since it was last asked: not earlier than it is there,
    /// and later by no more than that question took. None if that was long ago.
    pub fn now(&self, now_ms: u64) -> Option<Timestamp> {
        let age_ms = now_ms.saturating_sub(self.since_ms);
        (self.next > Timestamp::ZERO && age_ms <= NAMES_MS_MAX).then(|| self.next.plus_millis(age_ms + 1))
    }

    /// Whether [`NAMES_PER_GRANT`] more should be asked for, because few are left or they get old; true once until they
    /// are added or were not to be had.
    pub fn wants_more(&mut self, now_ms: u64) -> bool {
        let old = now_ms.saturating_sub(self.since_ms) > NAMES_MS_MAX / 2;
        let wants = !self.asking && (old || self.left < NAMES_PER_GRANT / 2);
        self.asking |= wants;
        wants
    }

    /// They came: [`NAMES_PER_GRANT`] of them, asked for at `asked_ms`. Those that were left are forgotten.
    pub fn add(&mut self, first: Timestamp, asked_ms: u64) {
        *self = Self { next: first, left: NAMES_PER_GRANT, since_ms: asked_ms, asking: false };
    }

    /// They did not come.
    pub fn failed(&mut self) {
        self.asking = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_given_once_and_not_too_late() {
        let mut names = Names::default();
        assert_eq!(names.take(5_000), None);
        assert!(names.wants_more(5_000));
        assert!(!names.wants_more(5_000), "they are asked for");
        names.add(Timestamp(70), 5_000);
        assert_eq!(
            (names.take(5_001), names.take(5_000 + NAMES_MS_MAX)),
            (Some(Timestamp(70)), Some(Timestamp(71)))
        );
        assert_eq!(names.take(5_001 + NAMES_MS_MAX), None, "too old");
    }

    #[test]
    fn the_time_goes_on_from_the_last_question() {
        let mut names = Names::default();
        assert_eq!(names.now(5_000), None);
        let asked = Timestamp::ZERO.plus_millis(9_000);
        names.add(asked, 5_000);
        assert_eq!(names.now(5_000), Some(asked.plus_millis(1)), "the clock counts whole milliseconds");
        assert_eq!(names.now(5_000 + NAMES_MS_MAX), Some(asked.plus_millis(NAMES_MS_MAX + 1)));
        assert_eq!(names.now(5_001 + NAMES_MS_MAX), None, "too old");
    }

    #[test]
    fn more_are_asked_for_before_they_are_needed() {
        let mut names = Names::default();
        names.add(Timestamp(1_000), 0);
        assert!(!names.wants_more(1));
        for _ in 0..NAMES_PER_GRANT / 2 {
            names.take(1);
        }
        assert!(!names.wants_more(1));
        names.take(1);
        assert!(names.wants_more(1));
        names.failed();
        assert!(names.wants_more(1), "they did not come");
        names.add(Timestamp(9_000), 2);
        assert_eq!(names.take(3), Some(Timestamp(9_000)));
        assert!(!names.wants_more(3));
        assert!(names.wants_more(3 + NAMES_MS_MAX / 2), "they get old");
        let all: Vec<_> = std::iter::from_fn(|| names.take(3)).collect();
        assert_eq!(all.len() as u64, NAMES_PER_GRANT - 1);
        assert!(all.is_sorted_by(|one, next| one < next));
    }
}
