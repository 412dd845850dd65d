//! Small things that go wrong all the while that a storm lasts: segments are lost and sent again, connections break, disks take long
//! to sync, and actors take up a message late. Faults ([`crate::fault`]) are few and long, and strike one after the other; these are
//! many and short, and strike anywhere.

use crate::plan::Plan;
use crate::settings::pick;
use rand::RngExt;
use rand::rngs::StdRng;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use trandb_runtime::pace::let_stumble;
use trandb_runtime::random::Random;

/// After so long a sender whose segment is not acknowledged sends it again, where nothing behind it tells that it is missing:
/// the least that Linux waits.
const RETRANSMIT: Duration = Duration::from_millis(200);

/// One in so many losses is only noticed after [`RETRANSMIT`]; of others, what arrives behind them tells.
const UNNOTICED: u64 = 8;

/// How many times as long as at the most a sync takes that takes long.
const STUCK: u32 = 10;

/// How late an actor takes up a message at the most.
const LATE_MAX: Duration = Duration::from_millis(10);

/// How often something goes wrong, as a plan wants it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Climate {
    /// Of a million segments that a stream's reader is to have, those that are lost and sent again. What is behind them waits.
    lost: u32,
    /// Of a million segments, those in whose place the reader finds that its connection is broken.
    broken: u32,
    /// Of a million syncs, those that take long.
    stuck: u32,
    /// Of a million messages to actors, those that are taken up late.
    stumbles: u32,
}

impl Climate {
    /// What the seed wants; nothing in one of four plans.
    pub fn draw(random: &mut StdRng) -> Self {
        if random.random_bool(0.25) {
            return Self::default();
        }
        Self {
            lost: pick(random, &[0, 50_000, 100_000, 200_000]),
            broken: pick(random, &[0, 0, 200, 1_000]),
            stuck: pick(random, &[0, 10_000, 50_000]),
            stumbles: pick(random, &[0, 50_000, 100_000, 200_000]),
        }
    }
}

impl fmt::Display for Climate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lost, broken, stuck, stumbles } = self;
        write!(
            f,
            "of a million segments {lost} are lost and {broken} break their connection, of syncs {stuck} take long, of messages to actors {stumbles} wait"
        )
    }
}

/// What becomes of a segment that has reached its reader's host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is there.
    Arrives,
    /// It was lost, and is there when it has been sent again.
    Late(Duration),
    /// Its connection is broken.
    Broken,
}

/// Decides what goes wrong. Clones are the same.
#[derive(Debug, Clone)]
pub struct Weather(Arc<State>);

#[derive(Debug)]
struct State {
    climate: Climate,
    /// How long a message takes at the most.
    latency_max: Duration,
    rages: AtomicBool,
    random: Random,
}

impl Weather {
    /// Fair, until [`Weather::rage`].
    pub fn new(plan: &Plan) -> Self {
        Self(Arc::new(State {
            climate: plan.climate,
            latency_max: plan.latency_max,
            rages: AtomicBool::new(false),
            random: Random::seeded(plan.seed.rotate_left(41)),
        }))
    }

    /// Weather in which so many of a million segments are lost, and so many break their connection.
    #[cfg(test)]
    pub fn raging(lost: u32, broken: u32) -> Self {
        let climate = Climate { lost, broken, ..Climate::default() };
        let weather = Self::new(&Plan { climate, ..Plan::calm(7, 3) });
        weather.rage(true);
        weather
    }

    /// From now on, or not any more, things go wrong as the plan wants.
    pub fn rage(&self, rages: bool) {
        let rages = rages && self.0.climate != Climate::default();
        self.0.rages.store(rages, Ordering::Relaxed);
        let weather = self.clone();
        let_stumble(rages.then(|| Box::new(move || weather.message()) as _));
    }

    /// Whether anything may go wrong now.
    pub fn rages(&self) -> bool {
        self.0.rages.load(Ordering::Relaxed)
    }

    /// What becomes of the next segment.
    pub fn segment(&self) -> Fate {
        let State { climate, latency_max, random, .. } = &*self.0;
        if happens(random, climate.broken) {
            tracing::debug!("a connection breaks");
            return Fate::Broken;
        }
        if !happens(random, climate.lost) {
            return Fate::Arrives;
        }
        tracing::debug!("a segment is lost and sent again");
        if random.between(1, UNNOTICED) == 1 {
            return Fate::Late(RETRANSMIT + *latency_max);
        }
        // Told by what came behind it, and sent once more.
        Fate::Late(Duration::from_micros(random.between(1_000, 2 * latency_max.as_micros() as u64)))
    }

    /// How much later an actor takes up its next message, if it does.
    fn message(&self) -> Option<Duration> {
        let State { climate, random, .. } = &*self.0;
        if !happens(random, climate.stumbles) {
            return None;
        }
        tracing::debug!("an actor takes up a message late");
        Some(Duration::from_micros(random.between(1, LATE_MAX.as_micros() as u64)))
    }

    /// How long a sync takes that takes up to `most` in good weather, and a tenth of it at least.
    pub fn sync(&self, most: Duration) -> Duration {
        let State { climate, random, .. } = &*self.0;
        let micros = most.as_micros() as u64;
        let usual = Duration::from_micros(random.between(micros / 10, micros));
        if !self.rages() || !happens(random, climate.stuck) {
            return usual;
        }
        tracing::debug!("a sync takes long");
        most * STUCK
    }
}

/// Something that happens so often of a million times.
fn happens(random: &Random, of_a_million: u32) -> bool {
    of_a_million > 0 && random.between(0, 999_999) < u64::from(of_a_million)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weather(stuck: u32) -> Weather {
        Weather::new(&Plan { climate: Climate { stuck, ..Climate::default() }, ..Plan::calm(7, 3) })
    }

    #[test]
    fn as_much_goes_wrong_as_the_plan_wants() {
        let weather = Weather::raging(100_000, 10_000);
        let fates: Vec<Fate> = (0..100_000).map(|_| weather.segment()).collect();
        let broken = fates.iter().filter(|fate| **fate == Fate::Broken).count();
        let late = fates.iter().filter(|fate| matches!(fate, Fate::Late(_))).count();
        assert!((900..=1_100).contains(&broken), "{broken}");
        assert!((9_500..=10_500).contains(&late), "{late}");
    }

    #[test]
    fn a_sync_takes_long_only_while_it_rages() {
        let weather = weather(1_000_000);
        let most = Duration::from_millis(4);
        assert!(weather.sync(most) <= most);
        weather.rage(true);
        assert_eq!(weather.sync(most), most * STUCK);
        weather.rage(false);
        assert!(weather.sync(most) <= most);
    }

    #[test]
    fn where_nothing_is_to_go_wrong_it_never_rages() {
        let weather = weather(0);
        weather.rage(true);
        assert!(!weather.rages());
    }
}
