//! Which replica of a partition is wrong: what their leader makes of what they say of themselves.
//!
//! Each replica reports its digest at one log index, and whether its memory is what was written ([`crate::partition`]'s
//! check). The digests are kept up to date by applying, so they vouch for what the log has led to even where the memory
//! below them was damaged since:
//!
//! ```text
//!           digest   memory
//!  n1       d        sound      ─┐ a majority of the voters has d:
//!  n2       d        damaged     ├▶ n2 is damaged, and is rebuilt from n1
//!  n3       e        sound      ─┘ n3 differs, and is rebuilt from n1
//! ```
//!
//! Without a majority nobody knows which digest is right: that is alarmed, and nothing is rebuilt. Memory that is not
//! what was written is wrong whatever others say; if all that are sound agree, it is rebuilt from them.
//!
//! **Caveat:** digests know the newest value of each key, and of what transactions hold that it is there. An older
//! version that was damaged is not seen.

use crate::digest::Digest;
use crate::ids::NodeId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What a replica says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Where the replica is.
    pub node: NodeId,
    /// The log index that the digest belongs to.
    pub index: u64,
    /// Its digest right after that entry.
    pub digest: Digest,
    /// Its memory is what was written, as far as it has been walked, and it was not found wrong otherwise.
    pub sound: bool,
}

/// What is wrong with a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// Its data is not what it applied: something changed its memory.
    Damaged,
    /// It is not what the majority has at the same log index.
    Differs,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damaged => "its memory is not what was written",
            Self::Differs => "it differs from the majority",
        })
    }
}

/// What the reports say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing speaks against any replica. Those that did not report are not judged.
    Agree,
    /// Some are wrong and are to be rebuilt from any of the lenders.
    Wrong {
        /// Which, and why; in order, never empty.
        replicas: Vec<(NodeId, Fault)>,
        /// Those that are right; in order, never empty.
        lenders: Vec<NodeId>,
    },
    /// Some are wrong, but not even which is known, or nobody has what is right.
    Undecided {
        /// What each reported, in order.
        digests: Vec<(NodeId, Digest)>,
    },
}

/// Judges the replicas of a partition by their reports at log index `index`. Reports at other indices, of nodes that
/// do not vote, and second ones of the same node are passed over.
pub fn judge(voters: &[NodeId], index: u64, reports: &[Report]) -> Verdict {
    let mut by_node: BTreeMap<NodeId, Report> = BTreeMap::new();
    for report in reports.iter().filter(|report| report.index == index && voters.contains(&report.node)) {
        by_node.entry(report.node).or_insert(*report);
    }
    let reports: Vec<Report> = by_node.into_values().collect();
    let Some(first) = reports.first() else { return Verdict::Agree };
    if reports.iter().all(|report| report.sound && report.digest == first.digest) {
        return Verdict::Agree;
    }
    let undecided =
        || Verdict::Undecided { digests: reports.iter().map(|one| (one.node, one.digest)).collect() };
    let Some(right) = majority(voters.len(), &reports).or_else(|| common(&reports)) else {
        return undecided();
    };
    let lenders: Vec<NodeId> =
        reports.iter().filter(|one| one.sound && one.digest == right).map(|one| one.node).collect();
    if lenders.is_empty() {
        return undecided();
    }
    let fault = |one: &Report| match one {
        Report { sound: false, .. } => Some((one.node, Fault::Damaged)),
        Report { digest, .. } if *digest != right => Some((one.node, Fault::Differs)),
        _ => None,
    };
    Verdict::Wrong { replicas: reports.iter().filter_map(fault).collect(), lenders }
}

/// The digest that more than half of the voters have. Damaged ones count: what they applied is what they vouch for.
fn majority(voters: usize, reports: &[Report]) -> Option<Digest> {
    let votes = |digest: Digest| reports.iter().filter(|report| report.digest == digest).count();
    reports.iter().map(|report| report.digest).find(|&digest| votes(digest) * 2 > voters)
}

/// The digest that all sound replicas have, if there is one.
fn common(reports: &[Report]) -> Option<Digest> {
    let mut sound = reports.iter().filter(|report| report.sound).map(|report| report.digest);
    let first = sound.next()?;
    sound.all(|digest| digest == first).then_some(first)
}
