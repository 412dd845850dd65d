//! Requests by kind and outcome. Handles are looked up once, so that counting is an addition.

use metrics::{Counter, Histogram};
use std::sync::OnceLock;
use std::time::Duration;
use trandb_cluster::ErrorCode;
use trandb_cluster::txn::TxnRequest;

/// What a request is about, as the label `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Get,
    Exists,
    Put,
    Delete,
    Scan,
    Topology,
    Cluster,
    Verify,
    Checkpoint,
    Ping,
    TxnBegin,
    TxnOp,
    TxnCommit,
    TxnAbort,
    TxnOutcome,
    Batch,
    TxnNames,
    /// Health, metrics, documents, and paths that do not exist.
    Other,
}

impl Kind {
    const ALL: [Self; 18] = [
        Self::Get,
        Self::Exists,
        Self::Put,
        Self::Delete,
        Self::Scan,
        Self::Topology,
        Self::Cluster,
        Self::Verify,
        Self::Checkpoint,
        Self::Ping,
        Self::TxnBegin,
        Self::TxnOp,
        Self::TxnCommit,
        Self::TxnAbort,
        Self::TxnOutcome,
        Self::Batch,
        Self::TxnNames,
        Self::Other,
    ];

    /// The kind of what is asked of transactions.
    pub(crate) const fn of_txn(request: &TxnRequest) -> Self {
        match request {
            TxnRequest::Begin { .. } => Self::TxnBegin,
            TxnRequest::Op { .. } => Self::TxnOp,
            TxnRequest::Commit { .. } => Self::TxnCommit,
            TxnRequest::Abort { .. } => Self::TxnAbort,
            TxnRequest::Outcome { .. } => Self::TxnOutcome,
            TxnRequest::Batch(_) => Self::Batch,
            TxnRequest::Names { .. } => Self::TxnNames,
        }
    }

    /// Whether the request may change something, so that its outcome can be unknown.
    pub(crate) const fn is_write(self) -> bool {
        matches!(self, Self::Put | Self::Delete)
    }

    /// The label's value.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Exists => "exists",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Scan => "scan",
            Self::Topology => "topology",
            Self::Cluster => "cluster",
            Self::Verify => "verify",
            Self::Checkpoint => "checkpoint",
            Self::Ping => "ping",
            Self::TxnBegin => "txn_begin",
            Self::TxnOp => "txn_op",
            Self::TxnCommit => "txn_commit",
            Self::TxnAbort => "txn_abort",
            Self::TxnOutcome => "txn_outcome",
            Self::Batch => "batch",
            Self::TxnNames => "txn_names",
            Self::Other => "other",
        }
    }
}

/// What came of a request, as the label `outcome`: `ok` or an error's code. Asking for a key that is not
/// there is `not_found` through every door, so that hit rates can be read off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    Failed(ErrorCode),
}

impl Outcome {
    fn index(self) -> usize {
        match self {
            Self::Ok => 0,
            Self::Failed(code) => {
                1 + ErrorCode::ALL.iter().position(|known| *known == code).expect("ALL names every code")
            }
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed(code) => code.row().name,
        }
    }
}

const OUTCOMES: usize = 1 + ErrorCode::ALL.len();

/// One door's counters. Doors share the series: a request is one wherever it came in.
pub(crate) struct RequestMetrics {
    counters: [[OnceLock<Counter>; OUTCOMES]; Kind::ALL.len()],
    seconds: [Histogram; Kind::ALL.len()],
}

impl RequestMetrics {
    pub(crate) fn new() -> Self {
        let metrics = Self {
            counters: std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new())),
            seconds: Kind::ALL
                .map(|kind| metrics::histogram!("trandb_request_seconds", "kind" => kind.name())),
        };
        // Seen from the start, so that a rate over them is right from the first request on. The others
        // appear when they happen.
        for kind in Kind::ALL {
            metrics.counter(kind, Outcome::Ok).increment(0);
        }
        metrics
    }

    fn counter(&self, kind: Kind, outcome: Outcome) -> &Counter {
        self.counters[kind as usize][outcome.index()].get_or_init(
            || metrics::counter!("trandb_requests_total", "kind" => kind.name(), "outcome" => outcome.name()),
        )
    }

    /// Counts one request.
    pub(crate) fn count(&self, kind: Kind, outcome: Outcome) {
        self.counter(kind, outcome).increment(1);
    }

    /// Notes how long `count` requests of one kind took each.
    pub(crate) fn took(&self, kind: Kind, elapsed: Duration, count: usize) {
        self.seconds[kind as usize].record_many(elapsed.as_secs_f64(), count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_outcome_has_a_place_of_its_own() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index, "{}", kind.name());
        }
        let mut seen = std::collections::BTreeSet::from([Outcome::Ok.index()]);
        for code in ErrorCode::ALL {
            assert!(seen.insert(Outcome::Failed(code).index()));
        }
        assert_eq!(seen.last(), Some(&(OUTCOMES - 1)));
    }
}
