//! Whether the memory still is what was written: a walk that hashes the data anew, a few keys at a time, and holds it
//! against the digest that applying keeps up to date.
//!
//! A byte that changes by itself changes no digest: that of its replica goes on saying what was written. So all replicas
//! agree, and one of them answers wrongly. The walk finds that.
//!
//! Writes go on meanwhile. What they change before the place that the walk has come to is added to and taken from its sum
//! as it is for the digest itself, and what they change after it is met later:
//!
//! ```text
//!    walked: in the sum, kept up to date  │  to come
//!   ──────────────────────────────────────┼──────────────────▶ keys
//!                                         next
//! ```
//!
//! A damaged value that is overwritten leaves its mark: it is not what is taken out of the digest again, so the digest
//! belongs to no data any more, and the next walk to its end sees that, too.
//!
//! **Caveats:** a walk says at its end *that* something is wrong, not where; and a byte behind the place where it is waits
//! for the next one. Older versions and what undecided transactions hold are not walked.

use super::PartitionState;
use crate::digest::Digest;
use crate::key::EncodedKey;
use std::ops::Bound;

/// A walk under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Walk {
    /// All keys below this have been walked.
    next: EncodedKey,
    /// The digest of these.
    sum: Digest,
}

impl Walk {
    /// A key's newest version changed: the digests of the live value before and after, where there were any.
    pub(super) fn changed(&mut self, key: &EncodedKey, old: Option<Digest>, new: Option<Digest>) {
        if *key >= self.next {
            return;
        }
        if let Some(old) = old {
            self.sum.remove(old);
        }
        if let Some(new) = new {
            self.sum.add(new);
        }
    }
}

/// What a walk to the last key has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// The data is what the digest says.
    Sound,
    /// It is not.
    Damaged {
        /// The digest of the data as it is.
        found: Digest,
        /// As applying has kept it.
        kept: Digest,
    },
}

impl PartitionState {
    /// Walks on: over at most `keys_max` keys, and until about `bytes_max` bytes of values are hashed, one key at least.
    /// Answers when it has come to the last key; the next call begins anew.
    pub fn check_step(&mut self, keys_max: usize, bytes_max: usize) -> Option<Checked> {
        let walk = self.counters.walk.take();
        let (start, mut sum) = match walk {
            None => (Bound::Unbounded, Digest::default()),
            Some(Walk { next, sum }) => (Bound::Included(next), sum),
        };
        let (mut keys, mut bytes) = (0, 0);
        for (key, chain) in self.keys.range((start, Bound::Unbounded)) {
            if keys >= keys_max.max(1) || bytes >= bytes_max.max(1) {
                self.counters.walk = Some(Walk { next: key.clone(), sum });
                return None;
            }
            keys += 1;
            let newest = chain.newest();
            if let Some(value) = &newest.value {
                bytes += value.len();
                sum.add(Digest::of(key, newest.timestamp, value));
            }
        }
        let kept = self.counters.digest;
        Some(if sum == kept { Checked::Sound } else { Checked::Damaged { found: sum, kept } })
    }

    /// Changes one byte of a key's newest value: behind the back of the digest, as faulty memory would, or with it, as a
    /// write would that only this replica had. False if the key has no value, or an empty one. Debug builds only.
    #[cfg(debug_assertions)]
    pub fn flip_byte(&mut self, key: &EncodedKey, with_digest: bool) -> bool {
        let Some(newest) = self.keys.get_mut(key).map(|chain| chain.newest_mut()) else { return false };
        let old = newest.clone();
        // A copy: other owners of the same bytes, the log's cache among them, keep what was written.
        let Some(mut bytes) = old.value.as_ref().map(|value| value.to_vec()) else { return false };
        let Some(last) = bytes.last_mut() else { return false };
        *last ^= 1;
        newest.value = Some(bytes.into());
        if with_digest {
            self.counters.newest_changed(key, Some(&old), newest);
        }
        true
    }
}
