//! Identifiers. Each is a newtype with a short display, which is what logs and traces show.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($int:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(
    /// A member of a cluster, from 1 on; never reused within a cluster. Zero means "not yet given one".
    NodeId(u64), "n");
id!(
    /// A partition, which is also its Raft group. Zero is the system group, data partitions count from 1.
    PartitionId(u32), "p");
id!(
    /// A tenant's key space, from 1 on; 1 is `default`.
    KeyspaceId(u32), "ks");
id!(
    /// A version of the partition map: the index of the system log entry that last changed it.
    Epoch(u64), "e");

impl PartitionId {
    /// The group that holds nodes, the partition map and the timestamp window.
    pub const SYSTEM: Self = Self(0);

    /// Whether this is the system group.
    pub fn is_system(self) -> bool {
        self == Self::SYSTEM
    }
}

impl KeyspaceId {
    /// The keyspace that exists from the start.
    pub const DEFAULT: Self = Self(1);
    /// What partitions keep for themselves; the last of all, so that no scan of another one reaches it.
    pub const INTERNAL: Self = Self(u32::MAX);
}

/// A data directory's own random number: tells a wiped and restarted node from the one before it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(pub u64);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A cluster's random 128-bit name, shown as 32 hexadecimal digits.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::str::FromStr for ClusterId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

impl Serialize for ClusterId {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ClusterId {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(input)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
