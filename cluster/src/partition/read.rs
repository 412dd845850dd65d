//! Reads. Callers make sure that what they read is settled: applied far enough, and not below the GC floor.

use super::PartitionState;
use crate::ids::KeyspaceId;
use crate::key::EncodedKey;
use crate::timestamp::Timestamp;
use crate::wire::{RangePage, RangeScan, Versioned};
use bytes::Bytes;
use std::ops::Bound;

impl PartitionState {
    /// The value that `key` had at `at`, [`Timestamp::MAX`] for the latest; none if it had none.
    pub fn get(&self, key: &EncodedKey, at: Timestamp) -> Option<Versioned> {
        let version = self.keys.get(key)?.visible(at)?;
        let value = version.value.clone()?;
        Some(Versioned { value, version: version.timestamp })
    }

    /// The version of the value that `key` has now.
    pub fn exists(&self, key: &EncodedKey) -> Option<Timestamp> {
        let newest = self.keys.get(key)?.newest();
        newest.value.is_some().then_some(newest.timestamp)
    }

    /// One page of a range, in key order. A limit of zero entries counts as one, so that paging always ends.
    pub fn scan(&self, scan: &RangeScan) -> RangePage {
        let mut page = RangePage::default();
        let internal = EncodedKey::from_parts(KeyspaceId::INTERNAL, b"");
        let end = scan.end.as_ref().map_or(&internal, |end| end.min(&internal));
        if *end <= scan.start {
            return page;
        }
        let end = Bound::Excluded(end);
        let limit = scan.limit.max(1) as usize;
        let mut bytes = 0;
        for (key, chain) in self.keys.range((Bound::Included(&scan.start), end)) {
            let Some(version) = chain.visible(scan.at) else { continue };
            let Some(value) = &version.value else { continue };
            if page.entries.len() == limit {
                page.more = true;
                break;
            }
            let value = if scan.keys_only { Bytes::new() } else { value.clone() };
            bytes += key.as_bytes().len() + value.len();
            if bytes > scan.bytes_max as usize && !page.entries.is_empty() {
                page.more = true;
                break;
            }
            page.entries.push((key.clone(), Versioned { value, version: version.timestamp }));
        }
        page
    }
}
