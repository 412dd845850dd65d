//! Timestamps: the versions of keys and the points in time that snapshots are taken at.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Bits of a timestamp that count within a millisecond.
const COUNTER_BITS: u32 = 18;

/// A point in the cluster's history: milliseconds since the Unix epoch in the high 46 bits, a counter
/// in the low 18. Issued by the oracle, strictly increasing over the whole cluster. Zero is before
/// everything and means "no version" where a version is expected.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Before everything.
    pub const ZERO: Self = Self(0);
    /// After everything; never issued.
    pub const MAX: Self = Self(u64::MAX);

    /// The first timestamp of the millisecond `millis` since the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis << COUNTER_BITS)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn millis(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// The timestamp `n` after this one.
    ///
    /// # Panics
    /// When the sum leaves 64 bits, which is the year 4199.
    pub const fn plus(self, n: u64) -> Self {
        Self(self.0.checked_add(n).expect("timestamps end in the year 4199"))
    }

    /// The timestamp `millis` milliseconds later, or the last one.
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis << COUNTER_BITS))
    }

    /// The timestamp `millis` milliseconds earlier, or zero.
    pub const fn minus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_sub(millis << COUNTER_BITS))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::str::FromStr for Timestamp {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}
