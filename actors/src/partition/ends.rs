//! Steps of transactions at which a node of a debug build can be made to end, at the partition's leader: when a step is
//! taken up, and when it is applied and has not been answered.

use trandb_cluster::txn::TxnStep;
use trandb_runtime::pace::reach;

pub(super) fn taken(step: &TxnStep) {
    match step {
        TxnStep::Commit { participants, .. } if participants.is_empty() => reach("commit-taken"),
        TxnStep::Commit { .. } => reach("decide-taken"),
        TxnStep::Prepare(_) => reach("prepare-taken"),
        TxnStep::Resolve { .. } => reach("resolve-taken"),
        TxnStep::Finish { .. } => reach("finish-taken"),
        TxnStep::Abort { .. } | TxnStep::Extend { .. } | TxnStep::Push { .. } | TxnStep::Inquire { .. } => {}
    }
}

pub(super) fn applied(step: &TxnStep) {
    match step {
        TxnStep::Commit { participants, .. } if participants.is_empty() => reach("commit-applied"),
        TxnStep::Commit { .. } => reach("decide-applied"),
        TxnStep::Prepare(_) => reach("prepare-applied"),
        TxnStep::Resolve { .. } => reach("resolve-applied"),
        TxnStep::Finish { .. } => reach("finish-applied"),
        TxnStep::Abort { .. } | TxnStep::Extend { .. } | TxnStep::Push { .. } | TxnStep::Inquire { .. } => {}
    }
}
