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

/// A task that is woken later than this was held up.
const LATE_MS: u64 = 3;

/// Samples that are judged together.
const WINDOW: u32 = 32;

/// Samples of a window that may be late.
const LATE_ALLOWED: u32 = 1;

/// Bytes per second, at the least.
pub const SLOWEST: u64 = 32 << 20;

/// Bytes per second that are as good as no limit.
pub const FASTEST: u64 = 1 << 30;

/// A pure state machine; the caller brings the samples and keeps the rests.
#[derive(Debug, Clone)]
pub struct Pace {
    per_second: u64,
    samples: u32,
    late: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { per_second: FASTEST, samples: 0, late: 0 }
    }
}

impl Pace {
    /// A task was woken this many milliseconds after the time that it asked for.
    pub fn sample(&mut self, lag_ms: u64) {
        self.samples += 1;
        self.late += u32::from(lag_ms >= LATE_MS);
        if self.late > LATE_ALLOWED {
            self.begin_window(self.per_second - self.per_second / 4);
        } else if self.samples >= WINDOW {
            self.begin_window(self.per_second + self.per_second / 16);
        }
    }

    fn begin_window(&mut self, per_second: u64) {
        *self = Self { per_second: per_second.clamp(SLOWEST, FASTEST), samples: 0, late: 0 };
    }

    /// Bytes per second of heavy work; [`FASTEST`] is no limit.
    pub fn per_second(&self) -> u64 {
        self.per_second
    }

    /// Milliseconds of rest after so many bytes of heavy work.
    pub fn rest_ms(&self, bytes: u64) -> u64 {
        if self.per_second == FASTEST { 0 } else { bytes.saturating_mul(1000) / self.per_second }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: u64 = 4 << 20;

    fn sampled(mut pace: Pace, lags: impl IntoIterator<Item = u64>) -> Pace {
        lags.into_iter().for_each(|lag| pace.sample(lag));
        pace
    }

    #[test]
    fn nothing_rests_while_nothing_is_late() {
        let pace = sampled(Pace::default(), [LATE_MS - 1; 1000]);
        assert_eq!((pace.per_second(), pace.rest_ms(VALUE)), (FASTEST, 0));
    }

    #[test]
    fn one_late_task_in_a_window_changes_nothing() {
        let window = [0; WINDOW as usize - 1].into_iter().chain([50]);
        let pace = sampled(Pace::default(), std::iter::repeat_n(window, 20).flatten());
        assert_eq!(pace.rest_ms(VALUE), 0);
    }

    #[test]
    fn the_pace_falls_with_the_second_late_task_and_to_its_floor() {
        let pace = sampled(Pace::default(), [0, LATE_MS, 0, LATE_MS]);
        assert_eq!((pace.per_second(), pace.rest_ms(VALUE)), (FASTEST / 4 * 3, 5));
        let pace = sampled(pace, [u64::MAX; 1000]);
        assert_eq!((pace.per_second(), pace.rest_ms(VALUE)), (SLOWEST, 125));
        assert_eq!(pace.rest_ms(u64::MAX), u64::MAX / SLOWEST, "no overflow");
    }

    #[test]
    fn it_falls_faster_than_it_grows_and_comes_back_whole() {
        let slow = sampled(Pace::default(), [100; 1000]);
        let (fallen, grown) =
            (sampled(Pace::default(), [100; WINDOW as usize]), sampled(slow.clone(), [0; WINDOW as usize]));
        assert!(FASTEST / fallen.per_second() > grown.per_second() / SLOWEST);
        let windows = (1..).find(|windows| {
            sampled(slow.clone(), std::iter::repeat_n(0, windows * WINDOW as usize)).per_second() == FASTEST
        });
        assert_eq!(windows, Some(58));
    }
}
