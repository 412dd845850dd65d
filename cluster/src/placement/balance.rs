//! Spreading leaders evenly with the fewest changes.
//!
//! This is a minimum-cost flow: partitions flow to nodes that may lead them, a node's cost grows with the
//! square of what it leads, and a partition that changes hands costs a little. Starting from the leaders as they are, it
//! cancels negative cycles (Klein, "A Primal Method for Minimal Cost Flows", 1967) until there is none, which is when
//! the cost is least: leaders as even as they can be, and among all such spreads the nearest one.
//!
//! The graph has a vertex per node and a hub. An edge from u to v is a partition that u leads and v could;
//! its cost is 1 if that takes it from its original leader, -1 if that brings it back, else 0. An edge from v to the
//! hub means that v leads one more in the end, one from the hub to u that u leads one less.

use crate::ids::{NodeId, PartitionId};
use std::collections::{BTreeMap, BTreeSet};

/// What one unit of evenness is worth in moved partitions: more than all there can be.
const EVEN: i64 = 1 << 20;

/// A way to change the leaders: `partition`, if any, from one vertex to another.
#[derive(Debug, Clone, Copy)]
struct Edge {
    from: usize,
    to: usize,
    cost: i64,
    /// None for edges of the hub.
    partition: Option<usize>,
}

/// A partition that takes part, nodes by their place in the list of nodes.
struct Seat {
    id: PartitionId,
    original: usize,
    leader: usize,
    candidates: Vec<usize>,
}

/// The partitions whose leader should change, and their new leaders.
pub(super) fn balance(
    leaders: &BTreeMap<PartitionId, NodeId>,
    replicas: &BTreeMap<PartitionId, Vec<NodeId>>,
    up: &BTreeSet<NodeId>,
) -> Vec<(PartitionId, NodeId)> {
    let nodes: Vec<NodeId> = up.iter().copied().collect();
    let place = |node: &NodeId| nodes.binary_search(node).ok();
    let mut seats: Vec<Seat> = leaders
        .iter()
        .filter_map(|(&id, leader)| {
            let leader = place(leader)?;
            let mut candidates: Vec<usize> = replicas.get(&id)?.iter().filter_map(place).collect();
            // A leader that should hold no replica any more may keep leading, so a partition that was moved off it
            // must be able to come back while the cycles are cancelled; else the nearest spread can be missed.
            if !candidates.contains(&leader) {
                candidates.push(leader);
            }
            Some(Seat { id, original: leader, leader, candidates })
        })
        .collect();
    while let Some(cycle) = negative_cycle(&edges(&seats, nodes.len()), nodes.len() + 1) {
        for edge in cycle {
            if let Some(seat) = edge.partition {
                seats[seat].leader = edge.to;
            }
        }
    }
    seats
        .into_iter()
        .filter(|seat| seat.leader != seat.original)
        .map(|seat| (seat.id, nodes[seat.leader]))
        .collect()
}

/// Every way to change the leaders by one step; of several between the same nodes the cheapest.
fn edges(seats: &[Seat], nodes: usize) -> Vec<Edge> {
    let mut loads = vec![0_i64; nodes];
    let mut moves: BTreeMap<(usize, usize), Edge> = BTreeMap::new();
    for (partition, seat) in seats.iter().enumerate() {
        loads[seat.leader] += 1;
        let leaves = i64::from(seat.leader == seat.original);
        for &to in seat.candidates.iter().filter(|&&to| to != seat.leader) {
            let cost = leaves - i64::from(to == seat.original);
            let edge = Edge { from: seat.leader, to, cost, partition: Some(partition) };
            let cheapest = moves.entry((seat.leader, to)).or_insert(edge);
            if cost < cheapest.cost {
                *cheapest = edge;
            }
        }
    }
    let hub = nodes;
    let mut edges: Vec<Edge> = moves.into_values().collect();
    for (node, load) in loads.into_iter().enumerate() {
        // The difference that one more or one less makes to the square of the load.
        edges.push(Edge { from: node, to: hub, cost: EVEN * (2 * load + 1), partition: None });
        if load > 0 {
            edges.push(Edge { from: hub, to: node, cost: EVEN * (1 - 2 * load), partition: None });
        }
    }
    edges
}

/// A cycle whose costs sum to less than zero, by Bellman and Ford's algorithm.
fn negative_cycle(edges: &[Edge], vertices: usize) -> Option<Vec<Edge>> {
    let mut distance = vec![0_i64; vertices];
    let mut reached_by: Vec<Option<Edge>> = vec![None; vertices];
    let mut improved = None;
    for _ in 0..vertices {
        improved = None;
        for edge in edges {
            let through = distance[edge.from] + edge.cost;
            if through < distance[edge.to] {
                distance[edge.to] = through;
                reached_by[edge.to] = Some(*edge);
                improved = Some(edge.to);
            }
        }
        improved?;
    }
    // Still improving after as many rounds as there are vertices: going back as often ends up in a cycle.
    let back = |vertex: usize| reached_by[vertex].expect("a cycle's vertices were all reached");
    let mut start = improved?;
    for _ in 0..vertices {
        start = back(start).from;
    }
    let mut cycle = vec![back(start)];
    while cycle.last().expect("it starts with one edge").from != start {
        let next = back(cycle.last().expect("it starts with one edge").from);
        cycle.push(next);
    }
    Some(cycle)
}
