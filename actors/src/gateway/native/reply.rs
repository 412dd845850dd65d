//! From results to frames.

use super::super::backend::Backend;
use super::super::metrics::{Outcome, RequestMetrics};
use super::super::rules::{blocked, condition_failed, overdue};
use super::super::trace::request_span;
use super::Native;
use super::output::Output;
use super::request::{Batch, Call, Terms, Waiting};
use crate::database::{OpReply, RequestContext};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, Span};
use trandb_cluster::command::WriteOutcome;
use trandb_cluster::txn::TxnResponse;
use trandb_cluster::wire::{KeyResult, Response, ServerFrame};
use trandb_cluster::{Error, ErrorCode};

/// How much longer than a request's deadline its answer is waited for. The database answers by the deadline
/// itself and knows better what became of the request; this only holds if it does not.
const GRACE: Duration = Duration::from_secs(1);

/// Answers to one batch or call, on their way into the output.
pub(super) struct Answered {
    waiting: Vec<Waiting>,
    results: Vec<(Result<Response, Error>, bool)>,
    started: Instant,
    /// The requests' share of the door's budget, held until they are answered.
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Answered {
    /// How many requests it answers.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Encodes and counts the answers.
    pub(super) fn write(self, output: &mut Output, metrics: &RequestMetrics) {
        let elapsed = self.started.elapsed();
        // Neighbours are mostly of one kind: their time is noted once for all of them.
        for run in self.waiting.chunk_by(|a, b| a.kind == b.kind) {
            metrics.took(run[0].kind, elapsed, run.len());
        }
        for (waiting, (result, forwarded)) in self.waiting.into_iter().zip(self.results) {
            write(waiting, result, forwarded, output, metrics);
        }
    }
}

/// Encodes and counts one answer.
pub(super) fn write(
    waiting: Waiting,
    result: Result<Response, Error>,
    forwarded: bool,
    output: &mut Output,
    metrics: &RequestMetrics,
) {
    metrics.count(waiting.kind, outcome(&result));
    output.push(&ServerFrame::Response { id: waiting.id, forwarded, result });
}

fn outcome(result: &Result<Response, Error>) -> Outcome {
    match result {
        Ok(Response::Value(None) | Response::Exists(None) | Response::Txn(TxnResponse::Value(None))) => {
            Outcome::Failed(ErrorCode::NotFound)
        }
        Ok(_) => Outcome::Ok,
        Err(error) => Outcome::Failed(error.code),
    }
}

/// What a batch or call needs to run.
pub(super) struct Job {
    backend: Arc<dyn Backend>,
    context: RequestContext,
    span: Span,
    started: Instant,
    permit: Arc<OwnedSemaphorePermit>,
}

impl Job {
    /// Begins now, under these terms.
    pub(super) fn new(
        name: &'static str,
        terms: Terms,
        native: &Native,
        started: Instant,
        permit: &Arc<OwnedSemaphorePermit>,
    ) -> Self {
        let (span, trace) = request_span(name, terms.trace, native.backend.node());
        let deadline = started + native.options.timeout(terms.deadline_ms);
        Self {
            backend: Arc::clone(&native.backend),
            context: RequestContext { deadline, trace },
            span,
            started,
            permit: Arc::clone(permit),
        }
    }

    /// Runs a batch to its answers.
    pub(super) async fn batch(self, batch: Batch) -> Answered {
        let Batch { waiting, ops, .. } = batch;
        let replies = self.backend.execute(ops, self.context).instrument(self.span);
        let results = match timeout_at(self.context.deadline + GRACE, replies).await {
            Ok(replies) if replies.len() == waiting.len() => replies
                .into_iter()
                .map(|OpReply { result, forwarded }| (result.and_then(response), forwarded))
                .collect(),
            Ok(replies) => {
                let error =
                    Error::internal(format!("{} answers to {} operations", replies.len(), waiting.len()));
                waiting.iter().map(|_| (Err(error.clone()), false)).collect()
            }
            Err(_) => waiting.iter().map(|waiting| (Err(overdue(waiting.kind.is_write())), false)).collect(),
        };
        Answered { waiting, results, started: self.started, _permit: self.permit }
    }

    /// Runs a call to its answer.
    pub(super) async fn call(self, id: u64, call: Call) -> Answered {
        let (kind, is_write) = (call.kind(), call.is_write());
        let (context, backend) = (self.context, self.backend);
        let answer = async {
            match call {
                Call::Scan(scan) => backend.scan(scan, context).await.map(Response::Page),
                Call::Verify => backend.verify(context).await.map(Response::Verified),
                Call::Checkpoint => backend.checkpoint(context).await.map(Response::Checkpointed),
                Call::Topology => Ok(Response::Topology(backend.topology())),
                Call::Cluster => Ok(Response::Cluster(backend.cluster_view())),
                Call::Ping => Ok(Response::Pong),
                Call::Txn(request) => backend.txn(request, context).await.map(Response::Txn),
            }
        };
        let result = match timeout_at(context.deadline + GRACE, answer.instrument(self.span)).await {
            Ok(result) => result,
            Err(_) => Err(overdue(is_write)),
        };
        Answered {
            waiting: vec![Waiting { id, kind }],
            results: vec![(result, false)],
            started: self.started,
            _permit: self.permit,
        }
    }
}

fn response(result: KeyResult) -> Result<Response, Error> {
    match result {
        KeyResult::Value(value) => Ok(Response::Value(value)),
        KeyResult::Exists(version) => Ok(Response::Exists(version)),
        KeyResult::Write(WriteOutcome::Done { version, previous }) => {
            Ok(Response::Written { version, previous })
        }
        KeyResult::Write(WriteOutcome::ConditionFailed { current }) => Err(condition_failed(current)),
        KeyResult::Write(WriteOutcome::Blocked(blocker)) => Err(blocked(&blocker)),
    }
}
