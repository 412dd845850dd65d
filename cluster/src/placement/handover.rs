//! Giving leadership away: which group goes to whom, and when it is tried again.
//!
//! A node gives all that it leads, a few groups at a time, evenly to the nodes that are fit to lead. Nobody is sure to take
//! over: the one that is asked may lag, or be about to go itself. So a group that is still led here is offered again after a
//! pause, to those first that refused it least often.

use crate::ids::{NodeId, PartitionId};
use std::collections::{BTreeMap, BTreeSet};

/// Transfers under way at once: each holds a group's writes up for a moment, and the nodes that take over have other work.
pub const TRANSFERS_MAX: usize = 8;

/// Milliseconds before a group that was not taken is offered again.
pub const AGAIN_MS: u64 = 1000;

/// What one node gives away. The caller says what it leads and who is fit, and when it is asked.
#[derive(Debug, Default)]
pub struct Handover {
    under_way: BTreeSet<PartitionId>,
    /// When the last offer of a group ended, in milliseconds.
    ended: BTreeMap<PartitionId, u64>,
    /// How often a node was offered a group.
    offers: BTreeMap<(PartitionId, NodeId), u32>,
    /// How many groups a node was offered.
    given: BTreeMap<NodeId, u32>,
}

impl Handover {
    /// What to offer to whom now. `led` are the groups that this node leads, with their voters; `fit` are other nodes that are
    /// up and may lead. Each offer must be followed by [`Self::ended`].
    pub fn next(
        &mut self,
        now_ms: u64,
        led: &BTreeMap<PartitionId, Vec<NodeId>>,
        fit: &BTreeSet<NodeId>,
    ) -> Vec<(PartitionId, NodeId)> {
        // What has gone and comes back begins anew.
        self.ended.retain(|group, _| led.contains_key(group));
        self.offers.retain(|(group, _), _| led.contains_key(group));
        let mut offered = Vec::new();
        for (&group, voters) in led {
            if self.under_way.len() >= TRANSFERS_MAX {
                break;
            }
            let rests = self.ended.get(&group).is_some_and(|&ended| now_ms < ended.saturating_add(AGAIN_MS));
            if rests || self.under_way.contains(&group) {
                continue;
            }
            let count = |heir: NodeId| {
                let refused = self.offers.get(&(group, heir)).copied().unwrap_or(0);
                (refused, self.given.get(&heir).copied().unwrap_or(0), heir)
            };
            let heirs = voters.iter().copied().filter(|voter| fit.contains(voter));
            let Some(heir) = heirs.min_by_key(|&heir| count(heir)) else { continue };
            *self.offers.entry((group, heir)).or_default() += 1;
            *self.given.entry(heir).or_default() += 1;
            self.under_way.insert(group);
            offered.push((group, heir));
        }
        offered
    }

    /// An offer has ended, however that was: who leads the group now is seen by what [`Self::next`] is told.
    pub fn ended(&mut self, now_ms: u64, group: PartitionId) {
        self.under_way.remove(&group);
        self.ended.insert(group, now_ms);
    }

    /// Whether anything is under way, or could be offered at some time.
    pub fn goes_on(&self, led: &BTreeMap<PartitionId, Vec<NodeId>>, fit: &BTreeSet<NodeId>) -> bool {
        !self.under_way.is_empty() || led.values().flatten().any(|voter| fit.contains(voter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    /// So many groups that this node leads, with two other voters each.
    fn led(groups: u32) -> BTreeMap<PartitionId, Vec<NodeId>> {
        (0..groups).map(|id| (PartitionId(id), vec![ME, NodeId(2), NodeId(3)])).collect()
    }

    #[test]
    fn groups_go_evenly_and_a_few_at_a_time() {
        let mut handover = Handover::default();
        let mut led = led(20);
        let mut got: BTreeMap<NodeId, usize> = BTreeMap::new();
        let mut rounds = 0;
        while !led.is_empty() {
            let offered = handover.next(0, &led, &nodes(&[2, 3]));
            assert!(!offered.is_empty() && offered.len() <= TRANSFERS_MAX, "{offered:?}");
            if offered.len() == TRANSFERS_MAX {
                assert_eq!(handover.next(0, &led, &nodes(&[2, 3])), [], "the others wait for these");
            }
            for (group, heir) in offered {
                *got.entry(heir).or_default() += 1;
                led.remove(&group);
                handover.ended(0, group);
            }
            rounds += 1;
        }
        assert_eq!(rounds, 3);
        assert_eq!(got, BTreeMap::from([(NodeId(2), 10), (NodeId(3), 10)]));
        assert!(!handover.goes_on(&led, &nodes(&[2, 3])));
    }

    #[test]
    fn only_a_voter_that_is_fit_gets_any() {
        let mut handover = Handover::default();
        let led = led(4);
        assert_eq!(handover.next(0, &led, &nodes(&[])), []);
        // It is up, and has no replica.
        assert_eq!(handover.next(0, &led, &nodes(&[4])), []);
        assert!(!handover.goes_on(&led, &nodes(&[4])));
        let offered = handover.next(0, &led, &nodes(&[3, 4]));
        assert_eq!(offered.len(), 4);
        assert!(offered.iter().all(|(_, heir)| *heir == NodeId(3)), "{offered:?}");
        assert!(handover.goes_on(&led, &nodes(&[])), "some are under way");
    }

    #[test]
    fn what_was_not_taken_is_offered_to_another_after_a_pause() {
        let mut handover = Handover::default();
        let led = led(1);
        let fit = nodes(&[2, 3]);
        let group = PartitionId(0);
        let mut asked = Vec::new();
        for turn in 0..4 {
            let now_ms = turn * AGAIN_MS;
            let offered = handover.next(now_ms, &led, &fit);
            assert_eq!(handover.next(now_ms + 10, &led, &fit), [], "it is under way");
            handover.ended(now_ms, group);
            assert_eq!(handover.next(now_ms + AGAIN_MS - 1, &led, &fit), [], "it rests");
            asked.extend(offered);
        }
        let heirs: Vec<u64> = asked.iter().map(|(_, heir)| heir.0).collect();
        assert_eq!(heirs, [2, 3, 2, 3]);
        // The same one again where there is no other.
        assert_eq!(handover.next(4 * AGAIN_MS, &led, &nodes(&[2])), [(group, NodeId(2))]);
    }

    #[test]
    fn what_comes_back_is_offered_at_once() {
        let mut handover = Handover::default();
        let fit = nodes(&[2, 3]);
        assert_eq!(handover.next(0, &led(1), &fit).len(), 1);
        handover.ended(0, PartitionId(0));
        assert_eq!(handover.next(1, &BTreeMap::new(), &fit), []);
        assert_eq!(handover.next(2, &led(1), &fit).len(), 1);
    }
}
