//! Who waits for whom, and how a cycle is found: edge chasing (Chandy, Misra, Haas: Distributed deadlock detection, 1983).
//!
//! A transaction waits for one lock at a time, so for one other transaction: the one before it in the queue. Its own
//! coordinator's node knows which. When it begins to wait, a *probe* goes from there to the node of the other one; if
//! that one waits, too, the path grows and the probe goes on. A probe that comes upon a transaction of its own path has
//! found a cycle. Its youngest member gives way; all who find the same cycle choose the same one. Before it is
//! failed, its node looks whether it still waits as the cycle says.

use super::TxnId;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Transactions in a path after which a probe is given up: chains that long end by their deadlines.
pub const PROBE_MAX: usize = 64;

/// The waits of the transactions of one node.
#[derive(Debug, Default)]
pub struct Waits {
    behind: BTreeMap<TxnId, TxnId>,
}

/// What is to be done after a probe or a new wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probed {
    /// Nothing: the chain ends here.
    Nothing,
    /// The probe goes on to the node of the path's last transaction.
    Forward(Vec<TxnId>),
    /// A cycle: the first of it gives way, and its node is to be told.
    Deadlock(Vec<TxnId>),
}

impl Waits {
    /// A transaction of this node waits behind another one from now on.
    pub fn set(&mut self, txn: TxnId, behind: TxnId) -> Probed {
        self.behind.insert(txn, behind);
        if txn == behind { Probed::Nothing } else { Probed::Forward(vec![txn, behind]) }
    }

    /// It waits no more.
    pub fn clear(&mut self, txn: TxnId) {
        self.behind.remove(&txn);
    }

    /// A probe has come whose last transaction is of this node.
    pub fn probe(&self, mut path: Vec<TxnId>) -> Probed {
        let Some(next) = path.last().and_then(|last| self.behind.get(last)).copied() else {
            return Probed::Nothing;
        };
        if let Some(place) = path.iter().position(|&txn| txn == next) {
            let mut cycle = path.split_off(place);
            let youngest = (0..cycle.len()).max_by_key(|&place| cycle[place]).unwrap_or(0);
            cycle.rotate_left(youngest);
            return Probed::Deadlock(cycle);
        }
        if path.len() >= PROBE_MAX {
            return Probed::Nothing;
        }
        path.push(next);
        Probed::Forward(path)
    }

    /// Whether the first of a cycle, a transaction of this node, still waits as the cycle says.
    pub fn confirms(&self, cycle: &[TxnId]) -> bool {
        match cycle {
            [victim, next, ..] => self.behind.get(victim) == Some(next),
            _ => false,
        }
    }
}

/// A cycle in words.
pub fn describe_cycle(cycle: &[TxnId]) -> String {
    let mut text = String::from("deadlock: ");
    for txn in cycle {
        let _ = write!(text, "{txn} waits for ");
    }
    if let Some(first) = cycle.first() {
        let _ = write!(text, "{first}; the youngest gives way");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;
    use crate::ids::NodeId;

    fn txn(number: u64) -> TxnId {
        TxnId { begin: Timestamp(number), node: NodeId(number % 3) }
    }

    /// Nodes that deliver probes to each other, in an order that `pick` chooses; answers the cycles found.
    fn deliver(
        nodes: &BTreeMap<NodeId, Waits>,
        mut probes: Vec<Vec<TxnId>>,
        mut pick: u64,
    ) -> Vec<Vec<TxnId>> {
        let mut found = Vec::new();
        while !probes.is_empty() {
            pick = pick.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let path = probes.swap_remove((pick >> 33) as usize % probes.len());
            let node = path.last().expect("a path is never empty").node;
            match nodes[&node].probe(path) {
                Probed::Nothing => {}
                Probed::Forward(path) => probes.push(path),
                Probed::Deadlock(cycle) => found.push(cycle),
            }
        }
        found
    }

    fn wait(nodes: &mut BTreeMap<NodeId, Waits>, edges: &[(u64, u64)]) -> Vec<Vec<TxnId>> {
        for number in 0..3 {
            nodes.entry(NodeId(number)).or_default();
        }
        let mut probes = Vec::new();
        for &(from, to) in edges {
            let waits = nodes.get_mut(&txn(from).node).expect("was made");
            if let Probed::Forward(path) = waits.set(txn(from), txn(to)) {
                probes.push(path);
            }
        }
        probes
    }

    #[test]
    fn cycles_of_every_length_have_one_victim_the_youngest() {
        for length in 2..=5 {
            for pick in 0..20 {
                let edges: Vec<(u64, u64)> =
                    (0..length).map(|at| (10 + at, 10 + (at + 1) % length)).collect();
                let mut nodes = BTreeMap::new();
                let probes = wait(&mut nodes, &edges);
                let found = deliver(&nodes, probes, pick);
                assert!(!found.is_empty());
                for cycle in found {
                    assert_eq!(cycle[0], txn(10 + length - 1));
                    assert_eq!(cycle.len() as u64, length);
                    assert!(nodes[&cycle[0].node].confirms(&cycle));
                }
            }
        }
    }

    #[test]
    fn no_cycle_no_victim() {
        for pick in 0..50 {
            // Everyone waits for an older one: chains and trees.
            let edges: Vec<(u64, u64)> = (1..12).map(|from| (from, (from * 7 + pick) % from)).collect();
            let mut nodes = BTreeMap::new();
            let probes = wait(&mut nodes, &edges);
            assert_eq!(deliver(&nodes, probes, pick), Vec::<Vec<TxnId>>::new());
        }
    }

    #[test]
    fn who_waits_no_more_is_no_victim() {
        let mut nodes = BTreeMap::new();
        let probes = wait(&mut nodes, &[(1, 2), (2, 1)]);
        let found = deliver(&nodes, probes, 1);
        nodes.get_mut(&txn(2).node).expect("is there").clear(txn(2));
        assert!(!nodes[&txn(2).node].confirms(&found[0]));
        assert_eq!(
            describe_cycle(&found[0]),
            "deadlock: 2-2 waits for 1-1 waits for 2-2; the youngest gives way"
        );
    }
}
