//! Queues stay within their bounds.

use super::Evidence;

/// Bytes that may wait at a partition for their turn: its own limit, and one call that was let in just below it.
const QUEUE_BYTES_MAX: u64 = (64 << 20) + (8 << 20);

/// Bytes of calls that a node may have under way to one other.
const CALL_BYTES_MAX: u64 = 64 << 20;

/// Transactions that may be open on a node.
const OPEN_MAX: u64 = 10_000;

pub(super) fn violations(evidence: &Evidence<'_>) -> Vec<String> {
    let nodes = evidence.plan.nodes as u64;
    let calls = evidence.plan.settings.iter().map(|settings| u64::from(settings.calls_in_flight())).max();
    let calls = calls.unwrap_or_default();
    // All nodes of a simulation share a gauge: those that count up and down show them together.
    let bounds = [
        ("trandb_queue_bytes", QUEUE_BYTES_MAX),
        ("trandb_peer_calls_in_flight", nodes * calls),
        ("trandb_peer_bytes_in_flight", nodes * CALL_BYTES_MAX),
        ("trandb_txn_open", OPEN_MAX),
    ];
    bounds.iter().filter_map(|&(gauge, limit)| over(gauge, evidence.coverage.highest(gauge), limit)).collect()
}

fn over(gauge: &str, highest: u64, limit: u64) -> Option<String> {
    (highest > limit).then(|| format!("{gauge} was {highest}, the limit is {limit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_over_its_limit_is_found() {
        assert_eq!(over("queue", 5, 5), None);
        assert!(over("queue", 6, 5).is_some());
    }
}
