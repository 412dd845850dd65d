//! No replica is found wrong: nothing here damages memory, so replicas that differ are a fault of ours. They are rebuilt
//! while nobody looks, and would be identical in the end.

use super::Evidence;

/// What nodes log when they find a replica wrong.
const ALARMS: [&str; 4] = [
    "a replica is wrong",
    "a replica's memory is not what was written",
    "replicas are wrong, and none is known to be right",
    "a replica has lost entries that it had acknowledged",
];

pub(super) fn violations(evidence: &Evidence<'_>) -> Vec<String> {
    let logged = ALARMS.iter().map(|&alarm| (alarm, evidence.observer.count(alarm)));
    logged.filter(|&(_, times)| times > 0).map(|(alarm, times)| format!("{alarm:?}, {times} times")).collect()
}
