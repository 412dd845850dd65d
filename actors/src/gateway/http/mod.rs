//! HTTP/1.1: keys as resources, and what operators ask.
//!
//! hyper runs each connection ([`server`]) below an axum router ([`routes`]); the layer between the two
//! ([`answer`]) gives every request its id, deadline and place in the metrics. Handlers return a
//! [`problem::Failure`], which that layer writes out. The contract is `openapi.json`, which a test holds
//! equal to the routes.

mod admin;
mod answer;
mod body;
mod conditions;
mod keys;
mod paced;
mod problem;
mod query;
mod routes;
mod scan;
mod server;
#[cfg(test)]
mod tests;
mod txn;

use super::backend::Backend;
use super::connection::{Closed, Connection};
use super::door::{self, DoorArguments, Protocol};
use super::listen::{BoxedStream, Listener};
use super::metrics::RequestMetrics;
use super::options::GatewayOptions;
use super::rules;
use super::waiting::Waiting;
use crate::database::{Database, RequestContext};
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trandb_cluster::Error;
use trandb_cluster::wire::TraceContext;

/// How much longer than a request's deadline its answer is waited for; the database answers by the deadline
/// itself, and knows better what became of the request.
const GRACE: Duration = Duration::from_secs(1);

/// What the HTTP door is made of.
#[derive(Clone)]
pub struct HttpOptions {
    /// Its limits.
    pub gateway: GatewayOptions,
    /// Renders `/metrics` in the Prometheus text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// The program's version, for `/version`.
    pub version: String,
    /// The commit that it was built from, for `/version`.
    pub commit: String,
}

impl fmt::Debug for HttpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpOptions")
            .field("gateway", &self.gateway)
            .field("version", &self.version)
            .field("commit", &self.commit)
            .finish_non_exhaustive()
    }
}

/// What all requests of the door share.
struct Http {
    backend: Arc<dyn Backend>,
    options: HttpOptions,
    metrics: RequestMetrics,
    /// Numbers requests and refusals whose clients did not.
    requests: AtomicU64,
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Http {
    fn new(backend: Arc<dyn Backend>, options: HttpOptions) -> Self {
        Self {
            backend,
            metrics: RequestMetrics::new(),
            requests: AtomicU64::new(1),
            small: Arc::new(Semaphore::new(options.gateway.small_permits())),
            large: Arc::new(Semaphore::new(options.gateway.large_permits().max(body::BATCH_BYTES_MAX))),
            options,
        }
    }

    /// A name for a request without one: unique while the node runs.
    fn next_request_id(&self) -> String {
        format!("{}-{:x}", self.backend.node(), self.requests.fetch_add(1, Ordering::Relaxed))
    }
}

/// What the outermost layer tells handlers about their request.
#[derive(Debug, Clone, Copy)]
struct RequestInfo {
    trace: Option<TraceContext>,
}

impl RequestInfo {
    fn of(request: &Request) -> Self {
        *request.extensions().get::<Self>().expect("set by the outermost layer")
    }

    /// What the database says, or that it did not in time. The time begins here, when the body is there:
    /// a slow sender has a timeout of its own.
    async fn run<T, F: Future<Output = T>>(
        &self,
        http: &Http,
        is_write: bool,
        ask: impl FnOnce(RequestContext) -> F,
    ) -> Result<T, Error> {
        self.run_within(http.options.gateway.timeout(0), is_write, ask).await
    }

    /// The same with a time of its own.
    async fn run_within<T, F: Future<Output = T>>(
        &self,
        timeout: Duration,
        is_write: bool,
        ask: impl FnOnce(RequestContext) -> F,
    ) -> Result<T, Error> {
        let deadline = Instant::now() + timeout;
        let answer = ask(RequestContext { deadline, trace: self.trace });
        tokio::time::timeout_at(deadline + GRACE, answer).await.map_err(|_| rules::overdue(is_write))
    }
}

/// A JSON response.
fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("plain data always encodes");
    let mut response = (status, body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// HTTP as a door speaks it.
struct HttpProtocol {
    http: Arc<Http>,
    router: Router,
}

impl Protocol for HttpProtocol {
    fn name(&self) -> &'static str {
        "http"
    }

    fn serve(&self, connection: Connection) -> BoxFuture<'static, Closed> {
        Box::pin(server::serve(connection, Arc::clone(&self.http), self.router.clone()))
    }

    fn refuse(&self, stream: BoxedStream, error: Error) -> BoxFuture<'static, ()> {
        Box::pin(server::refuse(stream, error, self.http.next_request_id()))
    }
}

/// Serves HTTP until `shutdown`, then drains: requests in flight are answered, idle connections closed, and
/// what is left after [`GatewayOptions::drain_ms`] is cut.
pub async fn serve_http(
    listener: Box<dyn Listener>,
    database: Database,
    options: HttpOptions,
    shutdown: CancellationToken,
) {
    serve(listener, Arc::new(database), options, shutdown).await;
}

/// The same while there is no database: `/readyz` and all that is asked of keys say `why`.
pub(crate) async fn serve_waiting(
    listener: Box<dyn Listener>,
    why: String,
    options: HttpOptions,
    shutdown: CancellationToken,
) {
    serve(listener, Arc::new(Waiting { why }), options, shutdown).await;
}

async fn serve(
    listener: Box<dyn Listener>,
    backend: Arc<dyn Backend>,
    options: HttpOptions,
    shutdown: CancellationToken,
) {
    let (connections_max, drain_ms) = (options.gateway.connections_max, options.gateway.drain_ms);
    let http = Arc::new(Http::new(backend, options));
    let router = routes::router(Arc::clone(&http));
    let protocol = Arc::new(HttpProtocol { http, router });
    door::run(DoorArguments { listener, protocol, connections_max, drain_ms, shutdown }).await;
}
