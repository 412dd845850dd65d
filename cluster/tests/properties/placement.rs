//! Placement and rebalancing against what is tried out by brute force.

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use trandb_cluster::placement::{place, rebalance_leaders, start_token};
use trandb_cluster::{NodeId, PartitionId};

type Placement = BTreeMap<PartitionId, Vec<NodeId>>;

fn counts(nodes: impl IntoIterator<Item = NodeId>) -> BTreeMap<NodeId, u32> {
    let mut counts = BTreeMap::new();
    nodes.into_iter().for_each(|node| *counts.entry(node).or_default() += 1);
    counts
}

fn first(placement: &Placement) -> impl Iterator<Item = NodeId> {
    placement.values().map(|replicas| replicas[0])
}

fn some_nodes(max: usize) -> impl Strategy<Value = Vec<NodeId>> {
    proptest::collection::btree_set(1..100_u64, 1..=max)
        .prop_map(|ids| ids.into_iter().map(NodeId).collect::<Vec<_>>())
        .prop_shuffle()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn every_partition_has_distinct_replicas_and_leaders_are_even(
        nodes in some_nodes(8), partitions in 1..40_u32, replication in 1..6_usize,
    ) {
        let placement = place(&nodes, partitions, replication);
        assert!(placement.keys().copied().eq((1..=partitions).map(PartitionId)));
        for replicas in placement.values() {
            let distinct: BTreeSet<_> = replicas.iter().collect();
            assert_eq!(distinct.len(), replication.min(nodes.len()));
            assert_eq!(distinct.len(), replicas.len());
            assert!(replicas.iter().all(|node| nodes.contains(node)));
        }
        if replication >= nodes.len() {
            let leads = counts(first(&placement));
            let fair = partitions / nodes.len() as u32;
            for node in &nodes {
                let leads = leads.get(node).copied().unwrap_or(0);
                assert!((fair..=fair + 1).contains(&leads), "{node} leads {leads} of {partitions}");
            }
        }
    }

    #[test]
    fn a_joining_node_takes_replicas_and_no_other_moves(
        nodes in some_nodes(8), partitions in 1..40_u32, replication in 1..6_usize,
    ) {
        let (&joining, before) = nodes.split_last().expect("there is one");
        let old = place(before, partitions, replication);
        for (partition, replicas) in place(&nodes, partitions, replication) {
            let mut kept: BTreeSet<_> = replicas.iter().copied().collect();
            kept.remove(&joining);
            let old: BTreeSet<_> = old[&partition].iter().copied().collect();
            assert!(kept.is_subset(&old), "{partition} got a replica from elsewhere");
            assert!(old.len() - kept.len() <= 1);
        }
    }

}

proptest! {
    // Many, since few of them need a leader that has moved to move once more.
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn transfers_are_as_few_and_leaders_as_even_as_can_be(
        groups in proptest::collection::vec(
            proptest::sample::subsequence(vec![1_u64, 2, 3, 4, 5], 1..=3).prop_shuffle(), 1..10),
        up in proptest::sample::subsequence(vec![1_u64, 2, 3, 4, 5], 3..=5),
        stray in 0..12_usize,
    ) {
        let up: BTreeSet<_> = up.into_iter().map(NodeId).collect();
        let replicas: Placement = (1..)
            .map(PartitionId)
            .zip(groups.into_iter().map(|group| group.into_iter().map(NodeId).collect()))
            .collect();
        let mut leaders: BTreeMap<_, _> = replicas.iter().map(|(&id, replicas)| (id, replicas[0])).collect();
        // Now and then a leader that should hold no replica any more.
        if let Some(leader) = leaders.values_mut().nth(stray) {
            *leader = NodeId(4);
        }
        let mut after = leaders.clone();
        let transfers = rebalance_leaders(&leaders, &replicas, &up);
        for &(partition, from, to) in &transfers {
            assert_eq!(after.insert(partition, to), Some(from), "it leads");
            assert!(from != to && up.contains(&from) && up.contains(&to) && replicas[&partition].contains(&to));
        }
        let best = best(&leaders, &replicas, &up);
        assert_eq!((uneven(&after, &up), transfers.len()), best, "{transfers:?}");
    }
}

/// The sum of squares of what the nodes that are up lead.
fn uneven(leaders: &BTreeMap<PartitionId, NodeId>, up: &BTreeSet<NodeId>) -> u32 {
    let leads = counts(leaders.values().copied().filter(|leader| up.contains(leader)));
    leads.values().map(|leads| leads * leads).sum()
}

/// The least unevenness, and the fewest transfers to it, among all ways to lead.
fn best(
    leaders: &BTreeMap<PartitionId, NodeId>,
    replicas: &Placement,
    up: &BTreeSet<NodeId>,
) -> (u32, usize) {
    let mut all = vec![(leaders.clone(), 0)];
    for (&partition, leader) in leaders.iter().filter(|(_, leader)| up.contains(leader)) {
        let others = replicas[&partition].iter().filter(|node| *node != leader && up.contains(node));
        let mut more = Vec::new();
        for &other in others {
            for (leaders, transfers) in &all {
                let mut leaders = leaders.clone();
                leaders.insert(partition, other);
                more.push((leaders, transfers + 1));
            }
        }
        all.extend(more);
    }
    all.into_iter().map(|(leaders, transfers)| (uneven(&leaders, up), transfers)).min().expect("as it is")
}

#[test]
fn a_joining_node_takes_about_its_share() {
    for nodes in [3_u64, 4, 7, 15] {
        let before: Vec<_> = (1..=nodes).map(NodeId).collect();
        let after: Vec<_> = (1..=nodes + 1).map(NodeId).collect();
        let (partitions, replication) = (1024, 3);
        let moved =
            counts(place(&after, partitions, replication).into_values().flatten())[&NodeId(nodes + 1)];
        let fair = partitions * replication as u32 / after.len() as u32;
        assert!((fair * 7 / 10..=fair * 13 / 10).contains(&moved), "{moved} of {fair} with {nodes} before");
        assert_eq!(place(&before, partitions, replication).len(), 1024);
    }
}

#[test]
fn a_large_cluster_is_planned_in_a_blink_and_is_even() {
    let nodes: Vec<_> = (1..=64).map(NodeId).collect();
    let placement = place(&nodes, 1024, 3);
    let leads = counts(first(&placement));
    assert!(leads.len() == 64 && leads.values().all(|leads| (15..=17).contains(leads)), "{leads:?}");
    let holds = counts(placement.into_values().flatten());
    assert!(holds.values().all(|holds| (24..=80).contains(holds)), "{holds:?}");
}

#[test]
fn partitions_are_equal_intervals() {
    assert_eq!(start_token(0, 16).0, 0);
    assert_eq!(start_token(8, 16).0, 1 << 63);
    assert_eq!(start_token(2, 3).0, u64::MAX / 3 * 2);
    assert_eq!(start_token(1023, 1024).0, u64::MAX - (1 << 54) + 1);
}
