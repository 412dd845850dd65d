//! Queues stay within their bounds.

use super::Evidence;

/// Bytes that may wait at a partition for their turn: its own limit, and one call that was let in just below it.
const QUEUE_BYTES_MAX: u64 = (64 << 20) + (8 << 20);

pub(super) fn violations(evidence: &Evidence<'_>) -> Vec<String> {
    let highest = evidence.coverage.highest("trandb_queue_bytes");
    if highest <= QUEUE_BYTES_MAX {
        return Vec::new();
    }
    vec![format!("{highest} bytes waited at a partition, the limit is {QUEUE_BYTES_MAX}")]
}
