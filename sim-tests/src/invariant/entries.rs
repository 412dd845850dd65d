//! Logs match, what replicas applied agrees, and each transaction has one decision; judged while they grow (see [`crate::entries`]).

use super::Evidence;

pub(super) fn violations(evidence: &Evidence<'_>) -> Vec<String> {
    let mut violations = evidence.entries.violations();
    if evidence.entries.applied() == 0 {
        violations.push("no replica was seen to apply anything".to_owned());
    }
    violations
}
