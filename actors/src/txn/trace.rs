//! The phases of a transaction, as spans of the request that went through them: begin, the wait for a lock, and of a
//! commit its preparation, decision and resolution. What partitions do for a phase is a child of its span, on whatever
//! node.

use crate::database::RequestContext;
use tracing::Span;
use tracing::field::display;
use trandb_cluster::{NodeId, TxnId};
use trandb_runtime::telemetry::{current_trace_context, span_with_parent};

/// A phase's span, which ends when it is dropped, and the request as the phase's steps are to be part of it. No span for
/// what is no part of a sampled trace, which costs one look.
pub(super) fn phase(
    name: &'static str,
    node: NodeId,
    txn: Option<TxnId>,
    request: &RequestContext,
) -> (Span, RequestContext) {
    let Some(parent) = request.trace.filter(|trace| trace.sampled) else { return (Span::none(), *request) };
    let span = span_with_parent(name, Some(&parent));
    if span.is_none() {
        return (span, *request);
    }
    span.record("node", display(node));
    if let Some(txn) = txn {
        span.record("txn", display(txn));
    }
    let trace = span.in_scope(current_trace_context).or(request.trace);
    (span, RequestContext { trace, ..*request })
}
