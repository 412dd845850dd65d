//! Request bodies: bounded in bytes, in time, and in what all of them together take.

use super::Http;
use super::problem::Failure;
use crate::gateway::options::LARGE_BYTES;
use crate::gateway::rules;
use axum::body::Body;
use axum::http::StatusCode;
use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use trandb_cluster::Error;
use trandb_cluster::limits::VALUE_BYTES_MAX;

/// How long a body may take from head to end: a largest one at 140 kB/s.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A body and its share of the door's budget, held until the request is answered.
#[derive(Debug)]
pub(super) struct Value {
    pub(super) bytes: Bytes,
    pub(super) permit: OwnedSemaphorePermit,
}

/// Reads a value. One whose length says that it is too large is refused unread.
pub(super) async fn read(body: Body, http: &Http) -> Result<Value, Failure> {
    let announced = body.size_hint().exact();
    if let Some(bytes) = announced {
        rules::value_bytes(usize::try_from(bytes).unwrap_or(usize::MAX))?;
    }
    match tokio::time::timeout(BODY_TIMEOUT, collect(body, announced.map(|bytes| bytes as usize), http)).await
    {
        Ok(result) => result,
        Err(_) => {
            let error = Error::invalid(format!("the body took over {} s", BODY_TIMEOUT.as_secs()));
            Err(Failure::from(error).with_status(StatusCode::REQUEST_TIMEOUT))
        }
    }
}

async fn collect(mut body: Body, announced: Option<usize>, http: &Http) -> Result<Value, Failure> {
    let mut permit = claim(http, announced.unwrap_or(LARGE_BYTES))?;
    // Copied out of the read buffers as it comes: keeping slices of those would keep all of them.
    let mut bytes: Vec<u8> = Vec::with_capacity(announced.unwrap_or_default());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Error::invalid(format!("the body broke off: {error}")))?;
        let Ok(mut data) = frame.into_data() else { continue };
        let total = bytes.len() + data.remaining();
        if total > VALUE_BYTES_MAX {
            return Err(Error::too_large(format!(
                "the value has over {VALUE_BYTES_MAX} bytes, which is the limit"
            ))
            .into());
        }
        if total > permit.num_permits() {
            // Of unknown length and no longer small: from here on it may become a largest one.
            permit = claim(http, VALUE_BYTES_MAX)?;
        }
        bytes.reserve(data.remaining());
        while data.has_remaining() {
            let chunk = data.chunk();
            bytes.extend_from_slice(chunk);
            let length = chunk.len();
            data.advance(length);
        }
    }
    // A body of unknown length has grown its buffer by doubling; the value shall not keep the rest.
    Ok(Value { bytes: Bytes::from(bytes.into_boxed_slice()), permit })
}

/// A share of the budget, or the error that there is none left now. Bodies do not wait for it: a client
/// that is told can go elsewhere.
fn claim(http: &Http, bytes: usize) -> Result<OwnedSemaphorePermit, Error> {
    let budget: &Arc<Semaphore> = if bytes > LARGE_BYTES { &http.large } else { &http.small };
    let permits = u32::try_from(bytes).expect("checked against the largest value");
    Arc::clone(budget)
        .try_acquire_many_owned(permits)
        .map_err(|_| Error::overloaded(format!("no room for a body of {bytes} bytes among those in flight")))
}
