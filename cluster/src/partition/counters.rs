//! Sums over all keys that are kept up to date with each change, so that asking costs nothing.

use super::check::Walk;
use crate::digest::Digest;
use crate::key::EncodedKey;
use crate::mvcc::{KEY_OVERHEAD_BYTES, Version};

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) digest: Digest,
    pub(super) live_keys: u64,
    /// Of keys and their newest values, without overheads.
    pub(super) live_bytes: u64,
    pub(super) versions: u64,
    pub(super) bytes: u64,
    /// The walk over the memory that is under way.
    pub(super) walk: Option<Walk>,
}

impl Counters {
    /// A key entered the map.
    pub(super) fn key_added(&mut self, key: &EncodedKey) {
        self.bytes += (key.as_bytes().len() + KEY_OVERHEAD_BYTES) as u64;
    }

    /// A key left the map; its versions are counted apart.
    pub(super) fn key_removed(&mut self, key: &EncodedKey) {
        self.bytes -= (key.as_bytes().len() + KEY_OVERHEAD_BYTES) as u64;
    }

    /// A version entered a chain.
    pub(super) fn version_added(&mut self, version: &Version) {
        self.versions += 1;
        self.bytes += version.weight() as u64;
    }

    /// A version left a chain.
    pub(super) fn version_removed(&mut self, version: &Version) {
        self.versions -= 1;
        self.bytes -= version.weight() as u64;
    }

    /// A key's newest version changed, which is what live data is about.
    pub(super) fn newest_changed(&mut self, key: &EncodedKey, old: Option<&Version>, new: &Version) {
        let digest =
            |version: &Version| version.value.as_ref().map(|value| Digest::of(key, version.timestamp, value));
        self.live_bytes -= old.map_or(0, |old| live_bytes(key, old));
        self.live_bytes += live_bytes(key, new);
        let (old, new) = (old.and_then(digest), digest(new));
        if let Some(old) = old {
            self.digest.remove(old);
            self.live_keys -= u64::from(!key.is_internal());
        }
        if let Some(new) = new {
            self.digest.add(new);
            self.live_keys += u64::from(!key.is_internal());
        }
        if let Some(walk) = &mut self.walk {
            walk.changed(key, old, new);
        }
    }
}

/// What a key's newest version adds to live data.
fn live_bytes(key: &EncodedKey, version: &Version) -> u64 {
    version.value.as_ref().map_or(0, |value| (key.as_bytes().len() + value.len()) as u64)
}
