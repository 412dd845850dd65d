//! Where partitions live, and who should lead them.
//!
//! Planning is pure: it reads a set of nodes and answers an assignment. The `Found` command places with it,
//! the Controller plans repairs and leadership transfers with it, and a node that may not lead gives away what it leads.

mod balance;
mod handover;
mod ring;
mod shape;

pub use handover::{AGAIN_MS, Handover, TRANSFERS_MAX};
pub use shape::{Members, SYSTEM_VOTERS_MAX, is_overtaken, shape_system, should_reshape};

use crate::ids::{NodeId, PartitionId};
use crate::key::Token;
use std::collections::{BTreeMap, BTreeSet};

/// The first token of the `i`-th of `count` equal partitions, counting from zero.
pub fn start_token(i: u32, count: u32) -> Token {
    Token(((u128::from(i) << 64) / u128::from(count.max(1))) as u64)
}

/// Gives each of `partitions` equal partitions, with ids from 1 on, its replicas: the first distinct nodes on
/// the ring clockwise from its first token, `replication` of them or all nodes if fewer. Most preferred leader
/// first, and those within one of even where the replicas allow it, else as even as they allow.
///
/// A node that joins takes about its share of replicas, each from the last of a partition's nodes; no other
/// replica moves, though leaders may.
pub fn place(nodes: &[NodeId], partitions: u32, replication: usize) -> BTreeMap<PartitionId, Vec<NodeId>> {
    let ring = ring::Ring::new(nodes);
    let mut placement: BTreeMap<PartitionId, Vec<NodeId>> = (0..partitions)
        .map(|i| (PartitionId(i + 1), ring.walk(start_token(i, partitions), replication)))
        .collect();
    let first: BTreeMap<PartitionId, NodeId> =
        placement.iter().filter_map(|(&partition, replicas)| Some((partition, *replicas.first()?))).collect();
    let all = nodes.iter().copied().collect();
    for (partition, leader) in balance::balance(&first, &placement, &all) {
        let replicas = placement.get_mut(&partition).expect("balanced leaders are of these partitions");
        let position = replicas.iter().position(|&node| node == leader).expect("leaders are replicas");
        replicas[..=position].rotate_right(1);
    }
    placement
}

/// The fewest leadership transfers, as (partition, from, to), after which leaders are within one of even among
/// the nodes that are up, or as even as the replicas allow. Leaders that are down cannot hand over and stay out of it,
/// and so do partitions without a leader.
pub fn rebalance_leaders(
    leaders: &BTreeMap<PartitionId, NodeId>,
    replicas: &BTreeMap<PartitionId, Vec<NodeId>>,
    up: &BTreeSet<NodeId>,
) -> Vec<(PartitionId, NodeId, NodeId)> {
    balance::balance(leaders, replicas, up)
        .into_iter()
        .filter_map(|(partition, to)| Some((partition, *leaders.get(&partition)?, to)))
        .collect()
}
