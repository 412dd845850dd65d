//! Requests as parts of traces: the context that came with them, and the span that they are here.

use tracing::Span;
use tracing::field::display;
use trandb_cluster::NodeId;
use trandb_cluster::wire::TraceContext;
use trandb_runtime::telemetry::{current_trace_context, span_with_parent};

/// A request's span on this node, and the context that its further steps are part of: the span where traces
/// are exported, else whatever the client sent, so that a node without export does not cut a trace.
pub(crate) fn request_span(
    name: &'static str,
    parent: Option<TraceContext>,
    node: NodeId,
) -> (Span, Option<TraceContext>) {
    let span = span_with_parent(name, parent.as_ref());
    if span.is_disabled() {
        return (span, parent);
    }
    span.record("node", display(node));
    let context = span.in_scope(current_trace_context).or(parent);
    (span, context)
}

/// Length of a version 00 header: `00-` 32 digits `-` 16 digits `-` 2 digits.
const TRACEPARENT_BYTES: usize = 55;

/// Reads a `traceparent` header; what is not one is as if it were absent, as the standard asks.
pub(crate) fn parse_traceparent(header: &str) -> Option<TraceContext> {
    let mut parts = header.split('-');
    let version = hexadecimal(parts.next()?, 2)?;
    let trace_id = hexadecimal(parts.next()?, 32)?;
    let span_id = u64::try_from(hexadecimal(parts.next()?, 16)?).ok()?;
    let flags = hexadecimal(parts.next()?, 2)?;
    // Version 255 is forbidden; version 0 has exactly four parts, later ones may have more.
    let valid = version != 0xff
        && (version != 0 || header.len() == TRACEPARENT_BYTES)
        && trace_id != 0
        && span_id != 0;
    valid.then_some(TraceContext { trace_id, span_id, sampled: flags & 1 == 1 })
}

fn hexadecimal(text: &str, digits: usize) -> Option<u128> {
    let lower = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (lower && text.len() == digits).then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standards_example_is_read() {
        let context = parse_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        assert_eq!(
            context,
            Some(TraceContext {
                trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
                span_id: 0x00f0_67aa_0ba9_02b7,
                sampled: true
            })
        );
    }

    #[test]
    fn what_is_not_one_is_ignored() {
        for header in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parse_traceparent(header), None, "{header}");
        }
    }
}
