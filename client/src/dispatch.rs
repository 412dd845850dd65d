//! Carries a request through: picks a node, sends, judges what came of it, and tries again where that is safe.
//!
//! What is safe follows from what is known. A request that never left, or that a node answered with a
//! retryable code, was not done: any request may be sent again. One that left and got no answer may have been
//! done: a read is asked again, a write ends as `unknown`. Of transactions, all is asked again but what would count
//! twice or may have ended it: writes, commits, batches. What becomes of those is decided above (`txn`).

use crate::channel::{Answer, CallError};
use crate::node::{Node, lock};
use crate::options::Options;
use crate::retry::{Bucket, Jitter, pause};
use crate::routing::{Routes, Target};
use crate::txn::Names;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::txn::{TxnBatch, TxnOp, TxnRequest};
use trandb_cluster::wire::{Request, Response, Topology, TraceContext};
use trandb_cluster::{Error, ErrorCode, NodeId};

/// Between two requests for the partition map: after a failover every answer asks for one.
const REFRESH_GAP: Duration = Duration::from_millis(250);

/// A map older than this is fetched again when the client is used, since leaders also move quietly.
const REFRESH_AGE: Duration = Duration::from_secs(5);

/// Less time than this is not worth another attempt: no answer would come back in time, and a write that was surely
/// not done would end as one that nobody knows of.
const ATTEMPT_MIN: Duration = Duration::from_millis(50);

/// How long fetching the map, or probing a node, may take.
const BACKGROUND_TIMEOUT: Duration = Duration::from_secs(1);

/// What a client's clones share.
pub(crate) struct Dispatch {
    pub(crate) options: Options,
    seeds: Vec<String>,
    routes: Mutex<Arc<Routes>>,
    refresh: Mutex<Refresh>,
    jitter: Jitter,
    bucket: Mutex<Bucket>,
    /// Of transactions that lost a conflict and are run again. One of their own: what wins a conflict has made
    /// progress, so they say nothing about how the cluster is.
    conflicts: Mutex<Bucket>,
    /// Of batches to come.
    pub(crate) names: Names,
    /// Spreads requests that no leader is known for.
    turn: AtomicUsize,
}

#[derive(Default)]
struct Refresh {
    running: bool,
    last: Option<Instant>,
}

/// One request of a caller.
pub(crate) struct Task {
    pub(crate) request: Request,
    pub(crate) target: Target,
    pub(crate) deadline: Instant,
    pub(crate) trace: Option<TraceContext>,
}

/// An attempt that did not succeed.
struct Failure {
    error: Error,
    /// Whether sending the request again is safe and may help.
    again: bool,
}

impl Dispatch {
    pub(crate) fn new(seeds: Vec<String>, options: Options) -> Arc<Self> {
        Arc::new(Self {
            routes: Mutex::new(Arc::new(Routes::from_seeds(&seeds, &options))),
            refresh: Mutex::default(),
            jitter: Jitter::new(options.seed.unwrap_or_else(seed)),
            bucket: Mutex::new(Bucket::new(options.retry_budget, Instant::now())),
            conflicts: Mutex::new(Bucket::new(options.conflict_budget, Instant::now())),
            names: Names::default(),
            turn: AtomicUsize::new(0),
            seeds,
            options,
        })
    }

    pub(crate) fn routes(&self) -> Arc<Routes> {
        lock(&self.routes).clone()
    }

    /// Sends the request until it is done, must not be sent again, or its deadline leaves no room.
    pub(crate) async fn run(self: &Arc<Self>, task: Task) -> Result<Response, Error> {
        self.run_somewhere(task, &mut NodeId(0)).await
    }

    /// The same, and says to which node it was sent last, if to any: the one that a batch was named after.
    pub(crate) async fn run_somewhere(
        self: &Arc<Self>,
        task: Task,
        sent_to: &mut NodeId,
    ) -> Result<Response, Error> {
        self.refresh_if_old();
        let mut failed_at: Option<Arc<Node>> = None;
        for attempt in 1.. {
            let routes = self.routes();
            let node = self.pick(&routes, task.target, failed_at.as_ref());
            let failure = match &node {
                Some(node) => match self.attempt(node, &task, sent_to).await {
                    Ok(response) => {
                        lock(&self.bucket).succeeded();
                        return Ok(response);
                    }
                    Err(failure) => failure,
                },
                None => Failure { error: Error::unavailable("every node is failing"), again: true },
            };
            if !failure.again {
                return Err(failure.error);
            }
            failed_at = node;
            let now = Instant::now();
            let remaining = task.deadline.saturating_duration_since(now);
            let backoff =
                self.jitter.shorten(pause(attempt, self.options.retry_pause, self.options.retry_pause_max));
            let wait = lock(&self.bucket).take(now, remaining).map(|turn| turn.max(backoff));
            match wait {
                Some(wait) if wait + ATTEMPT_MIN < remaining => tokio::time::sleep(wait).await,
                _ => return Err(failure.error),
            }
        }
        unreachable!("the loop ends only by returning")
    }

    /// How long to wait before the `attempt`-th run of a transaction is followed by another; none when that is not
    /// worth it before the deadline.
    pub(crate) fn pause_after_conflict(&self, attempt: u32, deadline: Instant) -> Option<Duration> {
        let now = Instant::now();
        let remaining = deadline.saturating_duration_since(now);
        let backoff =
            self.jitter.shorten(pause(attempt, self.options.retry_pause, self.options.retry_pause_max));
        let wait = lock(&self.conflicts).take(now, remaining)?.max(backoff);
        (wait + ATTEMPT_MIN < remaining).then_some(wait)
    }

    /// A transaction has come through.
    pub(crate) fn transacted(&self) {
        lock(&self.conflicts).succeeded();
    }

    async fn attempt(
        self: &Arc<Self>,
        node: &Arc<Node>,
        task: &Task,
        sent_to: &mut NodeId,
    ) -> Result<Response, Failure> {
        let channel = match node.channel(&self.options, task.deadline).await {
            Ok(channel) => channel,
            Err(error) => {
                self.failed(node);
                let error = error.into_error();
                // What one node denies, another denies too.
                return Err(Failure { again: error.is_retryable(), error });
            }
        };
        let deadline = match may_ask_again_early(&task.request) {
            true => task.deadline.min(Instant::now() + self.options.attempt_timeout),
            false => task.deadline,
        };
        *sent_to = channel.node();
        let request = addressed(task.request.clone(), *sent_to);
        match channel.call(request, task.trace, deadline).await {
            Ok(Answer { result, forwarded }) => {
                node.breaker().succeeded();
                if forwarded && self.options.leader_hints {
                    self.refresh_soon();
                }
                result.map_err(|error| self.judge_answer(error, &task.request))
            }
            Err(error) => Err(self.judge_silence(node, error, task)),
        }
    }

    fn judge_answer(self: &Arc<Self>, error: Error, request: &Request) -> Failure {
        if error.code == ErrorCode::Unavailable {
            self.refresh_soon();
        }
        let (unclear, reads) =
            (matches!(error.code, ErrorCode::Unknown | ErrorCode::Internal), is_read(request));
        let error = match error.code {
            // There is nothing about a read to be left in doubt.
            ErrorCode::Unknown if reads => Error::unavailable(error.message),
            _ => error,
        };
        Failure { again: error.is_retryable() || (unclear && reads), error }
    }

    fn judge_silence(self: &Arc<Self>, node: &Arc<Node>, error: CallError, task: &Task) -> Failure {
        match error {
            CallError::NotSent(error) => {
                self.failed(node);
                let error = error.into_error();
                Failure { again: error.is_retryable(), error }
            }
            CallError::Lost(error) => {
                self.failed(node);
                match is_read(&task.request) {
                    true => Failure { error: Error::unavailable(error.to_string()), again: true },
                    false => Failure {
                        error: Error::unknown(format!("sent, then no answer: {error}")),
                        again: false,
                    },
                }
            }
            CallError::Full => Failure {
                error: Error::overloaded(format!("no room among the requests in flight to {}", node.addr())),
                again: true,
            },
            CallError::Late { silent } => {
                if silent {
                    self.failed(node);
                }
                let message = format!("no answer from {} in time", node.addr());
                match is_read(&task.request) {
                    true => Failure { error: Error::unavailable(message), again: true },
                    false => Failure { error: Error::unknown(message), again: false },
                }
            }
        }
    }

    fn failed(self: &Arc<Self>, node: &Node) {
        node.breaker().failed(Instant::now());
        self.refresh_soon();
    }

    /// The target's node if it is well, else any node that is, else whichever may be probed. Not the node that
    /// just failed, if there is another.
    fn pick(
        self: &Arc<Self>,
        routes: &Routes,
        target: Target,
        failed_at: Option<&Arc<Node>>,
    ) -> Option<Arc<Node>> {
        let failed = |node: &Arc<Node>| failed_at.is_some_and(|failed| Arc::ptr_eq(failed, node));
        if self.options.leader_hints
            && let Some(node) = routes.find(target)
            && !failed(node)
            && node.is_healthy()
        {
            return Some(node.clone());
        }
        let nodes = routes.nodes();
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = || (0..nodes.len()).map(|i| &nodes[(first + i) % nodes.len()]);
        if let Some(node) = in_turn().find(|node| !failed(node) && node.is_healthy()) {
            self.probe_due(nodes);
            return Some(node.clone());
        }
        if let Some(node) = in_turn().find(|node| node.is_healthy()) {
            return Some(node.clone());
        }
        let now = Instant::now();
        in_turn().find(|node| node.breaker().admit(now)).cloned()
    }

    /// Finds out by pings whether nodes that were left alone are back, so that no caller's request is risked
    /// on it while there are others.
    fn probe_due(self: &Arc<Self>, nodes: &[Arc<Node>]) {
        for node in nodes {
            let now = Instant::now();
            let due = {
                let mut breaker = node.breaker();
                !breaker.is_closed() && breaker.admit(now)
            };
            if due {
                let (this, node) = (self.clone(), node.clone());
                tokio::spawn(async move {
                    let deadline = now + BACKGROUND_TIMEOUT;
                    let answered = match node.channel(&this.options, deadline).await {
                        Ok(channel) => channel.call(Request::Ping, None, deadline).await.is_ok(),
                        Err(_) => false,
                    };
                    match answered {
                        true => node.breaker().succeeded(),
                        false => node.breaker().failed(Instant::now()),
                    }
                });
            }
        }
    }

    fn refresh_if_old(self: &Arc<Self>) {
        let old = lock(&self.refresh).last.is_none_or(|last| last.elapsed() >= REFRESH_AGE);
        if old && self.options.leader_hints {
            self.refresh_soon();
        }
    }

    /// Fetches the partition map in the background, unless that is going on or was done just now.
    fn refresh_soon(self: &Arc<Self>) {
        {
            let mut refresh = lock(&self.refresh);
            if refresh.running || refresh.last.is_some_and(|last| last.elapsed() < REFRESH_GAP) {
                return;
            }
            refresh.running = true;
            refresh.last = Some(Instant::now());
        }
        let this = self.clone();
        tokio::spawn(async move {
            // A failure needs no report: whoever needs the map asks again.
            let _ = this.refresh().await;
            lock(&this.refresh).running = false;
        });
    }

    /// Fetches the partition map from some node that is well.
    pub(crate) async fn refresh(self: &Arc<Self>) -> Result<(), Error> {
        let routes = self.routes();
        let Some(node) = self.pick(&routes, Target::Any, None) else {
            return Err(Error::unavailable("every node is failing"));
        };
        let task = Task {
            request: Request::Topology,
            target: Target::Any,
            deadline: Instant::now() + BACKGROUND_TIMEOUT,
            trace: None,
        };
        match Box::pin(self.attempt(&node, &task, &mut NodeId(0))).await {
            Ok(Response::Topology(topology)) => {
                self.install(topology);
                Ok(())
            }
            Ok(other) => Err(mismatch(&other)),
            Err(failure) => Err(failure.error),
        }
    }

    pub(crate) fn install(&self, topology: Topology) {
        let mut routes = lock(&self.routes);
        *routes = Arc::new(routes.updated(topology, &self.seeds, &self.options));
    }

    /// Connects to the addresses given, one after the other, until one lets the client in.
    pub(crate) async fn reach(self: &Arc<Self>) -> Result<(), Error> {
        let deadline = Instant::now() + self.options.timeout;
        let mut last = Error::unavailable("no address to connect to");
        for node in self.routes().nodes() {
            match node.channel(&self.options, deadline).await {
                Ok(_) => {
                    lock(&self.refresh).last = Some(Instant::now());
                    // A node of a cluster that is still forming has no map; it can be asked later.
                    let _ = self.refresh().await;
                    return Ok(());
                }
                Err(error) => last = error.into_error(),
            }
        }
        Err(last)
    }
}

/// A response of another kind than the request's.
pub(crate) fn mismatch(response: &Response) -> Error {
    let kind = match response {
        Response::Value(_) => "value",
        Response::Exists(_) => "exists",
        Response::Written { .. } => "written",
        Response::Page(_) => "page",
        Response::Topology(_) => "topology",
        Response::Cluster(_) => "cluster",
        Response::Verified(_) => "verified",
        Response::Checkpointed(_) => "checkpointed",
        Response::Pong => "pong",
        Response::Txn(_) => "transaction",
    };
    Error::internal(format!("the node answered with another kind of response: {kind}"))
}

/// Whether a request that may have been done can be sent again: it changes nothing, or the same when done twice. A
/// transaction that was begun twice ends by itself; taking a lock again, aborting again, is as if once.
fn is_read(request: &Request) -> bool {
    match request {
        Request::Put { .. } | Request::Delete { .. } => false,
        Request::Txn(request) => !matches!(
            request,
            TxnRequest::Commit { .. } | TxnRequest::Batch(_) | TxnRequest::Op { op: TxnOp::Write(_), .. }
        ),
        _ => true,
    }
}

/// Whether a node that is slow to answer is worth leaving for another: small reads, which are quick everywhere.
fn may_ask_again_early(request: &Request) -> bool {
    matches!(
        request,
        Request::Get { .. }
            | Request::Exists { .. }
            | Request::Topology
            | Request::Ping
            | Request::Txn(TxnRequest::Begin { .. } | TxnRequest::Outcome { .. } | TxnRequest::Names { .. })
    )
}

/// Names a batch after the node that it is sent to, which is then the one to ask about it. It is sent to another one
/// only if it was surely not done; there it has another name, too.
fn addressed(mut request: Request, node: NodeId) -> Request {
    if let Request::Txn(TxnRequest::Batch(TxnBatch { id: Some(id), .. })) = &mut request {
        id.node = node;
    }
    request
}

/// Entropy for jitter, used only where the builder was given no seed.
#[allow(clippy::disallowed_methods)]
fn seed() -> u64 {
    rand::random()
}
