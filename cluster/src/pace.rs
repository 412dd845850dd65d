//! How fast heavy work may go on, so that light work beside it is not held up.
//!
//! A node that copies megabytes has no idle core, and then each step of a small request (a wakeup of a task here, there,
//! and on the way back) waits for one. What tells is *lag*: how much later than it asked for a task is woken. The pace
//! of heavy work is cut by a quarter for every window in which lag was often high, and grows by a sixteenth for every other
//! one, so it falls faster than it comes back. Growth in steps of equal size would make nodes that share cores converge to
//! equal shares (Chiu and Jain 1989, "Analysis of the increase and decrease algorithms for congestion avoidance"); that is
//! given up here for being back soon from far below. That lag is the right signal, and better than use of the processor, is
//! from CockroachDB's elastic CPU control (2022).
//!
//! Heavy work is never starved: the pace has a floor.

/// Between what a pace lies, and what it goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A task that is woken later than this was held up.
    pub late_ms: u64,
    /// Samples of a window that may be late.
    pub late_allowed: u32,
    /// Samples that are judged together.
    pub window: u32,
    /// Bytes per second, at the least.
    pub slowest: u64,
    /// Bytes per second that are as good as no limit.
    pub fastest: u64,
}

/// Of large values on their way through a node.
pub const LARGE_VALUES: Limits =
    Limits { late_ms: 3, late_allowed: 1, window: 32, slowest: 32 << 20, fastest: 1 << 30 };

/// A pure state machine; the caller brings the samples and keeps the rests.
#[derive(Debug, Clone)]
pub struct Pace {
    limits: Limits,
    per_second: u64,
    samples: u32,
    late: u32,
}

impl Pace {
    /// As fast as it may be, for work that is short: it has passed before anybody could tell.
    pub fn fastest(limits: Limits) -> Self {
        Self { limits, per_second: limits.fastest, samples: 0, late: 0 }
    }

    /// As slow as it may be, for work that goes on for long: it is soon as fast as it can.
    pub fn slowest(limits: Limits) -> Self {
        Self { per_second: limits.slowest, ..Self::fastest(limits) }
    }

    /// A task was woken this many milliseconds after the time that it asked for.
    pub fn sample(&mut self, lag_ms: u64) {
        self.samples += 1;
        self.late += u32::from(lag_ms >= self.limits.late_ms);
        if self.late > self.limits.late_allowed {
            self.begin_window(self.per_second - self.per_second / 4);
        } else if self.samples >= self.limits.window {
            self.begin_window(self.per_second + self.per_second / 16);
        }
    }

    fn begin_window(&mut self, per_second: u64) {
        let Limits { slowest, fastest, .. } = self.limits;
        self.per_second = per_second.clamp(slowest, fastest);
        (self.samples, self.late) = (0, 0);
    }

    /// Bytes per second of heavy work; the limits' fastest is none.
    pub fn per_second(&self) -> u64 {
        self.per_second
    }

    /// Milliseconds of rest after so many bytes of heavy work.
    pub fn rest_ms(&self, bytes: u64) -> u64 {
        if self.per_second == self.limits.fastest { 0 } else { bytes.saturating_mul(1000) / self.per_second }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: u64 = 4 << 20;
    const LATE_MS: u64 = LARGE_VALUES.late_ms;
    const WINDOW: u32 = LARGE_VALUES.window;
    const SLOWEST: u64 = LARGE_VALUES.slowest;
    const FASTEST: u64 = LARGE_VALUES.fastest;

    fn sampled(mut pace: Pace, lags: impl IntoIterator<Item = u64>) -> Pace {
        lags.into_iter().for_each(|lag| pace.sample(lag));
        pace
    }

    #[test]
    fn nothing_rests_while_nothing_is_late() {
        let pace = sampled(Pace::fastest(LARGE_VALUES), [LATE_MS - 1; 1000]);
        assert_eq!((pace.per_second(), pace.rest_ms(VALUE)), (FASTEST, 0));
    }

    #[test]
    fn one_late_task_in_a_window_changes_nothing() {
        let window = [0; WINDOW as usize - 1].into_iter().chain([50]);
        let pace = sampled(Pace::fastest(LARGE_VALUES), std::iter::repeat_n(window, 20).flatten());
        assert_eq!(pace.rest_ms(VALUE), 0);
    }

    #[test]
    fn the_pace_falls_with_the_second_late_task_and_to_its_floor() {
        let pace = sampled(Pace::fastest(LARGE_VALUES), [0, LATE_MS, 0, LATE_MS]);
        assert_eq!((pace.per_second(), pace.rest_ms(VALUE)), (FASTEST / 4 * 3, 5));
        let pace = sampled(pace, [u64::MAX; 1000]);
        assert_eq!((pace.per_second(), pace.rest_ms(VALUE)), (SLOWEST, 125));
        assert_eq!(pace.rest_ms(u64::MAX), u64::MAX / SLOWEST, "no overflow");
    }

    #[test]
    fn it_falls_faster_than_it_grows_and_comes_back_whole() {
        let slow = sampled(Pace::fastest(LARGE_VALUES), [100; 1000]);
        let (fallen, grown) = (
            sampled(Pace::fastest(LARGE_VALUES), [100; WINDOW as usize]),
            sampled(slow.clone(), [0; WINDOW as usize]),
        );
        assert!(FASTEST / fallen.per_second() > grown.per_second() / SLOWEST);
        let windows = (1..).find(|windows| {
            sampled(slow.clone(), std::iter::repeat_n(0, windows * WINDOW as usize)).per_second() == FASTEST
        });
        assert_eq!(windows, Some(58));
    }

    #[test]
    fn what_begins_slowly_grows_from_its_floor() {
        let pace = Pace::slowest(LARGE_VALUES);
        assert_eq!(pace.rest_ms(VALUE), 125);
        assert_eq!(sampled(pace, [0; WINDOW as usize]).per_second(), SLOWEST + SLOWEST / 16);
    }
}
