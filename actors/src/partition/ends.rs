//! Steps of transactions at which a node of a debug build can be made to end, at the partition's leader: when a step is
//! taken up, and when it is applied and has not been answered.

use trandb_cluster::txn::TxnStep;
use trandb_runtime::pace::reach;

pub(super) fn taken(step: &TxnStep) {
    match step {
        TxnStep::Commit { .. } => reach("commit-taken"),
        TxnStep::Prepare(_) => reach("prepare-taken"),
        TxnStep::Decide { .. } => reach("decide-taken"),
        TxnStep::Resolve { .. } => reach("resolve-taken"),
        TxnStep::Finish { .. } => reach("finish-taken"),
        TxnStep::Extend { .. } | TxnStep::Push { .. } | TxnStep::Inquire { .. } => {}
    }
}

pub(super) fn applied(step: &TxnStep) {
    match step {
        TxnStep::Commit { .. } => reach("commit-applied"),
        TxnStep::Prepare(_) => reach("prepare-applied"),
        TxnStep::Decide { .. } => reach("decide-applied"),
        TxnStep::Resolve { .. } => reach("resolve-applied"),
        TxnStep::Finish { .. } => reach("finish-applied"),
        TxnStep::Extend { .. } | TxnStep::Push { .. } | TxnStep::Inquire { .. } => {}
    }
}
