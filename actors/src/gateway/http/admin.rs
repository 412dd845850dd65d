//! What operators and their tools ask: health, metrics, the cluster.

use super::problem::Failure;
use super::query::Query;
use super::{Http, RequestInfo, json};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;
use trandb_cluster::wire::{VerifiedPartition, VerifyReport};

/// The document at `/openapi.json`.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// The Prometheus text format.
const PROMETHEUS_TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// The process is there; whether it can serve is `/readyz`.
pub(super) async fn healthz(request: Request) -> Result<Response, Failure> {
    no_parameters(&request)?;
    Ok(json(StatusCode::OK, &json!({ "status": "ok" })))
}

pub(super) async fn readyz(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    no_parameters(&request)?;
    let readiness = http.backend.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "ready": readiness.ready,
        "reasons": readiness.reasons,
        "details": readiness.details,
    });
    let mut response = json(status, &body);
    if !readiness.ready {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Ok(response)
}

pub(super) async fn metrics(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    no_parameters(&request)?;
    let mut response = (http.options.metrics)().into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, PROMETHEUS_TEXT);
    Ok(response)
}

pub(super) async fn version(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    no_parameters(&request)?;
    Ok(json(StatusCode::OK, &json!({ "version": http.options.version, "commit": http.options.commit })))
}

pub(super) async fn openapi(request: Request) -> Result<Response, Failure> {
    no_parameters(&request)?;
    let mut response = OPENAPI.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

pub(super) async fn cluster(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    no_parameters(&request)?;
    Ok(json(StatusCode::OK, &http.backend.cluster_view()))
}

pub(super) async fn verify(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    no_parameters(&request)?;
    let info = RequestInfo::of(&request);
    let report = info.run(&http, false, |context| http.backend.verify(context)).await??;
    Ok(json(StatusCode::OK, &report_body(&report)))
}

pub(super) async fn checkpoint(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    no_parameters(&request)?;
    let info = RequestInfo::of(&request);
    let report = info.run(&http, false, |context| http.backend.checkpoint(context)).await??;
    let replicas = report.replicas.iter().map(|(partition, node, reached)| match reached {
        Ok(index) => json!({ "partition": partition, "node": node, "index": index }),
        Err(reason) => json!({ "partition": partition, "node": node, "error": reason }),
    });
    let body = json!({ "complete": report.complete, "replicas": replicas.collect::<Vec<_>>() });
    Ok(json(StatusCode::OK, &body))
}

/// `POST /admin/debug/panic?partition=N`: this node's actor of the partition panics. In debug builds only, for
/// tests of what supervisors do; not part of the documented interface.
#[cfg(debug_assertions)]
pub(super) async fn panic(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    let wanted = "a partition's number";
    let partition =
        Query::parse(request.uri().query(), &["partition"])?.parsed("partition", wanted)?.ok_or_else(
            || trandb_cluster::Error::invalid(format!("query parameter \"partition\" is missing: {wanted}")),
        )?;
    http.backend.panic_partition(trandb_cluster::PartitionId(partition))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /admin/debug/end?at=STEP`: the node ends when it comes to that step of a transaction, one of
/// [`trandb_runtime::pace::ENDS`]. In debug builds only, for tests of what becomes of the transaction; not part of the
/// documented interface.
#[cfg(debug_assertions)]
pub(super) async fn end(request: Request) -> Result<Response, Failure> {
    let step: Option<String> = Query::parse(request.uri().query(), &["at"])?.parsed("at", "a step")?;
    match step.is_some_and(|step| trandb_runtime::pace::end_at(&step)) {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(trandb_cluster::Error::invalid("query parameter \"at\" names no step").into()),
    }
}

/// `POST /admin/debug/hold?at=STEP&ms=N`: who comes to that step next stands still for so long. As [`end`].
#[cfg(debug_assertions)]
pub(super) async fn hold(request: Request) -> Result<Response, Failure> {
    let query = Query::parse(request.uri().query(), &["at", "ms"])?;
    let step: Option<String> = query.parsed("at", "a step")?;
    let ms: u64 = query.parsed("ms", "milliseconds")?.unwrap_or_default();
    match step.is_some_and(|step| trandb_runtime::pace::hold_at(&step, ms.min(10_000))) {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(trandb_cluster::Error::invalid("query parameter \"at\" names no step").into()),
    }
}

fn report_body(report: &VerifyReport) -> Value {
    let partition = |partition: &VerifiedPartition| {
        let replicas = partition.replicas.iter().map(|(node, digest)| match digest {
            Ok(digest) => json!({ "node": node, "digest": digest }),
            Err(reason) => json!({ "node": node, "error": reason }),
        });
        json!({
            "id": partition.id,
            "applied": partition.applied,
            "keys": partition.keys,
            "identical": partition.identical,
            "replicas": replicas.collect::<Vec<_>>(),
        })
    };
    json!({
        "identical": report.identical,
        "partitions": report.partitions.iter().map(partition).collect::<Vec<_>>(),
    })
}

fn no_parameters(request: &Request) -> Result<(), Failure> {
    Query::parse(request.uri().query(), &[]).map(drop)
}
