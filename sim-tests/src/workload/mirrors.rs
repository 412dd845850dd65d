//! Registers that batches write all at once, without reading any: every snapshot shows the same in all of them, and
//! nothing older than what was committed, or seen, before it began. Part of [`super::fork`].

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use std::cell::{Cell, RefCell};
use trandb_client::{Batch, Client, Error, Isolation, Timestamp, TxnOptions, Versioned};

/// Enough that most batches are in several partitions.
const MIRRORS: usize = 4;

#[derive(Default)]
pub(super) struct Mirrors {
    /// What everyone must see by now.
    known: Cell<Timestamp>,
    numbers: Cell<u64>,
    wrong: RefCell<Vec<String>>,
}

fn keys(random: &mut StdRng) -> Vec<String> {
    let mut keys: Vec<String> = (0..MIRRORS).map(|nth| format!("fork-mirror-{nth}")).collect();
    keys.shuffle(random);
    keys
}

impl Mirrors {
    /// Writes all, or looks at all.
    pub(super) async fn run(&self, client: &Client, random: &mut StdRng) {
        let keys = keys(random);
        let known = self.known.get();
        if random.random_bool(0.5) {
            let levels = [Isolation::ReadCommitted, Isolation::Snapshot, Isolation::Serializable];
            let level = levels[random.random_range(0..levels.len())];
            self.numbers.set(self.numbers.get() + 1);
            let number = self.numbers.get().to_string();
            let batch =
                keys.iter().fold(Batch::new().isolation(level), |batch, key| batch.put(key, number.clone()));
            if let Ok(committed) = client.batch(batch).await {
                self.check(known, Some(committed.at), "a batch");
            }
        } else if let Ok(seen) = look(client, &keys).await {
            self.judge(known, &seen);
        }
    }

    /// What a snapshot shows, that began when `known` was known.
    fn judge(&self, known: Timestamp, seen: &[Option<Versioned>]) {
        if seen.windows(2).any(|pair| pair[0] != pair[1]) {
            self.wrong.borrow_mut().push(format!("a snapshot shows what no batch wrote: {seen:?}"));
        }
        self.check(known, seen[0].as_ref().map(|found| found.version), "a snapshot");
    }

    /// Something is as of `at`, or of before there was anything, and began when `known` was known.
    fn check(&self, known: Timestamp, at: Option<Timestamp>, what: &str) {
        let at = at.unwrap_or(Timestamp::ZERO);
        if at < known {
            self.wrong
                .borrow_mut()
                .push(format!("{what} is as of {at}, and {known} was known before it began"));
        }
        self.known.set(self.known.get().max(at));
    }

    /// What must not be.
    pub(super) fn violations(&self) -> Vec<String> {
        self.wrong.borrow().clone()
    }
}

async fn look(client: &Client, keys: &[String]) -> Result<Vec<Option<Versioned>>, Error> {
    let options = TxnOptions { read_only: true, ..TxnOptions::default() };
    let txn = client.begin_with(options).await?;
    let mut seen = Vec::new();
    for key in keys {
        seen.push(txn.get(key).await?);
    }
    txn.commit().await?;
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(value: &'static str, version: u64) -> Option<Versioned> {
        Some(Versioned { value: value.into(), version: Timestamp(version) })
    }

    #[test]
    fn halves_and_old_snapshots_are_found() {
        let mirrors = Mirrors::default();
        mirrors.judge(Timestamp(0), &[None, None]);
        mirrors.judge(Timestamp(0), &[found("1", 5), found("1", 5)]);
        mirrors.judge(Timestamp(4), &[found("1", 5), found("1", 5)]);
        assert!(mirrors.violations().is_empty());
        mirrors.judge(Timestamp(0), &[found("1", 5), None]);
        mirrors.judge(Timestamp(0), &[found("1", 5), found("1", 6)]);
        assert_eq!(mirrors.violations().len(), 2);
        mirrors.judge(Timestamp(6), &[found("1", 5), found("1", 5)]);
        mirrors.check(Timestamp(8), Some(Timestamp(7)), "a batch");
        assert_eq!(mirrors.violations().len(), 4);
    }
}
