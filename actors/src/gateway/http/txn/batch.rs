//! `/batch`: several operations in one request, done together or not at all.

use super::super::body::{self, Purpose};
use super::super::problem::Failure;
use super::super::query::Query;
use super::super::scan::{PageBody, ValueBody, cursor, version_body};
use super::super::{Http, RequestInfo, json};
use super::{ask, mismatch, parse};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use trandb_cluster::command::Condition;
use trandb_cluster::txn::{
    Isolation, TxnBatch, TxnId, TxnKey, TxnOp, TxnOutcome, TxnRequest, TxnResponse, TxnWrite, operations,
};
use trandb_cluster::wire::ScanRequest;
use trandb_cluster::{Error, Timestamp};

/// The body of a batch.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchBody {
    /// A name that [`name`] gave out.
    id: Option<String>,
    #[serde(default)]
    isolation: Isolation,
    #[serde(deserialize_with = "operations")]
    ops: Vec<OpBody>,
}

/// One operation.
#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum OpBody {
    Get {
        key: String,
        keyspace: Option<String>,
    },
    Put {
        key: String,
        keyspace: Option<String>,
        /// A value that is text; any other is in `value_base64`.
        value: Option<String>,
        value_base64: Option<String>,
        if_version: Option<String>,
        if_absent: Option<bool>,
        if_present: Option<bool>,
    },
    Delete {
        key: String,
        keyspace: Option<String>,
        if_version: Option<String>,
        if_present: Option<bool>,
    },
    Scan {
        #[serde(default)]
        prefix: String,
        start: Option<String>,
        end: Option<String>,
        #[serde(default)]
        limit: u32,
        cursor: Option<String>,
        #[serde(default)]
        keys_only: bool,
        keyspace: Option<String>,
    },
}

pub(crate) async fn run(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    Query::parse(request.uri().query(), &[])?;
    let info = RequestInfo::of(&request);
    let body = body::read(request.into_body(), Purpose::Batch, &http).await?;
    let BatchBody { id, isolation, ops } = parse(&body.bytes)?;
    let id: Option<TxnId> = id.map(|id| id.parse()).transpose()?;
    let ops = ops.into_iter().enumerate().map(|(index, op)| {
        op.into_op()
            .map_err(|error| Error { message: format!("operation {index}: {}", error.message), ..error })
    });
    let ops: Vec<TxnOp> = ops.collect::<Result<_, Error>>()?;
    let shapes: Vec<Shape> = ops.iter().map(Shape::of).collect();
    match ask(&http, info, TxnRequest::Batch(TxnBatch { id, run: 0, isolation, ops })).await? {
        TxnResponse::Batch { txn, committed, results } => {
            if results.len() != shapes.len() {
                let error = format!("{} answers to {} operations", results.len(), shapes.len());
                return Err(Error::internal(error).into());
            }
            let results = shapes.iter().zip(&results).map(|(shape, result)| shape.show(result, committed));
            Ok(json(
                StatusCode::OK,
                &CommittedBody {
                    id: txn.to_string(),
                    outcome: "committed",
                    timestamp: committed.to_string(),
                    results: Some(results.collect::<Result<_, _>>()?),
                },
            ))
        }
        // It was done before, and answered then.
        TxnResponse::Outcome(TxnOutcome::Committed(at)) => Ok(json(
            StatusCode::OK,
            &CommittedBody {
                id: id.map(|id| id.to_string()).unwrap_or_default(),
                outcome: "committed",
                timestamp: at.to_string(),
                results: None,
            },
        )),
        other => Err(mismatch(&other)),
    }
}

/// Gives out a name by which a batch can be sent again, and asked for.
pub(crate) async fn name(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    Query::parse(request.uri().query(), &[])?;
    match ask(&http, RequestInfo::of(&request), TxnRequest::Names { count: 1 }).await? {
        TxnResponse::Names { first, .. } => {
            Ok(json(StatusCode::CREATED, &json!({ "id": first.to_string() })))
        }
        other => Err(mismatch(&other)),
    }
}

impl OpBody {
    fn into_op(self) -> Result<TxnOp, Error> {
        let named = |key: String, keyspace| TxnKey { key: key.into_bytes().into(), keyspace };
        Ok(match self {
            Self::Get { key, keyspace } => TxnOp::Get(named(key, keyspace)),
            Self::Put { key, keyspace, value, value_base64, if_version, if_absent, if_present } => {
                TxnOp::Write(TxnWrite {
                    key: named(key, keyspace),
                    value: Some(value_of(value, value_base64)?),
                    condition: condition(if_version, if_absent, if_present)?,
                })
            }
            Self::Delete { key, keyspace, if_version, if_present } => TxnOp::Write(TxnWrite {
                key: named(key, keyspace),
                value: None,
                condition: condition(if_version, None, if_present)?,
            }),
            Self::Scan { prefix, start, end, limit, cursor: after, keys_only, keyspace } => {
                let text = |text: String| Bytes::from(text.into_bytes());
                let after = after.map(|after| {
                    cursor(&after).ok_or_else(|| Error::invalid("\"cursor\" is none that was given out"))
                });
                TxnOp::Scan(ScanRequest {
                    prefix: text(prefix),
                    start: start.map(text),
                    end: end.map(text),
                    limit,
                    cursor: after.transpose()?,
                    at: None,
                    keys_only,
                    keyspace,
                })
            }
        })
    }
}

fn value_of(text: Option<String>, base64: Option<String>) -> Result<Bytes, Error> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into_bytes().into()),
        (None, Some(base64)) => STANDARD
            .decode(base64)
            .map(Bytes::from)
            .map_err(|error| Error::invalid(format!("\"value_base64\" is not base64: {error}"))),
        (Some(_), Some(_)) => Err(Error::invalid("\"value\" and \"value_base64\" exclude each other")),
        (None, None) => Err(Error::invalid("neither \"value\" nor \"value_base64\" is there")),
    }
}

fn condition(
    version: Option<String>,
    absent: Option<bool>,
    present: Option<bool>,
) -> Result<Condition, Error> {
    match (version, absent.unwrap_or(false), present.unwrap_or(false)) {
        (None, false, false) => Ok(Condition::Any),
        (None, true, false) => Ok(Condition::Absent),
        (None, false, true) => Ok(Condition::Present),
        (Some(version), false, false) => version
            .parse()
            .map(Condition::Version)
            .map_err(|_| Error::invalid(format!("\"if_version\" is {version:?}, which is no version"))),
        _ => Err(Error::invalid("\"if_version\", \"if_absent\" and \"if_present\" exclude each other")),
    }
}

/// What has to be known of an operation to show its result.
enum Shape {
    Read,
    Write { deletes: bool },
    Scan { keys_only: bool },
}

impl Shape {
    fn of(op: &TxnOp) -> Self {
        match op {
            TxnOp::Get(_) | TxnOp::GetForUpdate(_) | TxnOp::Lock(_) => Self::Read,
            TxnOp::Write(write) => Self::Write { deletes: write.value.is_none() },
            TxnOp::Scan(scan) => Self::Scan { keys_only: scan.keys_only },
        }
    }

    fn show<'a>(&self, result: &'a TxnResponse, committed: Timestamp) -> Result<ResultBody<'a>, Failure> {
        Ok(match (self, result) {
            (Self::Read, TxnResponse::Value(Some(found))) => ResultBody::Value {
                value: ValueBody::new(&found.value),
                version: version_body(found.version),
            },
            (Self::Read, TxnResponse::Value(None)) => ResultBody::Nothing { value: () },
            (Self::Write { deletes: false }, TxnResponse::Done) => {
                ResultBody::Written { version: Some(committed.to_string()) }
            }
            (Self::Write { deletes: true }, TxnResponse::Done) => ResultBody::Written { version: None },
            (Self::Scan { keys_only }, TxnResponse::Page(page)) => {
                ResultBody::Page(PageBody::new(page, *keys_only))
            }
            (_, other) => return Err(mismatch(other)),
        })
    }
}

#[derive(Serialize)]
struct CommittedBody<'a> {
    id: String,
    outcome: &'static str,
    timestamp: String,
    /// None of one that was done before.
    results: Option<Vec<ResultBody<'a>>>,
}

/// One operation's result.
#[derive(Serialize)]
#[serde(untagged)]
enum ResultBody<'a> {
    Value {
        #[serde(flatten)]
        value: ValueBody<'a>,
        version: Option<String>,
    },
    /// The key has no value.
    Nothing {
        value: (),
    },
    /// None: it was deleted.
    Written {
        version: Option<String>,
    },
    Page(PageBody<'a>),
}
