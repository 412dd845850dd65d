//! The outermost layer: what every request gets, whatever it asks for. Its id, its deadline, its place in a
//! trace, its place in the metrics, and a body for its refusal.

use super::problem::Failure;
use super::{Http, RequestInfo, keys, txn};
use crate::gateway::metrics::{Kind, Outcome};
use crate::gateway::trace::{parse_traceparent, request_span};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use axum::response::Response;
use tokio::time::Instant;
use tower::Service;
use tracing::Instrument;
use trandb_cluster::ErrorCode;

/// Carries a request's id, both ways.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Longest request id that is taken over from a client: it is repeated in logs.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Answers one request.
pub(super) async fn answer(http: &Http, mut router: Router, mut request: Request<Body>) -> Response {
    let started = Instant::now();
    let kind = kind(request.method(), request.uri().path());
    let id = request_id(request.headers(), http);
    let trace = request
        .headers()
        .get(TRACEPARENT)
        .and_then(|header| header.to_str().ok())
        .and_then(parse_traceparent);
    let (span, trace) = request_span(span_name(kind), trace, http.backend.node());
    span.record("request_id", id.as_str());
    request.extensions_mut().insert(RequestInfo { trace });

    let routed = router.call(request).instrument(span).await;
    let mut response = match routed {
        Ok(response) => response,
        Err(impossible) => match impossible {},
    };

    let mut outcome = Outcome::Ok;
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        outcome = Outcome::Failed(failure.error().code);
        if failure.error().code == ErrorCode::Internal {
            tracing::error!(request_id = %id, error = %failure.error(), "request failed");
        }
        // The router may have added to the headers, as it does with the allowed methods.
        let headers = std::mem::take(response.headers_mut());
        response = failure.render(&id);
        for (name, value) in headers {
            if let Some(name) = name.filter(|name| !response.headers().contains_key(name) && is_kept(name)) {
                response.headers_mut().insert(name, value);
            }
        }
    }
    http.metrics.count(kind, outcome);
    http.metrics.took(kind, started.elapsed(), 1);
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Whether a header of the empty response is true of the rendered one as well.
fn is_kept(name: &HeaderName) -> bool {
    *name != axum::http::header::CONTENT_LENGTH
}

fn kind(method: &Method, path: &str) -> Kind {
    if let Some(rest) = path.strip_prefix(txn::PREFIX) {
        return match (rest.split_once('/').map_or("", |(_, part)| part), method) {
            ("", &Method::GET | &Method::HEAD) => Kind::TxnOutcome,
            ("commit", &Method::POST) => Kind::TxnCommit,
            ("abort", &Method::POST) => Kind::TxnAbort,
            (part, _) if part == "keys" || part.starts_with("keys/") => Kind::TxnOp,
            _ => Kind::Other,
        };
    }
    if path.starts_with(keys::PREFIX) {
        return match *method {
            Method::GET => Kind::Get,
            Method::HEAD => Kind::Exists,
            Method::PUT => Kind::Put,
            Method::DELETE => Kind::Delete,
            _ => Kind::Other,
        };
    }
    match path {
        "/keys" => Kind::Scan,
        "/txn" => Kind::TxnBegin,
        "/batch" => Kind::Batch,
        "/batch/id" => Kind::TxnNames,
        "/admin/cluster" => Kind::Cluster,
        "/admin/verify" => Kind::Verify,
        "/admin/checkpoint" => Kind::Checkpoint,
        _ => Kind::Other,
    }
}

fn span_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Get => "GET /keys/{key}",
        Kind::Exists => "HEAD /keys/{key}",
        Kind::Put => "PUT /keys/{key}",
        Kind::Delete => "DELETE /keys/{key}",
        Kind::Scan => "GET /keys",
        Kind::Cluster => "GET /admin/cluster",
        Kind::Verify => "GET /admin/verify",
        Kind::Checkpoint => "POST /admin/checkpoint",
        Kind::TxnBegin => "POST /txn",
        Kind::TxnOp => "/txn/{id}/keys",
        Kind::TxnCommit => "POST /txn/{id}/commit",
        Kind::TxnAbort => "POST /txn/{id}/abort",
        Kind::TxnOutcome => "GET /txn/{id}",
        Kind::Batch => "POST /batch",
        Kind::TxnNames => "POST /batch/id",
        Kind::Topology | Kind::Ping | Kind::Other => "http",
    }
}

/// The client's id if it is presentable, else the node's number and a counter.
fn request_id(headers: &HeaderMap, http: &Http) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(|id| {
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
    });
    match given {
        Some(id) => id.to_owned(),
        None => http.next_request_id(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_what_they_ask_for() {
        for (method, path, expected) in [
            (Method::GET, "/keys/k", Kind::Get),
            (Method::HEAD, "/keys/txn/1-1/commit", Kind::Exists),
            (Method::GET, "/keys", Kind::Scan),
            (Method::POST, "/txn", Kind::TxnBegin),
            (Method::GET, "/txn/1-1", Kind::TxnOutcome),
            (Method::POST, "/txn/1-1/commit", Kind::TxnCommit),
            (Method::POST, "/txn/1-1/abort", Kind::TxnAbort),
            (Method::GET, "/txn/1-1/keys", Kind::TxnOp),
            (Method::PUT, "/txn/1-1/keys/commit", Kind::TxnOp),
            (Method::POST, "/txn/1-1/keys/k/lock", Kind::TxnOp),
            (Method::POST, "/batch", Kind::Batch),
            (Method::GET, "/txn/1-1/commit", Kind::Other),
            (Method::POST, "/txn/1-1/nowhere", Kind::Other),
            (Method::GET, "/admin/verify", Kind::Verify),
            (Method::POST, "/admin/checkpoint", Kind::Checkpoint),
            (Method::GET, "/nowhere", Kind::Other),
        ] {
            assert_eq!(kind(&method, path), expected, "{method} {path}");
        }
    }
}
