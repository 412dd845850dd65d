//! What a partition does for a request, as part of the request's trace, wherever that began.

use tracing::Span;
use tracing::field::display;
use trandb_cluster::txn::TxnStep;
use trandb_cluster::wire::TraceContext;
use trandb_cluster::{NodeId, PartitionId};
use trandb_runtime::telemetry::span_with_parent;

/// The span of one call, which ends when it is dropped: with the answer. None for a call that is no part of a
/// sampled trace, which costs one look.
pub(super) fn step(
    name: &'static str,
    trace: Option<&TraceContext>,
    node: NodeId,
    partition: PartitionId,
) -> Span {
    let Some(trace) = trace.filter(|trace| trace.sampled) else { return Span::none() };
    let span = span_with_parent(name, Some(trace));
    if !span.is_none() {
        span.record("node", display(node)).record("partition", display(partition));
    }
    span
}

/// The name of the span of a transaction's step.
pub(super) fn of_step(step: &TxnStep) -> &'static str {
    match step {
        TxnStep::Commit { participants, .. } if participants.is_empty() => "partition commit",
        TxnStep::Commit { .. } => "partition decide",
        TxnStep::Prepare(_) => "partition prepare",
        TxnStep::Extend { .. } => "partition extend",
        TxnStep::Push { .. } => "partition push",
        TxnStep::Abort { .. } => "partition abort",
        TxnStep::Resolve { .. } => "partition resolve",
        TxnStep::Finish { .. } => "partition finish",
        TxnStep::Inquire { .. } => "partition inquire",
    }
}
