//! Where a node looks for the others: where the system group's state has them, but for what it was told since.
//!
//! The state comes from the group's leader, who may itself be somewhere that only others know yet. So what they say counts until the
//! state says as much.

use crate::ids::{Epoch, NodeId};
use crate::system::SystemState;
use std::collections::BTreeMap;

/// What a node was told of where others are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// By another node: the peer address, and the epoch of the map that has it, or an earlier one. It counts for as long as the
    /// state is older than that, or does not know the member at all.
    told: BTreeMap<NodeId, (Epoch, String)>,
    /// By members that have moved themselves: from where, as the state has it still, and where to. The group may need them to
    /// change that.
    moved: BTreeMap<NodeId, (String, String)>,
}

impl Whereabouts {
    /// Of a node that begins with these peers.
    pub fn new(peers: BTreeMap<NodeId, String>) -> Self {
        let mut new = Self::default();
        new.tell(Epoch::default(), peers);
        new
    }

    /// Another node, whose map is of this epoch or a later one, has `members` at these peer addresses.
    pub fn tell(&mut self, epoch: Epoch, members: BTreeMap<NodeId, String>) {
        // What one said itself goes on counting only against who has not heard of that either.
        self.moved.retain(|node, (from, _)| members.get(node).is_none_or(|at| at == from));
        self.told.extend(members.into_iter().map(|(node, at)| (node, (epoch, at))));
    }

    /// A member says that it is at the peer address `to`. Whether that is news.
    pub fn moves(&mut self, state: &SystemState, node: NodeId, to: String) -> bool {
        let Some(info) = state.nodes.get(&node) else { return false };
        let from = info.addresses.peer.clone();
        // Nobody knows it better.
        let overruled = self.told.remove(&node).is_some_and(|(_, told)| told != to);
        let news = match from == to {
            true => self.moved.remove(&node).is_some(),
            false => self.moved.insert(node, (from, to.clone())).is_none_or(|(_, before)| before != to),
        };
        news || overruled
    }

    /// Where the node `me` looks for all others, now that this is the state. What that has caught up with is forgotten.
    pub fn peers(&mut self, state: &SystemState, me: NodeId) -> BTreeMap<NodeId, String> {
        self.told.retain(|node, (epoch, _)| *epoch > state.epoch || !state.nodes.contains_key(node));
        let at = |node: &NodeId| state.nodes.get(node).map(|info| &info.addresses.peer);
        self.moved.retain(|node, (from, _)| at(node) == Some(from));
        let known = state.members().map(|(node, info)| (node, &info.addresses.peer));
        let told = self.told.iter().map(|(&node, (_, at))| (node, at));
        let moved = self.moved.iter().map(|(&node, (_, to))| (node, to));
        let mut peers: BTreeMap<NodeId, &String> = known.chain(told).chain(moved).collect();
        peers.retain(|node, at| *node != me && !at.is_empty());
        peers.into_iter().map(|(node, at)| (node, at.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::InstanceId;
    use crate::system::{NodeAddresses, NodeInfo};

    const ME: NodeId = NodeId(3);

    /// A state with nodes `n1` and so on at these addresses.
    fn state(epoch: u64, at: &[&str]) -> SystemState {
        let node = |(id, peer): (u64, &&str)| {
            let addresses = NodeAddresses { peer: (*peer).to_owned(), ..NodeAddresses::default() };
            (NodeId(id), NodeInfo { instance: InstanceId(id), addresses, removed: false })
        };
        SystemState {
            epoch: Epoch(epoch),
            nodes: (1..).zip(at).map(node).collect(),
            ..SystemState::default()
        }
    }

    fn members(at: &[(u64, &str)]) -> BTreeMap<NodeId, String> {
        at.iter().map(|&(node, at)| (NodeId(node), at.to_owned())).collect()
    }

    #[test]
    fn others_are_where_the_state_has_them() {
        let mut state = state(5, &["a:1", "b:1", "c:1", "d:1", ""]);
        state.nodes.get_mut(&NodeId(4)).expect("is there").removed = true;
        assert_eq!(Whereabouts::default().peers(&state, ME), members(&[(1, "a:1"), (2, "b:1")]));
    }

    #[test]
    fn a_node_begins_with_its_peers_until_the_state_knows_them() {
        let mut whereabouts = Whereabouts::new(members(&[(1, "a:1"), (2, "b:1")]));
        assert_eq!(whereabouts.peers(&state(0, &[]), ME), members(&[(1, "a:1"), (2, "b:1")]));
        assert_eq!(whereabouts.peers(&state(1, &["a:2"]), ME), members(&[(1, "a:2"), (2, "b:1")]));
        assert_eq!(
            whereabouts.peers(&state(0, &[]), ME),
            members(&[(2, "b:1")]),
            "what was known is forgotten"
        );
    }

    #[test]
    fn what_a_newer_map_says_counts_until_the_state_is_as_new() {
        let mut whereabouts = Whereabouts::default();
        whereabouts.tell(Epoch(7), members(&[(1, "a:2"), (4, "d:1")]));
        let told = members(&[(1, "a:2"), (2, "b:1"), (4, "d:1")]);
        assert_eq!(whereabouts.peers(&state(6, &["a:1", "b:1"]), ME), told);
        let known = members(&[(1, "a:1"), (2, "b:1"), (4, "d:1")]);
        assert_eq!(
            whereabouts.peers(&state(7, &["a:1", "b:1"]), ME),
            known,
            "it does not know the fourth one"
        );
    }

    #[test]
    fn a_member_is_where_it_says_until_the_state_has_it_somewhere_else_than_before() {
        let before = state(5, &["a:1", "b:1"]);
        let mut whereabouts = Whereabouts::default();
        assert!(!whereabouts.moves(&before, NodeId(9), "z:1".into()), "it is none of them");
        assert!(whereabouts.moves(&before, NodeId(1), "a:2".into()));
        assert!(!whereabouts.moves(&before, NodeId(1), "a:2".into()), "it is known");
        assert_eq!(whereabouts.peers(&before, ME), members(&[(1, "a:2"), (2, "b:1")]));
        assert!(whereabouts.moves(&before, NodeId(1), "a:1".into()), "it is back");
        assert_eq!(whereabouts.peers(&before, ME), members(&[(1, "a:1"), (2, "b:1")]));

        assert!(whereabouts.moves(&before, NodeId(1), "a:2".into()));
        assert_eq!(whereabouts.peers(&state(6, &["a:3", "b:1"]), ME), members(&[(1, "a:3"), (2, "b:1")]));
    }

    #[test]
    fn of_a_member_that_has_moved_others_count_who_know_that() {
        let before = state(5, &["a:1", "b:1"]);
        let mut whereabouts = Whereabouts::default();
        assert!(whereabouts.moves(&before, NodeId(1), "a:2".into()));
        whereabouts.tell(Epoch(6), members(&[(1, "a:1"), (2, "b:2")]));
        assert_eq!(whereabouts.peers(&before, ME), members(&[(1, "a:2"), (2, "b:2")]));
        whereabouts.tell(Epoch(7), members(&[(1, "a:3")]));
        assert_eq!(whereabouts.peers(&before, ME), members(&[(1, "a:3"), (2, "b:2")]));
        assert!(whereabouts.moves(&before, NodeId(1), "a:1".into()), "it is back, which they do not know");
        assert_eq!(whereabouts.peers(&before, ME), members(&[(1, "a:1"), (2, "b:2")]));
    }
}
