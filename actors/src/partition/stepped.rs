//! Tells whoever listens what became of transactions, step by step: the simulation holds partitions against each other.

use trandb_cluster::command::{Applied, Command};
use trandb_cluster::partition::PartitionState;
use trandb_cluster::txn::{TxnApplied, TxnId, TxnStep};
use trandb_cluster::{PartitionId, Timestamp};
use trandb_runtime::raft::{LogId, witness};

/// The steps of an entry that is about to be applied. Empty while nobody listens.
#[derive(Default)]
pub(super) struct Steps(Vec<(TxnId, Told)>);

/// What a step says of the decision.
enum Told {
    /// It is asked for one, or makes one: its answer says which.
    Answer,
    /// It brings it.
    Decision(Option<Timestamp>),
    /// Nothing: it may be answered for good where the transaction is not decided.
    Nothing,
}

impl Steps {
    pub(super) fn of(command: &Command) -> Self {
        let Command::Txn(entry) = command else { return Self::default() };
        if !witness::is_heard() {
            return Self::default();
        }
        let told = |step: &TxnStep| match step {
            TxnStep::Commit { .. } | TxnStep::Push { .. } | TxnStep::Abort { .. } => Told::Answer,
            TxnStep::Resolve { committed, .. } => Told::Decision(*committed),
            _ => Told::Nothing,
        };
        Self(entry.steps.iter().map(|step| (step.txn(), told(step))).collect())
    }

    /// They were applied, and answered so.
    pub(super) fn tell(self, group: PartitionId, entry: LogId, state: &PartitionState, applied: &Applied) {
        let Applied::Txns(answers) = applied else { return };
        for ((txn, told), answer) in self.0.into_iter().zip(answers) {
            let decided = match (told, answer) {
                (Told::Decision(decision), _) => Some(decision.map_or(0, |at| at.0)),
                (Told::Answer, TxnApplied::Committed(at)) => Some(at.0),
                (Told::Answer, TxnApplied::Aborted(_)) => Some(0),
                _ => None,
            };
            witness::stepped(group, entry, txn, state.holds(txn), decided);
        }
    }
}
