//! Whether a node still has the log that others know it to have had.
//!
//! All groups of a node share one log, whose batches are numbered without gaps. Others hear with each heartbeat how far it
//! is durable. Who comes back with less has lost what it acknowledged: somebody has put an older copy of its directory in
//! the place of the newer one, or its disk has not kept what it said it had. It has forgotten votes and entries that others
//! count on, and so must not take part as the node that it was.
//!
//! What is known is kept in memory: who was restarted itself knows nothing of the others until it has heard of them again.

use crate::ids::{InstanceId, NodeId};
use std::collections::BTreeMap;

/// What a node says of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogExtent {
    /// Its data directory.
    pub instance: InstanceId,
    /// A random number per start.
    pub boot: u64,
    /// The last batch that is durable; 0 if there is none.
    pub batch: u64,
}

/// How far the logs of other nodes were durable when they were last heard.
#[derive(Debug, Default)]
pub struct KnownLogs {
    nodes: BTreeMap<NodeId, LogExtent>,
}

impl KnownLogs {
    /// `node` says this of itself.
    pub fn hear(&mut self, node: NodeId, said: LogExtent) {
        let known = self.nodes.entry(node).or_insert(said);
        let batch = if known.instance == said.instance { known.batch.max(said.batch) } else { said.batch };
        *known = LogExtent { batch, ..said };
    }

    /// Forgets all but these.
    pub fn retain(&mut self, stays: impl Fn(NodeId) -> bool) {
        self.nodes.retain(|&node, _| stays(node));
    }

    /// The batch that the log of `node` is known to have reached, if it has come back with less. What it said earlier in the
    /// same run does not count: messages overtake each other.
    pub fn misses(&self, node: NodeId, says: LogExtent) -> Option<u64> {
        let known = self.nodes.get(&node)?;
        let less = known.instance == says.instance && known.boot != says.boot && says.batch < known.batch;
        less.then_some(known.batch)
    }

    /// What there is to tell `node` of itself: its directory, and the batch that its log has reached.
    pub fn of(&self, node: NodeId) -> Option<(InstanceId, u64)> {
        self.nodes.get(&node).map(|known| (known.instance, known.batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(2);

    fn says(instance: u64, boot: u64, batch: u64) -> LogExtent {
        LogExtent { instance: InstanceId(instance), boot, batch }
    }

    fn heard(all: &[LogExtent]) -> KnownLogs {
        let mut logs = KnownLogs::default();
        all.iter().for_each(|&said| logs.hear(NODE, said));
        logs
    }

    #[test]
    fn who_comes_back_with_less_is_noticed() {
        let logs = heard(&[says(7, 1, 10), says(7, 1, 25)]);
        assert_eq!(logs.misses(NODE, says(7, 2, 24)), Some(25));
        assert_eq!(logs.misses(NODE, says(7, 2, 25)), None, "it has all of it");
        assert_eq!(logs.misses(NODE, says(7, 2, 90)), None, "it wrote on before it was heard");
        assert_eq!(logs.misses(NodeId(3), says(7, 2, 1)), None, "nothing is known of that one");
        assert_eq!(logs.of(NODE), Some((InstanceId(7), 25)));
        assert_eq!(logs.of(NodeId(3)), None);
    }

    #[test]
    fn what_was_overtaken_on_its_way_is_no_loss() {
        let mut logs = heard(&[says(7, 1, 25)]);
        assert_eq!(logs.misses(NODE, says(7, 1, 20)), None, "said before, and heard later");
        logs.hear(NODE, says(7, 1, 20));
        assert_eq!(logs.misses(NODE, says(7, 2, 24)), Some(25), "it had reached that all the same");
    }

    #[test]
    fn what_an_earlier_run_has_reached_counts_on() {
        let logs = heard(&[says(7, 1, 25), says(7, 2, 3)]);
        assert_eq!(logs.misses(NODE, says(7, 3, 24)), Some(25));
    }

    #[test]
    fn another_directory_begins_anew() {
        let logs = heard(&[says(7, 1, 25), says(8, 2, 1)]);
        assert_eq!(logs.misses(NODE, says(8, 3, 1)), None);
        assert_eq!(logs.misses(NODE, says(8, 3, 0)), Some(1));
        assert_eq!(heard(&[says(7, 1, 25)]).misses(NODE, says(8, 2, 1)), None, "links decide about that one");
    }

    #[test]
    fn who_is_no_member_any_more_is_forgotten() {
        let mut logs = heard(&[says(7, 1, 25)]);
        logs.retain(|node| node != NODE);
        assert_eq!(logs.of(NODE), None);
    }
}
