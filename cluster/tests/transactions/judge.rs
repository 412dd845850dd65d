//! What a history must be, judged by brute force.

use crate::model::{History, Observed, Txn};
use std::collections::BTreeMap;
use trandb_cluster::Timestamp;
use trandb_cluster::txn::Isolation;

type State = BTreeMap<usize, u64>;

pub(crate) fn judge(history: &History) -> Result<(), String> {
    if !history.left.is_empty() {
        return Err(format!("left behind: {:?}", history.left));
    }
    let mut committed: Vec<&Txn> = history.txns.iter().filter(|txn| txn.committed.is_some()).collect();
    committed.sort_by_key(|txn| txn.committed);
    let mut end = State::new();
    for txn in &committed {
        apply(&mut end, txn);
    }
    if end != history.end {
        return Err(format!("the end is {:?}, and the commits make {end:?}", history.end));
    }
    // Everyone, also who aborted, reads what was committed up to the timestamp read at.
    for txn in &history.txns {
        for observed in &txn.observed {
            explain(observed, &state_at(&committed, observed.at))
                .map_err(|why| format!("{}: {why}", txn.name))?;
        }
    }
    match history.isolation {
        Isolation::ReadCommitted => Ok(()),
        Isolation::Snapshot => first_committer_wins(&committed),
        Isolation::Serializable => {
            first_committer_wins(&committed)?;
            let mut order = Vec::new();
            match serial(&committed, &mut order, &State::new(), &history.end) {
                true => Ok(()),
                false => Err("no serial order that respects real time explains it".into()),
            }
        }
    }
}

fn apply(state: &mut State, txn: &Txn) {
    for (&key, &value) in &txn.writes {
        match value {
            Some(value) => state.insert(key, value),
            None => state.remove(&key),
        };
    }
}

fn state_at(committed: &[&Txn], at: Timestamp) -> State {
    let mut state = State::new();
    for txn in committed.iter().filter(|txn| txn.committed.is_some_and(|then| then <= at)) {
        apply(&mut state, txn);
    }
    state
}

fn explain(observed: &Observed, state: &State) -> Result<(), String> {
    let differs = observed.values.iter().find(|(key, value)| state.get(key).copied() != **value);
    match differs {
        Some((key, value)) => {
            Err(format!("read {value:?} at {} of key {key}, which is {:?}", observed.at, state.get(key)))
        }
        None => Ok(()),
    }
}

fn first_committer_wins(committed: &[&Txn]) -> Result<(), String> {
    for (at, second) in committed.iter().enumerate() {
        for first in &committed[..at] {
            // To delete what is not there changes nothing, and nobody can tell.
            let before = state_at(&committed[..at], first.began);
            let changes = |key: &usize, value: &Option<u64>| value.is_some() || before.contains_key(key);
            let changed = first.writes.iter().filter(|(key, value)| changes(key, value));
            let common = changed.into_iter().any(|(key, _)| second.writes.contains_key(key));
            if common && !second.is_plain && first.committed.is_some_and(|then| then > second.began) {
                return Err(format!("{} overwrote {} that it had not seen", second.name, first.name));
            }
        }
    }
    Ok(())
}

/// Whether the transactions can be put in an order that explains all reads and the end, such that one that had ended
/// before another began comes before it.
fn serial(all: &[&Txn], order: &mut Vec<usize>, state: &State, end: &State) -> bool {
    if order.len() == all.len() {
        return state == end;
    }
    (0..all.len()).any(|next| {
        if order.contains(&next) {
            return false;
        }
        let txn = all[next];
        let too_early = (0..all.len())
            .any(|other| other != next && !order.contains(&other) && all[other].ended < txn.started);
        let explained = txn.observed.iter().all(|observed| explain(observed, state).is_ok());
        if too_early || !explained {
            return false;
        }
        let mut after = state.clone();
        apply(&mut after, txn);
        order.push(next);
        let found = serial(all, order, &after, end);
        order.pop();
        found
    })
}
