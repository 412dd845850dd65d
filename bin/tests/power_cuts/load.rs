//! Clients that overwrite and remove their own keys, some of them two at a time in one transaction, and remember what
//! they asked for and when they were told that it was done.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use trandb_client::{Batch, Client};

/// Clients that write single keys, each of its own.
const WRITERS: usize = 12;

/// Clients that write two keys at once, mostly of different partitions.
const PAIR_WRITERS: usize = 3;

/// Keys of each client: so few that most are overwritten and removed again and again.
const KEYS: usize = 12;

/// Of the values, in bytes: most are small, some fill pages, a few are as large as they may be.
const SMALL: usize = 300;
const MEDIUM: usize = 40_000;
const LARGE: usize = 4 << 20;

/// Values of more than [`MEDIUM`] bytes in one run, over all clients: they fill a segment each four.
const LARGE_VALUES: usize = 10;

/// Says where a recording is: its clock, or the time.
pub(crate) type Stamp = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Something that a client wanted of a key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    /// Bytes of the value; none removes the key.
    pub(crate) bytes: Option<usize>,
    pub(crate) sent: u64,
    /// When the client had been told that it is done; none if it never was.
    pub(crate) told: Option<u64>,
}

/// What clients wanted of their keys, in order.
pub(crate) type History = BTreeMap<String, Vec<Attempt>>;

/// The value of the attempt of that number (from one on): no other has the same.
pub(crate) fn value(key: &str, number: usize, bytes: usize) -> Bytes {
    let mut value = format!("{key} {number} {bytes} ").into_bytes();
    let mut state = (number as u64) << 32 | bytes as u64;
    while value.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(key.len() as u64 | 1);
        value.extend_from_slice(&state.to_le_bytes());
    }
    value.truncate(bytes.max(key.len() + 24));
    value.into()
}

/// The key that is written together with `key`, if it is one of two.
pub(crate) fn twin(key: &str) -> Option<String> {
    key.strip_prefix("pair/a").map(|rest| format!("pair/b{rest}"))
}

/// Runs the load against a node until it is `enough`.
pub(crate) async fn run(addr: &str, enough: impl Future<Output = ()>, seed: u64, stamp: Stamp) -> History {
    let client = Client::builder()
        .timeout(Duration::from_secs(60))
        .connect(addr.to_owned())
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    let over = Arc::new(AtomicBool::new(false));
    let large = Arc::new(tokio::sync::Semaphore::new(LARGE_VALUES));
    let writers = (0..WRITERS + PAIR_WRITERS).map(|number| {
        let writer = Writer {
            number,
            client: client.clone(),
            random: StdRng::seed_from_u64(seed ^ number as u64),
            stamp: stamp.clone(),
            large: large.clone(),
            history: History::new(),
        };
        tokio::spawn(writer.run(over.clone()))
    });
    let writers: Vec<_> = writers.collect();
    enough.await;
    over.store(true, Ordering::Relaxed);
    let mut history = History::new();
    for writer in writers {
        history.extend(writer.await.expect("no panic"));
    }
    history
}

struct Writer {
    number: usize,
    client: Client,
    random: StdRng,
    stamp: Stamp,
    large: Arc<tokio::sync::Semaphore>,
    history: History,
}

impl Writer {
    async fn run(mut self, over: Arc<AtomicBool>) -> History {
        while !over.load(Ordering::Relaxed) {
            let key = self.random.random_range(0..KEYS);
            if self.number < WRITERS {
                self.write(format!("single/{}/{key}", self.number)).await;
            } else {
                self.write_pair(format!("{}/{key}", self.number)).await;
            }
        }
        self.history
    }

    fn begin(&mut self, key: &str, bytes: Option<usize>) -> usize {
        let sent = (self.stamp)();
        let attempts = self.history.entry(key.to_owned()).or_default();
        attempts.push(Attempt { bytes, sent, told: None });
        attempts.len()
    }

    fn told(&mut self, key: &str) {
        let now = (self.stamp)();
        let attempts = self.history.get_mut(key).expect("was begun");
        attempts.last_mut().expect("was begun").told = Some(now);
    }

    fn bytes(&mut self) -> Option<usize> {
        match self.random.random_range(0..100) {
            0..12 => None,
            12..20 => Some(self.random.random_range(SMALL..MEDIUM)),
            20 => match self.large.try_acquire() {
                Ok(permit) => {
                    permit.forget();
                    Some(self.random.random_range(MEDIUM..=LARGE))
                }
                Err(_) => None,
            },
            _ => Some(self.random.random_range(0..SMALL)),
        }
    }

    async fn write(&mut self, key: String) {
        let bytes = self.bytes();
        let number = self.begin(&key, bytes);
        let done = match bytes {
            Some(bytes) => self.client.put(&key, value(&key, number, bytes)).await.map(drop),
            None => self.client.delete(&key).await.map(drop),
        };
        done.unwrap_or_else(|error| panic!("{key}: {error}"));
        self.told(&key);
    }

    async fn write_pair(&mut self, name: String) {
        let keys = [format!("pair/a/{name}"), format!("pair/b/{name}")];
        let bytes = self.random.random_range(0..SMALL);
        let mut batch = Batch::new();
        for key in &keys {
            let number = self.begin(key, Some(bytes));
            batch = batch.put(key, value(key, number, bytes));
        }
        self.client.batch(batch).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        for key in &keys {
            self.told(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_differ_by_key_and_number() {
        let all = [value("a", 1, 100), value("a", 2, 100), value("b", 1, 100), value("a", 1, 101)];
        for (at, one) in all.iter().enumerate() {
            assert!(all[at + 1..].iter().all(|other| other != one));
        }
        assert_eq!(value("a", 1, 0), value("a", 1, 0));
        assert_eq!(twin("pair/a/1/2").as_deref(), Some("pair/b/1/2"));
        assert_eq!(twin("single/1/2"), None);
    }
}
