//! A group has one leader in a term, whoever is asked.

use super::Evidence;

pub(super) fn violations(evidence: &Evidence<'_>) -> Vec<String> {
    let leaders = evidence.observer.leaders();
    let several = leaders.into_iter().filter(|(_, leaders)| leaders.len() > 1);
    several.map(|((group, term), leaders)| format!("{group} has {leaders:?} in term {term}")).collect()
}
