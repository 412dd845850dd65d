//! Verdicts on replicas, for any reports.

use proptest::prelude::*;
use trandb_cluster::NodeId;
use trandb_cluster::audit::{Fault, Report, Verdict, judge};
use trandb_cluster::digest::Digest;

const INDEX: u64 = 5;

/// Up to seven voters, some of which report one of three digests, sound or not.
fn reports() -> impl Strategy<Value = (Vec<NodeId>, Vec<Report>)> {
    let said = (0..3_u128, prop::bool::weighted(0.8));
    proptest::collection::vec(proptest::option::weighted(0.9, said), 1..8).prop_map(|said| {
        let voters = (1..=said.len() as u64).map(NodeId).collect();
        let report = |(at, said): (usize, &Option<(u128, bool)>)| {
            said.map(|(digest, sound)| Report {
                node: NodeId(at as u64 + 1),
                index: INDEX,
                digest: Digest(digest),
                sound,
            })
        };
        (voters, said.iter().enumerate().filter_map(report).collect())
    })
}

proptest! {
    #[test]
    fn nobody_right_is_rebuilt_and_nobody_wrong_lends((voters, reports) in reports()) {
        let of = |node: NodeId| *reports.iter().find(|report| report.node == node).expect("it reported");
        let agree = reports.iter().all(|one| one.sound && one.digest == reports[0].digest);
        match judge(&voters, INDEX, &reports) {
            Verdict::Agree => prop_assert!(agree),
            Verdict::Wrong { replicas, lenders } => {
                prop_assert!(!agree && !replicas.is_empty() && !lenders.is_empty());
                let right = of(lenders[0]).digest;
                prop_assert!(lenders.iter().all(|&node| of(node).sound && of(node).digest == right));
                for &(node, fault) in &replicas {
                    prop_assert_eq!(fault == Fault::Damaged, !of(node).sound);
                    prop_assert!(!of(node).sound || of(node).digest != right);
                }
                prop_assert_eq!(replicas.len() + lenders.len(), reports.len(), "all are judged");
                // No majority has another digest, and without one nobody who is sound is told that it is wrong.
                let votes = |digest| reports.iter().filter(|one| one.digest == digest).count() * 2;
                prop_assert!((0..3).all(|digest| Digest(digest) == right || votes(Digest(digest)) <= voters.len()));
                prop_assert!(
                    votes(right) > voters.len() || replicas.iter().all(|&(_, fault)| fault == Fault::Damaged)
                );
            }
            Verdict::Undecided { digests } => {
                prop_assert!(!agree);
                prop_assert_eq!(digests.len(), reports.len());
            }
        }
    }

    #[test]
    fn the_order_of_reports_does_not_matter((voters, reports) in reports()) {
        let mut reversed = reports.clone();
        reversed.reverse();
        prop_assert_eq!(judge(&voters, INDEX, &reports), judge(&voters, INDEX, &reversed));
    }

    #[test]
    fn a_majority_that_is_sound_is_always_found((voters, mut reports) in reports()) {
        // All that reported and are more than half now say the same.
        let half = voters.len() / 2 + 1;
        prop_assume!(reports.len() >= half);
        for report in &mut reports[..half] {
            (report.digest, report.sound) = (Digest(7), true);
        }
        match judge(&voters, INDEX, &reports) {
            Verdict::Agree => {}
            Verdict::Wrong { lenders, .. } => prop_assert!(reports[..half].iter().all(|one| lenders.contains(&one.node))),
            undecided @ Verdict::Undecided { .. } => prop_assert!(false, "{undecided:?}"),
        }
    }
}
