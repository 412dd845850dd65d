//! Starts a node on what is left of a disk and holds what it has against what clients were told.

use crate::load::{Attempt, History, twin, value};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use trandb_actors::node::{NodeOptions, start};
use trandb_client::{Client, ScanRequest};

/// How long a node may take to start and be read: more is as bad as refusing to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// What every judged node is made to write, and no load does.
const AFTER: (&str, &str) = ("after", "the cut");

/// What a node held: keys and values.
pub(crate) type Found = BTreeMap<String, Bytes>;

/// More keys than there can be.
const KEYS_MAX: usize = 100_000;

/// What a node has that was started on what a cut had left, but for what it was made to write then.
///
/// # Errors
/// The first thing that is wrong with it.
pub(crate) async fn judge(options: NodeOptions, history: &History, cut: u64) -> Result<Found, String> {
    tokio::time::timeout(PATIENCE, start_and_check(options, history, cut))
        .await
        .unwrap_or_else(|_| Err(format!("the node does not answer within {PATIENCE:?}")))
}

async fn start_and_check(options: NodeOptions, history: &History, cut: u64) -> Result<Found, String> {
    let node = start(options).await.map_err(|error| format!("the node does not start: {error}"))?;
    let checked = tokio::select! {
        biased;
        checked = read(&node.addresses().native) => checked,
        fatal = node.failed() => Err(format!("the node failed: {}", fatal.message)),
    };
    node.shutdown().await;
    let mut found = checked?;
    // One whose power was cut twice has it from the first time.
    if found.get(AFTER.0).is_some_and(|value| value == AFTER.1) {
        found.remove(AFTER.0);
    }
    check(&found, history, cut)?;
    Ok(found)
}

/// Everything that the node has; and that it takes writes again.
async fn read(addr: &str) -> Result<Found, String> {
    let told = |error: trandb_client::Error| format!("the node refuses: {error}");
    let client = Client::builder().timeout(PATIENCE).connect(addr.to_owned()).await.map_err(told)?;
    let (entries, more) = client.pages(ScanRequest::default()).collect(KEYS_MAX).await.map_err(told)?;
    assert!(!more, "the load writes fewer keys");
    client.put(AFTER.0, AFTER.1).await.map_err(told)?;
    if client.get(AFTER.0).await.map_err(told)?.is_none_or(|found| found.value != AFTER.1) {
        return Err("a write after the cut cannot be read back".to_owned());
    }
    let text = |key: Bytes| String::from_utf8_lossy(&key).into_owned();
    Ok(entries.into_iter().map(|entry| (text(entry.key), entry.value)).collect())
}

/// Holds what was found against what was asked for until `cut`.
fn check(found: &Found, history: &History, cut: u64) -> Result<(), String> {
    if let Some(stranger) = found.keys().find(|key| !history.contains_key(*key)) {
        return Err(format!("key {stranger:?} was never written"));
    }
    let mut numbers = BTreeMap::new();
    for (key, attempts) in history {
        let number = which(key, found.get(key), attempts, cut)?;
        numbers.insert(key.as_str(), number);
    }
    for (key, number) in &numbers {
        if let Some(other) = twin(key)
            && numbers[other.as_str()] != *number
        {
            return Err(format!(
                "{key} is as attempt {number:?} of a transaction left it, {other} as {:?}",
                numbers[other.as_str()]
            ));
        }
    }
    Ok(())
}

/// Whose attempt a key shows: the last that was acknowledged before the cut, or a later one. Zero is none.
fn which(key: &str, found: Option<&Bytes>, attempts: &[Attempt], cut: u64) -> Result<usize, String> {
    let told = |attempt: &Attempt| attempt.told.is_some_and(|told| told <= cut);
    let acknowledged = attempts.iter().rposition(told).map_or(0, |at| at + 1);
    let sent = attempts.partition_point(|attempt| attempt.sent <= cut).max(acknowledged);
    for number in acknowledged..=sent {
        let bytes = number.checked_sub(1).and_then(|at| attempts[at].bytes);
        let wanted = bytes.map(|bytes| value(key, number, bytes));
        if wanted.as_ref() == found {
            return Ok(number);
        }
    }
    let older = (0..attempts.len())
        .map(|at| at + 1)
        .find(|&number| attempts[number - 1].bytes.map(|bytes| value(key, number, bytes)).as_ref() == found);
    let shows = match (found, older) {
        (None, _) => "is not there".to_owned(),
        (Some(_), Some(number)) => format!("is as attempt {number} left it"),
        (Some(value), None) => format!("has {} bytes that nobody wrote", value.len()),
    };
    Err(format!("{key} {shows}; attempt {acknowledged} was acknowledged before the cut, {sent} were sent"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> History {
        let attempt = |bytes, sent, told| Attempt { bytes, sent, told };
        let single = vec![
            attempt(Some(50), 1, Some(2)),
            attempt(None, 3, Some(4)),
            attempt(Some(60), 5, Some(6)),
            attempt(Some(70), 7, None),
        ];
        let pair = vec![attempt(Some(10), 1, Some(2)), attempt(Some(11), 3, None)];
        History::from([
            ("single".to_owned(), single),
            ("pair/a/1".to_owned(), pair.clone()),
            ("pair/b/1".to_owned(), pair),
        ])
    }

    fn verdict(cut: u64, single: Option<(usize, usize)>, a: usize, b: usize) -> Result<(), String> {
        let mut found = BTreeMap::new();
        if let Some((number, bytes)) = single {
            found.insert("single".to_owned(), value("single", number, bytes));
        }
        for (key, number) in [("pair/a/1", a), ("pair/b/1", b)] {
            if number > 0 {
                found.insert(key.to_owned(), value(key, number, 9 + number));
            }
        }
        check(&found, &history(), cut)
    }

    #[test]
    fn only_what_was_acknowledged_or_sent_may_be_there() {
        verdict(0, None, 0, 0).unwrap();
        verdict(1, Some((1, 50)), 1, 1).unwrap();
        verdict(3, Some((1, 50)), 1, 1).unwrap();
        verdict(3, None, 2, 2).unwrap();
        verdict(7, Some((4, 70)), 1, 1).unwrap();
        let wrong = [
            // Lost, an older one, one that was not sent yet, one that nobody wrote.
            verdict(2, None, 1, 1),
            verdict(6, Some((1, 50)), 1, 1),
            verdict(3, Some((3, 60)), 1, 1),
            verdict(6, Some((3, 61)), 1, 1),
            // Half a transaction.
            verdict(7, Some((4, 70)), 2, 1),
        ];
        assert!(wrong.iter().all(Result::is_err), "{wrong:?}");
        let stranger = BTreeMap::from([("other".to_owned(), Bytes::new())]);
        assert!(check(&stranger, &history(), 0).is_err());
    }
}
