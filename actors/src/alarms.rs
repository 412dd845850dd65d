//! What is wrong with replicas, for people to see: the list behind the details of `/readyz`.
//!
//! A replica that is wrong raises an alarm on its own node, and its leader one on the leader's. Each ends when whoever
//! raised it sees that all is well; what raised it is in the log.

use std::collections::BTreeMap;
use std::sync::Mutex;
use trandb_cluster::{NodeId, PartitionId};

/// A node's alarms. There are never more than partitions times their replicas.
#[derive(Debug, Default)]
pub struct Alarms(Mutex<BTreeMap<(PartitionId, About), String>>);

/// What an alarm of a partition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// This node's own replica.
    Own,
    /// The replica on that node, as its leader here sees it.
    Replica(NodeId),
    /// All of them: they differ, and nobody knows which is right.
    All,
}

impl Alarms {
    /// Raises an alarm; whether it is a new one. One that is there already goes on saying what it says.
    pub(crate) fn raise(&self, partition: PartitionId, about: About, text: String) -> bool {
        let mut list = self.list();
        let new = !list.contains_key(&(partition, about));
        list.entry((partition, about)).or_insert(text);
        new
    }

    /// Ends an alarm; whether there was one.
    pub(crate) fn end(&self, partition: PartitionId, about: About) -> bool {
        self.list().remove(&(partition, about)).is_some()
    }

    /// Ends the alarms of a partition that `ends` picks.
    pub(crate) fn end_all(&self, partition: PartitionId, ends: impl Fn(About) -> bool) {
        self.list().retain(|&(of, about), _| of != partition || !ends(about));
    }

    /// What the alarms say, by partition.
    pub fn texts(&self) -> Vec<String> {
        self.list().values().cloned().collect()
    }

    fn list(&self) -> std::sync::MutexGuard<'_, BTreeMap<(PartitionId, About), String>> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_lasts_until_it_is_ended() {
        let alarms = Alarms::default();
        let (p1, p2) = (PartitionId(1), PartitionId(2));
        assert!(alarms.raise(p1, About::Own, "a".into()));
        assert!(!alarms.raise(p1, About::Own, "b".into()), "it is not new");
        assert!(alarms.raise(p1, About::Replica(NodeId(2)), "c".into()));
        assert!(alarms.raise(p2, About::All, "d".into()));
        assert_eq!(alarms.texts(), ["a", "c", "d"]);
        alarms.end_all(p1, |about| about != About::Own);
        assert_eq!(alarms.texts(), ["a", "d"]);
        assert!(alarms.end(p1, About::Own) && !alarms.end(p1, About::Own));
        assert_eq!(alarms.texts(), ["d"]);
    }
}
