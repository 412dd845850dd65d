//! The versions of one key.
//!
//! A chain holds a key's versions, oldest first, each a value or a tombstone. The commit timestamps of one key
//! grow with the log index, so a chain that is sorted by timestamp is sorted by index, too, and
//! "the state at log index i" and "the state at timestamp t" are both prefixes of it:
//!
//! ```text
//!            v@10 i3    v@20 i5    tombstone@31 i9    v@32 i9
//! get at 25 ───────────────┘                             │      newest with timestamp <= 25
//! state at index 8 ────────┘        latest ──────────────┘
//! ```
//!
//! Two versions may share an index (a batch that writes a key twice), never a timestamp: a version's name is
//! its key and its timestamp.

use crate::key::EncodedKey;
use crate::timestamp::Timestamp;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// What a version costs in memory besides its value: its place in the chain and the value's allocation.
pub const VERSION_OVERHEAD_BYTES: usize = 64;

/// What a key costs in memory besides its bytes and versions: its place in the tree, at the fill that
/// B-trees have, and the key's allocation.
pub const KEY_OVERHEAD_BYTES: usize = 128;

/// A value or tombstone that a key had from some point in time on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// When it was committed.
    pub timestamp: Timestamp,
    /// The index of the log entry that installed it.
    pub index: u64,
    /// The value; none is a tombstone: the key was deleted.
    pub value: Option<Bytes>,
}

impl Version {
    /// About how many bytes it takes in memory, its key apart.
    pub fn weight(&self) -> usize {
        self.value.as_ref().map_or(0, Bytes::len) + VERSION_OVERHEAD_BYTES
    }
}

/// A key's version: what checkpoints and snapshots consist of. Key and timestamp together name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredVersion {
    /// The key.
    pub key: EncodedKey,
    /// The version.
    pub version: Version,
}

impl StoredVersion {
    /// About how many bytes it takes in memory and on the wire.
    pub fn weight(&self) -> usize {
        self.key.as_bytes().len() + self.version.weight()
    }
}

/// A key's versions, oldest first, never empty. Most keys have one, which needs no allocation of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chain {
    One(Version),
    Many(VecDeque<Version>),
}

impl Chain {
    pub(crate) fn newest(&self) -> &Version {
        match self {
            Self::One(version) => version,
            Self::Many(versions) => versions.back().expect("a chain is never empty"),
        }
    }

    #[cfg(debug_assertions)]
    pub(crate) fn newest_mut(&mut self) -> &mut Version {
        match self {
            Self::One(version) => version,
            Self::Many(versions) => versions.back_mut().expect("a chain is never empty"),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(versions) => versions.len(),
        }
    }

    fn nth(&self, position: usize) -> Option<&Version> {
        match self {
            Self::One(version) => (position == 0).then_some(version),
            Self::Many(versions) => versions.get(position),
        }
    }

    /// How many versions, from the oldest on, are not above `at`.
    fn count_to(&self, at: Timestamp) -> usize {
        match self {
            Self::One(version) => usize::from(version.timestamp <= at),
            Self::Many(versions) => versions.partition_point(|version| version.timestamp <= at),
        }
    }

    /// How many versions, from the oldest on, were there at log index `index`.
    fn count_to_index(&self, index: u64) -> usize {
        match self {
            Self::One(version) => usize::from(version.index <= index),
            Self::Many(versions) => versions.partition_point(|version| version.index <= index),
        }
    }

    /// Since when there is something that a read of now does not need: an older version, or a tombstone.
    pub(crate) fn garbage_since(&self) -> Option<Timestamp> {
        match self {
            Self::One(version) => version.value.is_none().then_some(version.timestamp),
            Self::Many(versions) => versions.get(1).map(|version| version.timestamp),
        }
    }

    /// The newest version whose timestamp is not above `at`, a tombstone too.
    pub(crate) fn visible(&self, at: Timestamp) -> Option<&Version> {
        // Nearly all reads want the latest: look there before searching.
        let newest = self.newest();
        if newest.timestamp <= at {
            return Some(newest);
        }
        self.nth(self.count_to(at).checked_sub(1)?)
    }

    /// Versions installed after log index `from` and not after `to`, oldest first, which follow `after`.
    pub(crate) fn between(
        &self,
        from: u64,
        to: u64,
        after: Option<Timestamp>,
    ) -> impl Iterator<Item = &Version> {
        let first = self.count_to_index(from).max(after.map_or(0, |after| self.count_to(after)));
        (first..self.count_to_index(to)).map_while(|position| self.nth(position))
    }

    /// Appends a version that is newer than all.
    pub(crate) fn push(&mut self, version: Version) {
        match self {
            Self::One(only) => {
                let only = std::mem::replace(only, Version { value: None, ..version });
                *self = Self::Many(VecDeque::from([only, version]));
            }
            Self::Many(versions) => versions.push_back(version),
        }
    }

    /// Puts a version where its timestamp belongs; false if one with that timestamp is there already.
    pub(crate) fn insert(&mut self, version: Version) -> bool {
        let position = self.count_to(version.timestamp);
        if position.checked_sub(1).and_then(|before| self.nth(before)).map(|before| before.timestamp)
            == Some(version.timestamp)
        {
            return false;
        }
        if position == self.len() {
            self.push(version);
            return true;
        }
        match self {
            Self::One(only) => {
                let only = std::mem::replace(only, Version { value: None, ..version });
                *self = Self::Many(VecDeque::from([version, only]));
            }
            Self::Many(versions) => versions.insert(position, version),
        }
        true
    }

    /// Removes the oldest version if `superseded_by` agrees to it and the one after it.
    pub(crate) fn pop_oldest_if(
        &mut self,
        superseded_by: impl FnOnce(&Version, &Version) -> bool,
    ) -> Option<Version> {
        let Self::Many(versions) = self else { return None };
        if !superseded_by(versions.front()?, versions.get(1)?) {
            return None;
        }
        let oldest = versions.pop_front()?;
        if versions.len() == 1 {
            let only = versions.pop_front().expect("its length is one");
            *self = Self::One(only);
        }
        Some(oldest)
    }
}
