//! Many cuts of one recording.

use crate::image::{Image, Left};
use crate::judge::{Found, judge};
use crate::load::History;
use crate::recording::{Clock, Recording};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::runtime::{Handle, Runtime};
use trandb_actors::node::{Doors, NodeOptions, StorageDoor};
use trandb_runtime::config::Config;

/// Nodes that are started at the same time: each waits most of its time.
const AT_ONCE: usize = 4;

/// Failures after which a run says no more than how many there are.
const SHOWN: usize = 5;

/// How close to a turning point every other cut is, in beginnings and ends of events.
const CLOSE: u64 = 6;

/// What was recorded, and what clients were told meanwhile.
pub(crate) struct Run {
    pub(crate) recording: Recording,
    pub(crate) history: History,
}

/// Judges what a node makes of an image, which it may put into a directory.
pub(crate) type Try = fn(&Cut<'_>, &Image, &mut StdRng) -> Result<(), String>;

/// One cut, and what it is judged by.
pub(crate) struct Cut<'a> {
    pub(crate) history: &'a History,
    pub(crate) runtime: &'a Handle,
    pub(crate) folder: &'a Path,
    pub(crate) at: Clock,
}

impl Cut<'_> {
    /// Starts a node and judges it; what it held.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn judge(&self, options: NodeOptions) -> Result<Found, String> {
        self.runtime.block_on(judge(options, self.history, self.at))
    }
}

/// How long a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// All cuts are made, since each of them counts.
    Done,
    /// One of them has failed, which is what is wanted to be seen.
    Failure,
}

impl Run {
    /// Cuts the power so many times; how many of them went wrong.
    pub(crate) fn cut(self, cuts: usize, until: Until, seed: u64, judged: Try) -> usize {
        println!("recorded: {}", self.recording.summary());
        let (puts, told) = self
            .history
            .values()
            .flatten()
            .fold((0, 0), |(all, told), attempt| (all + 1, told + usize::from(attempt.told.is_some())));
        println!("{puts} writes, {told} acknowledged, of {} keys", self.history.len());
        let mut random = StdRng::seed_from_u64(seed);
        let points = self.points(cuts, &mut random);
        let run = Arc::new(self);
        let runtime = Runtime::new().expect("a runtime");
        let mut failures: BTreeMap<Left, Vec<String>> = BTreeMap::new();
        let mut made = 0;
        for batch in points.chunks(AT_ONCE) {
            if until == Until::Failure && !failures.is_empty() {
                break;
            }
            made += batch.len();
            let threads = batch.iter().map(|&(cut, left, seed)| {
                let run = run.clone();
                let runtime = runtime.handle().clone();
                // A thread each: what rebuilds and opens disks blocks.
                std::thread::spawn(move || (left, run.cut_once(&runtime, cut, left, seed, judged)))
            });
            for thread in threads.collect::<Vec<_>>() {
                let (left, verdict) = thread.join().expect("no panic");
                if let Err(why) = verdict {
                    failures.entry(left).or_default().push(why);
                }
            }
        }
        for left in Left::ALL {
            let cuts = points[..made].iter().filter(|point| point.1 == left).count();
            let failed = failures.get(&left).map_or(0, Vec::len);
            println!("left of what was not synced: {left:?}: {cuts} cuts, {failed} failed");
        }
        let all: Vec<&String> = failures.values().flatten().collect();
        for why in all.iter().take(SHOWN) {
            println!("failed: {why}");
        }
        all.len()
    }

    /// Where the power goes, what is left, and by which dice.
    fn points(&self, cuts: usize, random: &mut StdRng) -> Vec<(Clock, Left, u64)> {
        let turning: Vec<Clock> = self
            .recording
            .events
            .iter()
            .filter(|event| event.what.is_turning_point())
            .map(|event| event.begun)
            .collect();
        (0..cuts)
            .map(|number| {
                let cut = if turning.is_empty() || random.random_bool(0.5) {
                    random.random_range(0..=self.recording.now())
                } else {
                    let at = turning[random.random_range(0..turning.len())];
                    (at + random.random_range(0..=CLOSE)).saturating_sub(CLOSE / 2).min(self.recording.now())
                };
                (cut, Left::ALL[number % Left::ALL.len()], random.random())
            })
            .collect()
    }

    fn cut_once(
        &self,
        runtime: &Handle,
        at: Clock,
        left: Left,
        seed: u64,
        judged: Try,
    ) -> Result<(), String> {
        let mut random = StdRng::seed_from_u64(seed);
        let folder = TempDir::new().expect("a folder");
        let image = Image::after(&self.recording, at, left, &mut random);
        let cut = Cut { history: &self.history, runtime, folder: folder.path(), at };
        judged(&cut, &image, &mut random).map_err(|why| {
            format!("cut at {at} of {}, {left:?} left (dice {seed}): {why}", self.recording.now())
        })
    }
}

/// A node of this process.
pub(crate) fn options(config: Config, storage: StorageDoor) -> NodeOptions {
    let doors =
        Doors { metrics: Arc::new(String::new), version: "test".to_owned(), commit: "test".to_owned() };
    NodeOptions { storage, ..NodeOptions::real(config, doors) }
}
