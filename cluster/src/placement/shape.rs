//! Which members groups should have next.
//!
//! The system group comes first: a node starts a replica when the system group tells it of one, so a partition that asks a node
//! to catch up which the system group does not know yet waits for ever, and holds a turn that others need.

use crate::Epoch;
use crate::ids::NodeId;
use std::collections::BTreeSet;

/// Voters of the system group; further nodes follow it as learners.
pub const SYSTEM_VOTERS_MAX: usize = 5;

/// The members of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members {
    /// Those that elect and commit.
    pub voters: BTreeSet<NodeId>,
    /// Those that follow.
    pub learners: BTreeSet<NodeId>,
}

impl Members {
    /// Whether the node is told what the group decides.
    pub fn contains(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }
}

/// What the system group's members, which `are` these, should be next, where the cluster consists of `nodes`, oldest first.
/// None where nothing is to be done. Nodes that cannot be reached cannot catch up, and come in later; voters change all at once,
/// since one that leaves may be needed for as long as another has not come in.
pub fn shape_system(are: &Members, nodes: &[NodeId], up: &BTreeSet<NodeId>) -> Option<Members> {
    if are.voters.is_empty() {
        return None;
    }
    let wanted: BTreeSet<NodeId> = nodes.iter().copied().take(SYSTEM_VOTERS_MAX).collect();
    let voters = if wanted.difference(&are.voters).all(|node| up.contains(node)) {
        wanted
    } else {
        are.voters.clone()
    };
    let learners = nodes
        .iter()
        .copied()
        .filter(|node| !voters.contains(node) && (are.contains(*node) || up.contains(node)))
        .collect();
    let next = Members { voters, learners };
    (next != *are).then_some(next)
}

/// Whether a partition with the members that there `are` should be asked to have the `wanted` voters instead, and nobody else.
pub fn should_reshape(
    are: &Members,
    wanted: &BTreeSet<NodeId>,
    system: &Members,
    up: &BTreeSet<NodeId>,
) -> bool {
    let can_catch_up = |node: &NodeId| up.contains(node) && system.contains(*node);
    let differ = are.voters != *wanted || !are.learners.is_subset(wanted);
    !are.voters.is_empty() && differ && wanted.difference(&are.voters).all(can_catch_up)
}

/// Whether the `wanted` voters of a partition, which the map of the epoch `asked` wants, are waited for in vain, where the map that is
/// known has the epoch `map` and these `replicas`: who is not wanted any more may have gone. An earlier map than the one that was
/// asked with says nothing.
pub fn is_overtaken(wanted: &BTreeSet<NodeId>, asked: Epoch, replicas: &[NodeId], map: Epoch) -> bool {
    map > asked && replicas.iter().copied().collect::<BTreeSet<_>>() != *wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn members(voters: &[u64], learners: &[u64]) -> Members {
        Members { voters: nodes(voters), learners: nodes(learners) }
    }

    fn shaped(are: &Members, of: &[u64], up: &[u64]) -> Option<Members> {
        let of: Vec<NodeId> = of.iter().copied().map(NodeId).collect();
        shape_system(are, &of, &nodes(up))
    }

    #[test]
    fn the_first_nodes_vote_and_the_others_follow() {
        assert_eq!(shaped(&members(&[], &[]), &[1], &[1]), None, "nobody knows them yet");
        assert_eq!(shaped(&members(&[1], &[]), &[1, 2], &[1, 2]), Some(members(&[1, 2], &[])));
        let five = members(&[1, 2, 3, 4, 5], &[]);
        assert_eq!(shaped(&five, &[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5]), None);
        let six = members(&[1, 2, 3, 4, 5], &[6]);
        assert_eq!(shaped(&five, &[1, 2, 3, 4, 5, 6], &[1, 6]), Some(six.clone()));
        assert_eq!(shaped(&six, &[1, 2, 3, 4, 5, 6], &[1]), None, "it stays while it is down");
        let founded = members(&[1, 2, 3, 4, 5, 6, 7], &[]);
        let settled = members(&[1, 2, 3, 4, 5], &[6, 7]);
        assert_eq!(shaped(&founded, &[1, 2, 3, 4, 5, 6, 7], &[1]), Some(settled));
    }

    #[test]
    fn who_is_down_comes_in_later_and_holds_up_no_learner() {
        let three = members(&[1, 2, 3], &[]);
        assert_eq!(shaped(&three, &[1, 2, 4], &[1, 2]), None, "3 may be needed until 4 has come in");
        assert_eq!(shaped(&three, &[1, 2, 4], &[1, 2, 4]), Some(members(&[1, 2, 4], &[])));
        let five = members(&[1, 2, 3, 4, 5], &[]);
        assert_eq!(shaped(&five, &[1, 2, 3, 4, 6, 7, 8], &[1, 7]), Some(members(&[1, 2, 3, 4, 5], &[7])));
    }

    #[test]
    fn a_learner_moves_up_and_one_that_left_is_let_go() {
        let six = members(&[1, 2, 3, 4, 5], &[6]);
        assert_eq!(shaped(&six, &[1, 2, 3, 4, 6], &[1, 6]), Some(members(&[1, 2, 3, 4, 6], &[])));
        assert_eq!(shaped(&six, &[1, 2, 3, 4, 5], &[1]), Some(members(&[1, 2, 3, 4, 5], &[])));
    }

    #[test]
    fn partitions_ask_for_those_only_that_know_of_them() {
        let (one, two) = (nodes(&[1]), nodes(&[1, 2]));
        let (of_one, of_two) = (members(&[1], &[]), members(&[1, 2], &[]));
        let up = nodes(&[1, 2]);
        assert!(!should_reshape(&of_one, &two, &of_one, &up), "2 has not heard of it");
        assert!(should_reshape(&of_one, &two, &of_two, &up));
        assert!(should_reshape(&of_one, &two, &members(&[1], &[2]), &up));
        assert!(!should_reshape(&of_one, &two, &of_two, &one), "2 is down");
        assert!(!should_reshape(&of_two, &two, &of_two, &up));
        assert!(!should_reshape(&members(&[], &[]), &two, &of_two, &up), "nobody leads it yet");
        assert!(should_reshape(&of_two, &one, &of_one, &one), "who leaves need not be up");
    }

    /// A leader once compared with the map that it knew when it took up what it was asked. If that was the later one already,
    /// it waited for a node that had gone.
    #[test]
    fn who_a_later_map_does_not_want_is_waited_for_no_longer() {
        let wanted = nodes(&[1, 3]);
        let replicas = |ids: [u64; 2]| ids.map(NodeId);
        let (earlier, asked, later) = (Epoch(4), Epoch(5), Epoch(6));
        assert!(is_overtaken(&wanted, asked, &replicas([1, 4]), later));
        assert!(!is_overtaken(&wanted, asked, &replicas([3, 1]), later), "it was about another partition");
        assert!(!is_overtaken(&wanted, asked, &replicas([1, 3]), asked));
        assert!(!is_overtaken(&wanted, asked, &replicas([1, 2]), earlier), "whoever asked knows more");
    }

    #[test]
    fn a_learner_of_an_earlier_wish_is_let_go() {
        let (one, both) = (nodes(&[1]), nodes(&[1, 2]));
        let on_its_way = members(&[1], &[2]);
        assert!(should_reshape(&on_its_way, &one, &members(&[1, 2], &[]), &one));
        assert!(should_reshape(&on_its_way, &both, &members(&[1, 2], &[]), &both), "it is to vote");
    }
}
