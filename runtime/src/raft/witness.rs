//! Tells whoever listens what a group's logs and states go through, entry by entry: the simulation holds the replicas
//! against each other. Nothing is computed while nobody listens at the level of traces.

use super::codec::encode_entry;
use super::types::{LogId, TypeConfig};
use openraft::type_config::alias::EntryOf;
use trandb_cluster::PartitionId;
use trandb_cluster::txn::TxnId;

/// Target of these events.
pub const ENTRIES: &str = "trandb_entries";

/// Whether somebody listens.
pub fn is_heard() -> bool {
    tracing::enabled!(target: ENTRIES, tracing::Level::TRACE)
}

/// A replica's log takes an entry behind the one of `before`. Whether it is compressed there is each node's own affair.
pub(super) fn appended(group: PartitionId, before: Option<LogId>, entry: &EntryOf<TypeConfig>) {
    if !is_heard() {
        return;
    }
    let (term, index) = (entry.log_id.leader_id.term, entry.log_id.index);
    let payload = encode_entry(entry, usize::MAX);
    let before = before.filter(|before| before.index + 1 == index).map(|before| before.leader_id.term);
    let content = u64::from(crc32c::crc32c(&payload));
    tracing::trace!(target: ENTRIES, group = u64::from(group.0), index, term, before, content, "appended");
}

/// A replica's state has taken an entry.
pub fn applied(group: PartitionId, entry: LogId) {
    let (term, index) = (entry.leader_id.term, entry.index);
    tracing::trace!(target: ENTRIES, group = u64::from(group.0), index, term, "applied");
}

/// A replica's state has taken a step of a transaction: whether it holds something of it now and, if the step decided it or
/// told the decision, when it was committed, with zero for one that was aborted.
pub fn stepped(group: PartitionId, entry: LogId, txn: TxnId, held: bool, decided: Option<u64>) {
    let (begin, node) = (txn.begin.0, txn.node.0);
    tracing::trace!(target: ENTRIES, group = u64::from(group.0), index = entry.index, begin, node, held, decided, "stepped");
}
