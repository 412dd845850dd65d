//! Which anomalies a level forbids.

use std::fmt;
use std::str::FromStr;

/// What a history is held to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Nothing uncommitted is seen (Adya's PL-2).
    ReadCommitted,
    /// Strong snapshot isolation: as snapshot isolation, and a snapshot holds all that was committed before it.
    Snapshot,
    /// As if transactions ran one after the other, in whatever order (PL-3).
    Serializable,
    /// As if they did in an order that real time agrees with (PL-SS). For single-key transactions: linearizable.
    #[default]
    StrictSerializable,
}

/// A history with one of these is broken whatever it promises: no order of versions explains it.
const ALWAYS: [&str; 6] = ["duplicate", "garbage", "incompatible-order", "cyclic-versions", "G0", "G1a"];

impl Level {
    /// All of them, the weakest first.
    pub const ALL: [Self; 4] =
        [Self::ReadCommitted, Self::Snapshot, Self::Serializable, Self::StrictSerializable];

    /// Its name on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadCommitted => "read_committed",
            Self::Snapshot => "snapshot",
            Self::Serializable => "serializable",
            Self::StrictSerializable => "strict_serializable",
        }
    }

    /// Whether a history of this level is free of that anomaly.
    pub fn forbids(self, name: &str) -> bool {
        let (plain, realtime) = match name.strip_suffix("-realtime") {
            Some(plain) => (plain, true),
            None => (name, false),
        };
        if realtime && !matches!(self, Self::Snapshot | Self::StrictSerializable) {
            return false;
        }
        ALWAYS.contains(&plain)
            || match plain {
                "G1b" | "G1c" => true,
                "internal" | "lost-update" | "G-single" | "G-nonadjacent" => self != Self::ReadCommitted,
                "G2" => matches!(self, Self::Serializable | Self::StrictSerializable),
                "not-linearizable" => self == Self::StrictSerializable,
                _ => unreachable!("no judge names {plain}"),
            }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|level| level.name() == text);
        known.ok_or_else(|| format!("{text:?} is none of {}", Self::ALL.map(Self::name).join(", ")))
    }
}
