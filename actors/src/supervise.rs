//! How often a child may die before its supervisor gives up.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// Deaths of one child within [`WITHIN`] that take the supervisor down.
const DEATHS_MAX: usize = 5;

/// See [`DEATHS_MAX`].
const WITHIN: Duration = Duration::from_secs(60);

/// Counts deaths, child by child.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    deaths: BTreeMap<String, VecDeque<Instant>>,
}

impl Restarts {
    /// Counts a death.
    ///
    /// # Errors
    /// When the child has died too often: the supervisor should not start it again but fail.
    pub(crate) fn count(&mut self, child: &str, now: Instant) -> Result<(), String> {
        let deaths = self.deaths.entry(child.to_owned()).or_default();
        deaths.push_back(now);
        while deaths.front().is_some_and(|&death| now - death > WITHIN) {
            deaths.pop_front();
        }
        if deaths.len() >= DEATHS_MAX {
            return Err(format!("{child} died {DEATHS_MAX} times within {} s", WITHIN.as_secs()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_fifth_death_within_a_minute_is_one_too_many() {
        let mut restarts = Restarts::default();
        for _ in 0..4 {
            assert!(restarts.count("p1", Instant::now()).is_ok());
            assert!(restarts.count("p2", Instant::now()).is_ok());
        }
        tokio::time::advance(WITHIN + Duration::from_secs(1)).await;
        assert!(restarts.count("p1", Instant::now()).is_ok(), "the first four are too long ago");
        for _ in 0..3 {
            assert!(restarts.count("p1", Instant::now()).is_ok());
        }
        assert_eq!(restarts.count("p1", Instant::now()), Err("p1 died 5 times within 60 s".into()));
    }
}
