//! Operations of an open transaction: reads at its snapshot with its own writes over them, and buffered writes.

use crate::database::{Database, Range, RequestContext};
use crate::gateway::rules;
use std::collections::BTreeMap;
use trandb_cluster::command::Condition;
use trandb_cluster::limits::{SCAN_PAGE_ENTRIES_DEFAULT, SCAN_PAGE_ENTRIES_MAX};
use trandb_cluster::txn::{Coordinator, TxnKey, TxnOp, TxnResponse, TxnWrite};
use trandb_cluster::wire::{Entry, KeyOp, KeyResult, Page, ScanRequest, Versioned};
use trandb_cluster::{EncodedKey, Error, Key, Timestamp};

/// The version of what the transaction itself has written.
const OWN: Timestamp = Timestamp::ZERO;

/// Does one operation.
///
/// # Errors
/// Those of the reads that it takes, `condition_failed`, and `too_large` at the transaction's bounds. The transaction
/// stays open.
pub(super) async fn run(
    database: &Database,
    core: &mut Coordinator,
    op: TxnOp,
    request: &RequestContext,
) -> Result<TxnResponse, Error> {
    core.count_op()?;
    if core.wants_statement_snapshots() && !matches!(op, TxnOp::Write(_)) {
        core.set_statement_snapshot(database.timestamp(request).await?);
    }
    match op {
        TxnOp::Get(key) => {
            let key = encode(database, &key)?;
            Ok(TxnResponse::Value(get(database, core, &key, request).await?))
        }
        TxnOp::GetForUpdate(key) => {
            let key = encode(database, &key)?;
            Ok(TxnResponse::Value(for_update(database, core, &key, request).await?))
        }
        TxnOp::Lock(key) => {
            let key = encode(database, &key)?;
            for_update(database, core, &key, request).await?;
            Ok(TxnResponse::Done)
        }
        TxnOp::Write(write) => put(database, core, write, request).await,
        TxnOp::Scan(scan) => Ok(TxnResponse::Page(page(database, core, scan, request).await?)),
    }
}

fn encode(database: &Database, key: &TxnKey) -> Result<EncodedKey, Error> {
    let keyspace = database.keyspace(key.keyspace.as_deref())?;
    Ok(EncodedKey::new(keyspace, &Key::new(key.key.clone())?))
}

/// A key as the transaction sees it.
async fn get(
    database: &Database,
    core: &mut Coordinator,
    key: &EncodedKey,
    request: &RequestContext,
) -> Result<Option<Versioned>, Error> {
    if let Some(own) = core.own(key) {
        return Ok(own.clone().map(|value| Versioned { value, version: OWN }));
    }
    let at = core.read_at();
    let value = read(database, key, at, request).await?;
    core.saw(key, at)?;
    Ok(value)
}

/// A key's newest value, once its lock is held, which must not change from then on until the commit, at any level. Should
/// the lock be lost with its partition's leader, the commit finds out.
async fn for_update(
    database: &Database,
    core: &mut Coordinator,
    key: &EncodedKey,
    request: &RequestContext,
) -> Result<Option<Versioned>, Error> {
    if core.is_read_only() {
        return Err(Error::invalid("the transaction is read only"));
    }
    database.lock_key(core.txn(), key, request).await?;
    let at = database.timestamp(request).await?;
    let own = core.own(key).cloned();
    let found = read(database, key, at, request).await?;
    core.saw_for_update(key, at)?;
    Ok(match own {
        Some(own) => own.map(|value| Versioned { value, version: OWN }),
        None => found,
    })
}

async fn read(
    database: &Database,
    key: &EncodedKey,
    at: Timestamp,
    request: &RequestContext,
) -> Result<Option<Versioned>, Error> {
    let read = KeyOp::Get { key: key.clone(), at: Some(at) };
    let reply = database.execute_settled(vec![read], request).await.into_iter().next();
    match reply.map(|reply| reply.result) {
        Some(Ok(KeyResult::Value(value))) => Ok(value),
        Some(Err(error)) => Err(error),
        other => Err(Error::internal(format!("a read was answered with {other:?}"))),
    }
}

async fn put(
    database: &Database,
    core: &mut Coordinator,
    write: TxnWrite,
    request: &RequestContext,
) -> Result<TxnResponse, Error> {
    let TxnWrite { key, value, condition } = write;
    let key = encode(database, &key)?;
    if let Some(value) = &value {
        database.admit(&key, value.len())?;
    }
    if condition != Condition::Any {
        if core.wants_statement_snapshots() {
            core.set_statement_snapshot(database.timestamp(request).await?);
        }
        let current = get(database, core, &key, request).await?.map(|found| found.version);
        let holds = match condition {
            Condition::Any => true,
            Condition::Absent => current.is_none(),
            Condition::Present => current.is_some(),
            Condition::Version(version) => current == Some(version),
        };
        if !holds {
            return Err(rules::condition_failed(current));
        }
        let at = core.read_at();
        core.looked_at(&key, at)?;
    }
    core.write(key, value)?;
    Ok(TxnResponse::Done)
}

/// A page of a scan as the transaction sees it.
async fn page(
    database: &Database,
    core: &mut Coordinator,
    scan: ScanRequest,
    request: &RequestContext,
) -> Result<Page, Error> {
    let keyspace = database.keyspace(scan.keyspace.as_deref())?;
    let range = Range::of(&scan, keyspace)?;
    let at = range.at.unwrap_or(core.read_at());
    let keys_only = scan.keys_only;
    let limit = match scan.limit as usize {
        0 => SCAN_PAGE_ENTRIES_DEFAULT,
        limit => limit.min(SCAN_PAGE_ENTRIES_MAX),
    };
    let found = database.scan_range(&range, limit, at, keys_only, request).await?;
    // Where what was read ends: behind the last key, if there may be more.
    let covered = match (&found.cursor, found.entries.last()) {
        (Some(_), Some(last)) => EncodedKey::after(keyspace, &last.key),
        _ => range.end.clone(),
    };
    let mut entries: BTreeMap<_, _> =
        found.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
    let mut changed = false;
    for (key, value) in core.own_in(&range.start, &covered) {
        changed = true;
        let user_key = key.user_key();
        match value {
            Some(value) => {
                let value = if keys_only { bytes::Bytes::new() } else { value.clone() };
                entries.insert(user_key.clone(), Entry { key: user_key, value, version: OWN });
            }
            None => drop(entries.remove(&user_key)),
        }
    }
    let mut entries: Vec<Entry> = entries.into_values().collect();
    let mut upto = covered;
    let mut cursor = found.cursor;
    if entries.len() > limit {
        entries.truncate(limit);
        let last = entries.last().expect("a limit is at least one");
        upto = EncodedKey::after(keyspace, &last.key);
        cursor = Some(Range::cursor(at, &last.key));
    } else if changed && cursor.is_some() {
        // What was read last may be deleted by the transaction itself; it goes on after it all the same.
        cursor = found_cursor(at, &upto);
    }
    core.saw_range(range.start, upto, at)?;
    Ok(Page { entries, cursor, at })
}

/// Goes on at `next`, which is some key and a zero byte.
fn found_cursor(at: Timestamp, next: &EncodedKey) -> Option<bytes::Bytes> {
    let next = next.user_key();
    let last = next.len().checked_sub(1)?;
    Some(Range::cursor(at, &next.slice(..last)))
}
