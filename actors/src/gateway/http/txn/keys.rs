//! `/txn/{id}/keys`: keys as a transaction sees and changes them.

use super::super::body::{self, Purpose};
use super::super::keys::{absent, decode_key, found, keyspace_name};
use super::super::problem::Failure;
use super::super::query::Query;
use super::super::scan::{PageBody, asked};
use super::super::{Http, RequestInfo, conditions, json};
use super::{ask, mismatch, split};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::sync::Arc;
use trandb_cluster::Error;
use trandb_cluster::txn::{TxnId, TxnKey, TxnOp, TxnRequest, TxnResponse, TxnWrite};
use trandb_cluster::wire::Versioned;

/// What stands between the id and a key.
const BEFORE_KEY: &str = "keys/";

/// What stands after a key that is to be locked.
const AFTER_LOCKED: &str = "/lock";

/// The query parameters of a scan within a transaction, which has its own point in time.
pub(crate) const SCAN_PARAMETERS: [&str; 7] =
    ["prefix", "start", "end", "limit", "cursor", "keys_only", "keyspace"];

pub(crate) async fn get(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    let Versioned { value, version } = read(&http, RequestInfo::of(&request), reading(&request)?).await?;
    found(request.headers(), version, Some(value))
}

pub(crate) async fn head(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    let Versioned { version, .. } = read(&http, RequestInfo::of(&request), reading(&request)?).await?;
    found(request.headers(), version, None)
}

pub(crate) async fn put(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    let (txn, key, _) = target(&request, &["keyspace"], "")?;
    let condition = conditions::of_write(request.headers())?;
    let info = RequestInfo::of(&request);
    let value = body::read(request.into_body(), Purpose::Value, &http).await?;
    let write = TxnWrite { key, value: Some(value.bytes), condition };
    let result = ask(&http, info, TxnRequest::Op { txn, op: TxnOp::Write(write) }).await;
    drop(value.permit);
    done(result?)?;
    // It gets its version when the transaction commits.
    Ok(json(StatusCode::OK, &json!({ "version": null })))
}

pub(crate) async fn delete(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    let (txn, key, _) = target(&request, &["keyspace"], "")?;
    let condition = conditions::of_write(request.headers())?;
    let op = TxnOp::Write(TxnWrite { key, value: None, condition });
    done(ask(&http, RequestInfo::of(&request), TxnRequest::Op { txn, op }).await?)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn lock(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    let (txn, key, _) = target(&request, &["keyspace"], AFTER_LOCKED)?;
    done(ask(&http, RequestInfo::of(&request), TxnRequest::Op { txn, op: TxnOp::Lock(key) }).await?)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn page(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    let scan = asked(&request, &SCAN_PARAMETERS)?;
    let (txn, _) = split(&request)?;
    let keys_only = scan.keys_only;
    match ask(&http, RequestInfo::of(&request), TxnRequest::Op { txn, op: TxnOp::Scan(scan) }).await? {
        TxnResponse::Page(page) => Ok(json(StatusCode::OK, &PageBody::new(&page, keys_only))),
        other => Err(mismatch(&other)),
    }
}

/// What a read asks for.
fn reading(request: &Request) -> Result<TxnRequest, Failure> {
    let (txn, key, query) = target(request, &["for_update", "keyspace"], "")?;
    let op = match query.parsed("for_update", "true or false")?.unwrap_or(false) {
        true => TxnOp::GetForUpdate(key),
        false => TxnOp::Get(key),
    };
    Ok(TxnRequest::Op { txn, op })
}

async fn read(http: &Http, info: RequestInfo, request: TxnRequest) -> Result<Versioned, Failure> {
    match ask(http, info, request).await? {
        TxnResponse::Value(found) => found.ok_or_else(absent),
        other => Err(mismatch(&other)),
    }
}

fn done(response: TxnResponse) -> Result<(), Failure> {
    match response {
        TxnResponse::Done => Ok(()),
        other => Err(mismatch(&other)),
    }
}

/// The transaction and key that a path names before `after`, and the query.
fn target(request: &Request, known: &[&str], after: &str) -> Result<(TxnId, TxnKey, Query), Failure> {
    let query = Query::parse(request.uri().query(), known)?;
    let (txn, rest) = split(request)?;
    let key = rest.strip_prefix(BEFORE_KEY).expect("routed by this");
    let key = key.strip_suffix(after).ok_or_else(|| {
        Error::invalid(format!("a key is locked by {} to its path followed by {after}", request.method()))
    })?;
    let keyspace = keyspace_name(request.headers(), &query)?;
    Ok((txn, TxnKey { key: decode_key(key)?, keyspace }, query))
}
