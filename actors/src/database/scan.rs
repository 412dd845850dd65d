//! Scans: one snapshot, read from all partitions, merged in key order.
//!
//! A keyspace is spread over all partitions by hash, so every partition has a part of every range. Each answers
//! up to the page's limit; the merged page ends where the first partition that has more to say ended.

use super::{Call, Database, RequestContext};
use crate::partition::{PartitionMessage, ScanCall};
use bytes::Bytes;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use trandb_cluster::limits::{
    KEY_BYTES_MAX, SCAN_PAGE_BYTES_MAX, SCAN_PAGE_ENTRIES_DEFAULT, SCAN_PAGE_ENTRIES_MAX,
};
use trandb_cluster::wire::{self, Entry, KeyOp, Page, RangePage, RangeScan, ScanRequest};
use trandb_cluster::{EncodedKey, Error, Key, KeyspaceId, Timestamp};

/// Where a scan goes on. Opaque to clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Cursor {
    /// The snapshot of all pages.
    at: Timestamp,
    /// The last key of the page before.
    after: Bytes,
}

impl Database {
    /// One page of a scan.
    ///
    /// # Errors
    /// `invalid` for bounds that cannot be, a foreign cursor, or a snapshot that is in the future or too long
    /// ago; `unavailable` when a partition has no leader.
    pub async fn scan(&self, scan: ScanRequest, context: &RequestContext) -> Result<Page, Error> {
        let keyspace = self.keyspace(scan.keyspace.as_deref())?;
        let range = Range::of(&scan, keyspace)?;
        let now = self.timestamp(context).await?;
        let at = match (range.at, scan.at) {
            (Some(at), _) | (None, Some(at)) => at,
            (None, None) => now,
        };
        if at > now {
            return Err(Error::invalid(format!("{at} is in the future, it is {now} now")));
        }
        let limit = match scan.limit as usize {
            0 => SCAN_PAGE_ENTRIES_DEFAULT,
            limit => limit.min(SCAN_PAGE_ENTRIES_MAX),
        };
        self.scan_range(&range, limit, at, scan.keys_only, context).await
    }

    /// One page of a range as of `at`, which is not in the future.
    pub(crate) async fn scan_range(
        &self,
        range: &Range,
        limit: usize,
        at: Timestamp,
        keys_only: bool,
        context: &RequestContext,
    ) -> Result<Page, Error> {
        let part = RangeScan {
            start: range.start.clone(),
            end: Some(range.end.clone()),
            at,
            limit: limit as u32,
            bytes_max: SCAN_PAGE_BYTES_MAX as u32,
            keys_only,
        };
        let calls = self.partitions().into_iter().map(|partition| {
            let part = &part;
            async move {
                if let Some(page) = self.scan_here(partition, part, context).await {
                    return Ok(page);
                }
                let call = Call { partition, writes: false, weight: 256 };
                let (page, _) = self
                    .at_leader(&call, context, |reply| {
                        PartitionMessage::Scan(ScanCall { scan: part.clone(), trace: context.trace }, reply)
                    })
                    .await?;
                Ok::<RangePage, Error>(page)
            }
        });
        let pages = try_join_all(calls).await?;
        Ok(merge(pages, limit, at))
    }

    /// Refuses gets of the future: what they read could still change. A get of the past needs no more, since the
    /// leader waits for what is in flight.
    pub(super) async fn check_past(&self, ops: &[KeyOp], context: &RequestContext) -> Result<(), Error> {
        let latest = ops.iter().filter_map(|op| match op {
            KeyOp::Get { at, .. } => *at,
            _ => None,
        });
        let Some(latest) = latest.max() else { return Ok(()) };
        let now = self.timestamp(context).await?;
        if latest > now {
            return Err(Error::invalid(format!("{latest} is in the future, it is {now} now")));
        }
        Ok(())
    }
}

/// What a scan is about.
pub(crate) struct Range {
    /// Keys at or after this.
    pub(crate) start: EncodedKey,
    /// Keys before this.
    pub(crate) end: EncodedKey,
    /// The snapshot of the pages before.
    pub(crate) at: Option<Timestamp>,
}

impl Range {
    /// Where a scan goes on after a key.
    pub(crate) fn cursor(at: Timestamp, after: &Bytes) -> Bytes {
        wire::encode(&Cursor { at, after: after.clone() }).into()
    }

    pub(crate) fn of(scan: &ScanRequest, keyspace: KeyspaceId) -> Result<Self, Error> {
        for (name, bound) in
            [("prefix", Some(&scan.prefix)), ("start", scan.start.as_ref()), ("end", scan.end.as_ref())]
        {
            let bytes = bound.map_or(0, |bound| bound.len());
            if bytes > KEY_BYTES_MAX {
                return Err(Error::invalid(format!(
                    "{name} has {bytes} bytes, the limit is {KEY_BYTES_MAX}"
                )));
            }
            if let Some(bound) = bound.filter(|bound| !bound.is_empty()) {
                Key::new(bound.clone())
                    .map_err(|error| Error::invalid(format!("{name}: {}", error.message)))?;
            }
        }
        let mut start: Vec<u8> = scan.prefix.to_vec();
        if let Some(from) = &scan.start
            && from[..] > start[..]
        {
            start = from.to_vec();
        }
        let mut at = None;
        if let Some(cursor) = &scan.cursor {
            let cursor: Cursor = wire::decode(cursor)
                .map_err(|_| Error::invalid("the cursor was not made by this database"))?;
            if scan.at.is_some_and(|asked| asked != cursor.at) {
                return Err(Error::invalid("the cursor belongs to another point in time"));
            }
            at = Some(cursor.at);
            // The next key after a key is that key and a zero byte.
            let mut next = cursor.after.to_vec();
            next.push(0);
            if next > start {
                start = next;
            }
        }
        let of_prefix = after_prefix(&scan.prefix);
        let end = match (&scan.end, of_prefix) {
            (Some(end), Some(of_prefix)) => Some(end.to_vec().min(of_prefix)),
            (Some(end), None) => Some(end.to_vec()),
            (None, of_prefix) => of_prefix,
        };
        let end = match end {
            Some(end) => EncodedKey::from_parts(keyspace, &end),
            None => EncodedKey::from_parts(KeyspaceId(keyspace.0 + 1), b""),
        };
        Ok(Self { start: EncodedKey::from_parts(keyspace, &start), end, at })
    }
}

/// The first key after all that begin with `prefix`; none when there is no such key.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut after = prefix[..=last].to_vec();
    after[last] += 1;
    Some(after)
}

fn merge(pages: Vec<RangePage>, limit: usize, at: Timestamp) -> Page {
    // Nothing is known of a partition beyond its last entry if it has more.
    let known_upto = pages
        .iter()
        .filter(|page| page.more)
        .filter_map(|page| page.entries.last())
        .map(|(key, _)| key.clone())
        .min();
    let mut more = known_upto.is_some();
    let mut entries: Vec<_> = pages.into_iter().flat_map(|page| page.entries).collect();
    entries.sort_by(|(left, _), (right, _)| left.cmp(right));
    if let Some(upto) = known_upto {
        entries.retain(|(key, _)| *key <= upto);
    }
    let mut page = Page { at, ..Page::default() };
    let mut bytes = 0;
    for (key, versioned) in entries {
        let key = key.user_key();
        let weight = key.len() + versioned.value.len() + 32;
        if page.entries.len() == limit || (!page.entries.is_empty() && bytes + weight > SCAN_PAGE_BYTES_MAX) {
            more = true;
            break;
        }
        bytes += weight;
        page.entries.push(Entry { key, value: versioned.value, version: versioned.version });
    }
    if more && let Some(last) = page.entries.last() {
        page.cursor = Some(Range::cursor(at, &last.key));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use trandb_cluster::wire::Versioned;

    fn page(keys: &[&str], more: bool) -> RangePage {
        let entries = keys
            .iter()
            .map(|key| {
                let key = EncodedKey::from_parts(KeyspaceId::DEFAULT, key.as_bytes());
                (key, Versioned { value: Bytes::from_static(b"v"), version: Timestamp(1) })
            })
            .collect();
        RangePage { entries, more }
    }

    fn keys(page: &Page) -> Vec<&str> {
        page.entries.iter().map(|entry| std::str::from_utf8(&entry.key).expect("text")).collect()
    }

    #[test]
    fn a_page_ends_where_the_first_partition_that_has_more_ended() {
        let merged = merge(vec![page(&["a", "d"], true), page(&["b", "e", "f"], false)], 10, Timestamp(5));
        assert_eq!(keys(&merged), ["a", "b", "d"]);
        assert!(merged.cursor.is_some());
        let merged = merge(vec![page(&["a", "d"], false), page(&["b"], false)], 10, Timestamp(5));
        assert_eq!(keys(&merged), ["a", "b", "d"]);
        assert!(merged.cursor.is_none());
        let merged = merge(vec![page(&["a", "d"], false), page(&["b"], false)], 2, Timestamp(5));
        assert_eq!(keys(&merged), ["a", "b"]);
        assert!(merged.cursor.is_some());
    }

    #[test]
    fn bounds_are_met() {
        let scan =
            |prefix: &'static str, start: Option<&'static str>, end: Option<&'static str>| ScanRequest {
                prefix: Bytes::from_static(prefix.as_bytes()),
                start: start.map(|text| Bytes::from_static(text.as_bytes())),
                end: end.map(|text| Bytes::from_static(text.as_bytes())),
                ..ScanRequest::default()
            };
        let bounds = |scan| {
            let range = Range::of(&scan, KeyspaceId::DEFAULT).expect("valid");
            (range.start.user_key(), Some((range.end.as_bytes()[3], range.end.user_key())))
        };
        assert_eq!(bounds(scan("", None, None)), (Bytes::new(), Some((2, Bytes::new()))));
        assert_eq!(bounds(scan("ab", None, None)), ("ab".into(), Some((1, "ac".into()))));
        assert_eq!(bounds(scan("ab", Some("abx"), Some("b"))), ("abx".into(), Some((1, "ac".into()))));
        assert_eq!(bounds(scan("a", Some("Z"), Some("a5"))), ("a".into(), Some((1, "a5".into()))));
        let error =
            Range::of(&ScanRequest { cursor: Some("?".into()), ..ScanRequest::default() }, KeyspaceId(1));
        assert_eq!(error.err().expect("refused").message, "the cursor was not made by this database");
    }

    proptest! {
        /// Against a dumb twin: whatever the partitions hold, paging through yields every key once, in order.
        #[test]
        fn pages_cover_everything_once(
            parts in prop::collection::vec(prop::collection::btree_set("[a-f]{1,3}", 0..12), 1..4),
            limit in 1usize..6,
        ) {
            let mut all: Vec<String> = parts.iter().flatten().cloned().collect();
            all.sort();
            all.dedup();
            // A key lives in one partition only.
            let mut seen = std::collections::BTreeSet::new();
            let parts: Vec<Vec<String>> = parts
                .into_iter()
                .map(|part| part.into_iter().filter(|key| seen.insert(key.clone())).collect())
                .collect();
            let mut found = Vec::new();
            let mut after: Option<String> = None;
            for _ in 0..100 {
                let pages = parts
                    .iter()
                    .map(|part| {
                        let rest: Vec<&str> = part
                            .iter()
                            .filter(|key| after.as_ref().is_none_or(|after| *key > after))
                            .map(String::as_str)
                            .collect();
                        page(&rest[..rest.len().min(limit)], rest.len() > limit)
                    })
                    .collect();
                let merged = merge(pages, limit, Timestamp(9));
                found.extend(keys(&merged).into_iter().map(str::to_owned));
                let Some(cursor) = merged.cursor else { break };
                let cursor: Cursor = wire::decode(&cursor).expect("ours");
                after = Some(String::from_utf8(cursor.after.to_vec()).expect("text"));
            }
            prop_assert_eq!(found, all);
        }
    }
}
