//! The ring that nodes stand on, each with many points.
//!
//! `hashring` keeps the points in order. It has no points of its own per node and no walk over distinct nodes, so
//! both are here. It would also hash through `std::hash::Hash`, whose bytes for a type are nobody's promise; all
//! nodes must agree on the ring for as long as the data lives, so positions are XXH3 over fixed bytes and
//! pass through it unhashed.

use crate::ids::NodeId;
use crate::key::Token;
use hashring::HashRing;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hash, Hasher};
use xxhash_rust::xxh3::xxh3_64;

/// Points per node. Shares of the ring then deviate from even by about 1/sqrt(128), 9 %.
const POINTS_PER_NODE: u32 = 128;

/// One of a node's places.
#[derive(Debug, Clone, Copy)]
struct Point {
    position: u64,
    node: NodeId,
}

impl Hash for Point {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.position);
    }
}

/// A position to look up.
struct Position(u64);

impl Hash for Position {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// Takes positions as they are.
#[derive(Debug, Clone, Copy)]
struct Unhashed;

impl BuildHasher for Unhashed {
    type Hasher = PassThrough;

    fn build_hasher(&self) -> PassThrough {
        PassThrough(0)
    }
}

struct PassThrough(u64);

impl Hasher for PassThrough {
    fn write(&mut self, _: &[u8]) {
        unreachable!("positions are written as one number");
    }

    fn write_u64(&mut self, position: u64) {
        self.0 = position;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

pub(super) struct Ring(HashRing<Point, Unhashed>);

impl Ring {
    pub(super) fn new(nodes: &[NodeId]) -> Self {
        let nodes: BTreeSet<NodeId> = nodes.iter().copied().collect();
        let points = nodes
            .into_iter()
            .flat_map(|node| {
                (0..POINTS_PER_NODE).map(move |point| Point { position: position(node, point), node })
            })
            .collect();
        let mut ring = HashRing::with_hasher(Unhashed);
        ring.batch_add(points);
        Self(ring)
    }

    /// The first distinct nodes clockwise from `token`, at most `count`.
    pub(super) fn walk(&self, token: Token, count: usize) -> Vec<NodeId> {
        let mut found = Vec::new();
        let mut position = token.0;
        // Once around, point by point: each is the first one after the one before.
        for _ in 0..self.0.len() {
            if found.len() == count {
                break;
            }
            let Some(point) = self.0.get(&Position(position)) else { break };
            if !found.contains(&point.node) {
                found.push(point.node);
            }
            position = point.position.wrapping_add(1);
        }
        found
    }
}

/// Where a node's point stands: XXH3 over the node and the point's number, big-endian.
fn position(node: NodeId, point: u32) -> u64 {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&node.0.to_be_bytes());
    bytes[8..].copy_from_slice(&point.to_be_bytes());
    xxh3_64(&bytes)
}
