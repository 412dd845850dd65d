//! Whether a node still has the log that others know it to have had.
//!
//! All groups of a node share one log, whose batches are numbered without gaps. Others hear with each heartbeat how far it
//! is durable. Who comes back with less has lost what it acknowledged: somebody has put an older copy of its directory in
//! the place of the newer one, or its disk has not kept what it said it had. It has forgotten votes and entries that others
//! count on, and so must not take part as the node that it was.
//!
//! What is known is kept in memory: who was restarted itself knows nothing of the others until it has heard of them again.

use crate::ids::{InstanceId, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a node says of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogExtent {
    /// Its data directory.
    pub instance: InstanceId,
    /// A random number per start.
    pub boot: u64,
    /// The last batch that is durable; 0 if there is none.
    pub batch: u64,
}

impl LogExtent {
    /// Whether a node that has found this in its directory when it started lacks something of what is known of it. What it
    /// has written since does not make up for that. What it said in the same run is no matter: messages overtake each other.
    pub fn lacks(&self, known: &Self) -> bool {
        known.instance == self.instance && known.boot != self.boot && self.batch < known.batch
    }
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

    /// The last that is known of a node's log.
    pub fn of(&self, node: NodeId) -> Option<LogExtent> {
        self.nodes.get(&node).copied()
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

    fn lacks(logs: &KnownLogs, began: LogExtent) -> bool {
        logs.of(NODE).is_some_and(|known| began.lacks(&known))
    }

    #[test]
    fn who_comes_back_with_less_is_noticed() {
        let logs = heard(&[says(7, 1, 10), says(7, 1, 25)]);
        assert_eq!(logs.of(NODE), Some(says(7, 1, 25)));
        assert!(lacks(&logs, says(7, 2, 24)));
        assert!(!lacks(&logs, says(7, 2, 25)), "it has all of it");
        assert!(!lacks(&logs, says(7, 2, 90)), "it wrote on before it was heard");
        assert_eq!(logs.of(NodeId(3)), None);
    }

    #[test]
    fn what_was_overtaken_on_its_way_is_no_loss() {
        let mut logs = heard(&[says(7, 1, 25)]);
        assert!(!lacks(&logs, says(7, 1, 20)), "said before, and heard later");
        logs.hear(NODE, says(7, 1, 20));
        assert!(lacks(&logs, says(7, 2, 24)), "it had reached that all the same");
    }

    #[test]
    fn what_an_earlier_run_has_reached_counts_on() {
        let logs = heard(&[says(7, 1, 25), says(7, 2, 25)]);
        assert!(lacks(&logs, says(7, 3, 24)));
    }

    #[test]
    fn another_directory_begins_anew() {
        assert!(!lacks(&heard(&[says(7, 1, 25)]), says(8, 2, 1)), "links decide about that one");
        let logs = heard(&[says(7, 1, 25), says(8, 2, 1)]);
        assert!(!lacks(&logs, says(8, 3, 1)));
        assert!(lacks(&logs, says(8, 3, 0)));
    }

    #[test]
    fn who_is_no_member_any_more_is_forgotten() {
        let mut logs = heard(&[says(7, 1, 25)]);
        logs.retain(|node| node != NODE);
        assert_eq!(logs.of(NODE), None);
    }
}
