//! `/txn`: transactions that stay open from request to request. Any node serves any of them, since a transaction's id
//! names the node of its coordinator.
//!
//! ```text
//! POST /txn ─▶ 201, Location: /txn/{id}
//!              GET PUT DELETE HEAD /txn/{id}/keys/{key}     as /keys/{key}, within the transaction   keys
//!              POST /txn/{id}/keys/{key}/lock
//!              GET /txn/{id}/keys?prefix=…
//!              POST /txn/{id}/commit ─▶ 200, or 409 with code conflict
//!              POST /txn/{id}/abort  ─▶ 204
//! GET /txn/{id} ─▶ what became of it
//! POST /batch/id ─▶ 201, a name for a batch                                                          batch
//! POST /batch ─▶ all of that in one request
//! ```

pub(super) mod batch;
pub(super) mod keys;

use super::body::{self, Purpose};
use super::problem::Failure;
use super::query::{Query, point_in_time};
use super::{Http, RequestInfo, json};
use crate::gateway::rules;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use trandb_cluster::txn::{Isolation, TxnId, TxnOp, TxnOutcome, TxnRequest, TxnResponse};
use trandb_cluster::{Error, Timestamp};

/// The path in front of a transaction's id.
pub(super) const PREFIX: &str = "/txn/";

/// How long a request may wait for a lock. HTTP's clients and what stands between them and us take a silent connection
/// for a dead one before long, so they are told to come again instead.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// The body of a begin.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct BeginBody {
    isolation: Isolation,
    read_only: bool,
    /// As the query parameter of the same name.
    at: Option<String>,
    idle_timeout_ms: u32,
}

pub(super) async fn begin(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    Query::parse(request.uri().query(), &[])?;
    let info = RequestInfo::of(&request);
    let body = body::read(request.into_body(), Purpose::Options, &http).await?;
    let BeginBody { isolation, read_only, at, idle_timeout_ms } = match body.bytes.is_empty() {
        true => BeginBody::default(),
        false => parse(&body.bytes)?,
    };
    let at = at.as_deref().map(point_in_time).transpose()?;
    let asked = TxnRequest::Begin { isolation, read_only, at, idle_timeout_ms, run: 0 };
    match ask(&http, info, asked).await? {
        TxnResponse::Begun { txn, read_at } => {
            let body = json!({ "id": txn.to_string(), "read_at": read_at.to_string() });
            let mut response = json(StatusCode::CREATED, &body);
            let location = HeaderValue::from_str(&format!("{PREFIX}{txn}"));
            let location = location.expect("an id is digits and a hyphen");
            response.headers_mut().insert(header::LOCATION, location);
            Ok(response)
        }
        other => Err(mismatch(&other)),
    }
}

pub(super) async fn outcome(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    let txn = alone(&request)?;
    let outcome = end(&http, RequestInfo::of(&request), TxnRequest::Outcome { txn }).await?;
    let mut body = json!({ "id": txn.to_string(), "outcome": name(&outcome) });
    match outcome {
        TxnOutcome::Committed(timestamp) => body["timestamp"] = timestamp.to_string().into(),
        TxnOutcome::Aborted(reason) => body["reason"] = reason.into(),
        TxnOutcome::Open | TxnOutcome::Unknown => {}
    }
    Ok(json(StatusCode::OK, &body))
}

pub(super) async fn commit(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    let txn = alone(&request)?;
    match end(&http, RequestInfo::of(&request), TxnRequest::Commit { txn }).await? {
        TxnOutcome::Committed(timestamp) => Ok(json(StatusCode::OK, &committed(timestamp))),
        TxnOutcome::Aborted(reason) => Err(Error::conflict(reason).into()),
        TxnOutcome::Open => Err(Error::unknown(format!("the commit of {txn} is under way")).into()),
        TxnOutcome::Unknown => Err(forgotten(txn)),
    }
}

pub(super) async fn abort(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    let txn = alone(&request)?;
    match end(&http, RequestInfo::of(&request), TxnRequest::Abort { txn }).await? {
        TxnOutcome::Aborted(_) => Ok(StatusCode::NO_CONTENT.into_response()),
        TxnOutcome::Committed(timestamp) => {
            let error = Error::invalid(format!("transaction {txn} was committed at {timestamp}"));
            Err(Failure::from(error).with_status(StatusCode::CONFLICT))
        }
        TxnOutcome::Open => Err(Error::unavailable(format!("the commit of {txn} is under way")).into()),
        TxnOutcome::Unknown => Err(forgotten(txn)),
    }
}

/// What a commit is answered with.
fn committed(timestamp: Timestamp) -> serde_json::Value {
    json!({ "outcome": "committed", "timestamp": timestamp.to_string() })
}

fn forgotten(txn: TxnId) -> Failure {
    Error::unknown(format!("transaction {txn} ended longer ago than outcomes are kept")).into()
}

fn name(outcome: &TxnOutcome) -> &'static str {
    match outcome {
        TxnOutcome::Open => "open",
        TxnOutcome::Committed(_) => "committed",
        TxnOutcome::Aborted(_) => "aborted",
        TxnOutcome::Unknown => "unknown",
    }
}

/// Asks what is answered by an outcome.
async fn end(http: &Http, info: RequestInfo, request: TxnRequest) -> Result<TxnOutcome, Failure> {
    match ask(http, info, request).await? {
        TxnResponse::Outcome(outcome) => Ok(outcome),
        other => Err(mismatch(&other)),
    }
}

/// Asks the database.
async fn ask(http: &Http, info: RequestInfo, request: TxnRequest) -> Result<TxnResponse, Failure> {
    rules::txn(&request, &*http.backend)?;
    let is_write = rules::txn_is_write(&request);
    let mut timeout = http.options.gateway.timeout(0);
    if let TxnRequest::Op { op: TxnOp::Lock(_) | TxnOp::GetForUpdate(_), .. } = request {
        timeout = timeout.min(LOCK_WAIT);
    }
    let answer = info.run_within(timeout, is_write, |context| http.backend.txn(request, context)).await?;
    Ok(answer?)
}

/// The transaction of a path that says nothing else, and takes no parameters.
fn alone(request: &Request) -> Result<TxnId, Failure> {
    Query::parse(request.uri().query(), &[])?;
    Ok(split(request)?.0)
}

/// The transaction that a path names, and what follows it.
fn split(request: &Request) -> Result<(TxnId, &str), Failure> {
    let path = request.uri().path().strip_prefix(PREFIX).expect("routed by this prefix");
    let (id, rest) = path.split_once('/').unwrap_or((path, ""));
    Ok((id.parse()?, rest))
}

/// Reads a JSON body.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::invalid(format!("the body is not valid: {error}")))
}

fn mismatch(response: &TxnResponse) -> Failure {
    let kind = match response {
        TxnResponse::Begun { .. } => "a begin",
        TxnResponse::Value(_) => "a value",
        TxnResponse::Done => "that it is done",
        TxnResponse::Page(_) => "a page",
        TxnResponse::Outcome(_) => "an outcome",
        TxnResponse::Batch { .. } => "a batch",
        TxnResponse::Names { .. } => "names",
    };
    Error::internal(format!("the transaction's request was answered by {kind}")).into()
}
