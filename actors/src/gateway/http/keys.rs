//! `/keys/{key}`: one key. Its value is the body, its version the entity tag.

use super::problem::Failure;
use super::query::{Query, percent_decode};
use super::{Http, RequestInfo, body, conditions, json};
use crate::gateway::rules;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use trandb_cluster::command::WriteOutcome;
use trandb_cluster::wire::{KeyOp, KeyResult, Versioned};
use trandb_cluster::{EncodedKey, Error, KeyspaceId, Timestamp};

/// The path in front of a key.
pub(super) const PREFIX: &str = "/keys/";

/// Names the keyspace when the query does not.
pub(super) const KEYSPACE_HEADER: HeaderName = HeaderName::from_static("x-trandb-keyspace");

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

pub(super) async fn get(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    let query = Query::parse(request.uri().query(), &["at", "keyspace"])?;
    let key = key(&http, &request, &query)?;
    let at = query.at()?;
    match run(&http, RequestInfo::of(&request), KeyOp::Get { key, at }).await? {
        KeyResult::Value(Some(Versioned { value, version })) => {
            found(request.headers(), version, Some(value))
        }
        KeyResult::Value(None) => Err(absent()),
        other => Err(mismatch(&other)),
    }
}

pub(super) async fn head(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    let query = Query::parse(request.uri().query(), &["at", "keyspace"])?;
    let key = key(&http, &request, &query)?;
    let op = match query.at()? {
        // Whether it existed then is only known with its value.
        Some(at) => KeyOp::Get { key, at: Some(at) },
        None => KeyOp::Exists { key },
    };
    match run(&http, RequestInfo::of(&request), op).await? {
        KeyResult::Exists(Some(version)) | KeyResult::Value(Some(Versioned { version, .. })) => {
            found(request.headers(), version, None)
        }
        KeyResult::Exists(None) | KeyResult::Value(None) => Err(absent()),
        other @ KeyResult::Write(_) => Err(mismatch(&other)),
    }
}

pub(super) async fn put(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    let query = Query::parse(request.uri().query(), &["ttl", "keyspace"])?;
    if query.bytes("ttl").is_some() {
        return Err(Error::invalid("ttl is not supported yet").into());
    }
    let key = key(&http, &request, &query)?;
    let condition = conditions::of_write(request.headers())?;
    let info = RequestInfo::of(&request);
    let value = body::read(request.into_body(), body::Purpose::Value, &http).await?;
    let write = rules::write(key, Some(value.bytes), condition)?;
    let result = run(&http, info, KeyOp::Write(write)).await;
    drop(value.permit);
    let version = written(result?)?;
    // As text: JSON's readers round numbers above 2^53.
    let mut response = json(StatusCode::OK, &json!({ "version": version.to_string() }));
    response.headers_mut().insert(header::ETAG, conditions::etag(version));
    Ok(response)
}

pub(super) async fn delete(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    let query = Query::parse(request.uri().query(), &["keyspace"])?;
    let key = key(&http, &request, &query)?;
    let condition = conditions::of_write(request.headers())?;
    let write = rules::write(key, None, condition)?;
    written(run(&http, RequestInfo::of(&request), KeyOp::Write(write)).await?)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The keyspace that a request names, by parameter or header.
pub(super) fn keyspace_name(headers: &HeaderMap, query: &Query) -> Result<Option<String>, Failure> {
    let by_query = query.text("keyspace")?;
    let by_header = headers
        .get(KEYSPACE_HEADER)
        .map(|value| {
            value.to_str().map_err(|_| Error::invalid(format!("header {KEYSPACE_HEADER} is not text")))
        })
        .transpose()?;
    match (by_query, by_header) {
        (Some(query), Some(header)) if query != header => {
            Err(Error::invalid(format!("the query names keyspace {query:?}, the header {header:?}")).into())
        }
        (query, header) => Ok(query.or(header).map(str::to_owned)),
    }
}

/// Runs one operation.
async fn run(http: &Http, info: RequestInfo, op: KeyOp) -> Result<KeyResult, Failure> {
    let is_write = op.is_write();
    let mut replies = info.run(http, is_write, |context| http.backend.execute(vec![op], context)).await?;
    let reply = replies.pop().ok_or_else(|| Error::internal("no answer to an operation"))?;
    Ok(reply.result?)
}

fn key(http: &Http, request: &Request, query: &Query) -> Result<EncodedKey, Failure> {
    let keyspace = keyspace_name(request.headers(), query)?;
    let keyspace: KeyspaceId = http.backend.keyspace(keyspace.as_deref())?;
    let encoded = request.uri().path().strip_prefix(PREFIX).expect("routed by this prefix");
    Ok(rules::key(keyspace, decode_key(encoded)?)?)
}

/// A key as it stands in a path.
pub(super) fn decode_key(encoded: &str) -> Result<Bytes, Error> {
    let key = percent_decode(encoded)
        .map_err(|error| Error::invalid(format!("the key has a {}", error.message)))?;
    Ok(Bytes::from(key))
}

/// A value, or only that it is there (for HEAD), or that the client knows it. What a transaction has written itself
/// has version 0, and no entity tag: it gets its version when the transaction commits.
pub(super) fn found(
    headers: &HeaderMap,
    version: Timestamp,
    value: Option<Bytes>,
) -> Result<Response, Failure> {
    let is_committed = version != Timestamp::ZERO;
    let mut response = if is_committed && conditions::is_known(headers, version)? {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let mut response = match value {
            Some(value) => value.into_response(),
            // Of unknown length: an empty body would be announced as "content-length: 0", which is false.
            None => Body::from_stream(stream::empty::<Result<Bytes, Infallible>>()).into_response(),
        };
        response.headers_mut().insert(header::CONTENT_TYPE, OCTETS);
        response
    };
    if is_committed {
        response.headers_mut().insert(header::ETAG, conditions::etag(version));
    }
    Ok(response)
}

pub(super) fn absent() -> Failure {
    Error::not_found("the key has no value").into()
}

fn written(result: KeyResult) -> Result<Timestamp, Failure> {
    match result {
        KeyResult::Write(WriteOutcome::Done { version, .. }) => Ok(version),
        KeyResult::Write(WriteOutcome::ConditionFailed { current }) => {
            Err(Failure::from(rules::condition_failed(current)).with_current(current))
        }
        KeyResult::Write(WriteOutcome::Blocked(blocker)) => Err(rules::blocked(&blocker).into()),
        other => Err(mismatch(&other)),
    }
}

fn mismatch(result: &KeyResult) -> Failure {
    let kind = match result {
        KeyResult::Value(_) => "a value",
        KeyResult::Exists(_) => "an existence",
        KeyResult::Write(_) => "a write's outcome",
    };
    Error::internal(format!("the operation was answered by {kind}")).into()
}
