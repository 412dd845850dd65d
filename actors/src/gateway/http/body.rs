//! Request bodies: bounded in bytes, in time, and in what all of them together take.

use super::Http;
use super::problem::Failure;
use crate::gateway::options::LARGE_BYTES;
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

/// Largest body of a batch: a largest value in base64 has 5.4 MiB. At the limit: `too_large`.
pub(super) const BATCH_BYTES_MAX: usize = 6 << 20;

/// Largest body of a request that carries no data.
const OPTIONS_BYTES_MAX: usize = 4 << 10;

/// What a body is, which says how large it may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// A key's value.
    Value,
    /// The operations of a batch.
    Batch,
    /// How something is to be done.
    Options,
}

impl Purpose {
    const fn bytes_max(self) -> usize {
        match self {
            Self::Value => VALUE_BYTES_MAX,
            Self::Batch => BATCH_BYTES_MAX,
            Self::Options => OPTIONS_BYTES_MAX,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Batch => "batch",
            Self::Options => "body",
        }
    }

    fn check(self, bytes: usize) -> Result<(), Error> {
        let (name, bytes_max) = (self.name(), self.bytes_max());
        if bytes > bytes_max {
            return Err(Error::too_large(format!("the {name} has {bytes} bytes, the limit is {bytes_max}")));
        }
        Ok(())
    }
}

/// A body and its share of the door's budget, held until the request is answered.
#[derive(Debug)]
pub(super) struct Value {
    pub(super) bytes: Bytes,
    pub(super) permit: OwnedSemaphorePermit,
}

/// Reads a body. One whose length says that it is too large is refused unread.
pub(super) async fn read(body: Body, purpose: Purpose, http: &Http) -> Result<Value, Failure> {
    let announced = body.size_hint().exact().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    announced.map_or(Ok(()), |bytes| purpose.check(bytes))?;
    match tokio::time::timeout(BODY_TIMEOUT, collect(body, announced, purpose, http)).await {
        Ok(result) => result,
        Err(_) => {
            let error = Error::invalid(format!("the body took over {} s", BODY_TIMEOUT.as_secs()));
            Err(Failure::from(error).with_status(StatusCode::REQUEST_TIMEOUT))
        }
    }
}

async fn collect(
    mut body: Body,
    announced: Option<usize>,
    purpose: Purpose,
    http: &Http,
) -> Result<Value, Failure> {
    let mut permit = claim(http, announced.unwrap_or(LARGE_BYTES))?;
    // Copied out of the read buffers as it comes: keeping slices of those would keep all of them.
    let mut bytes: Vec<u8> = Vec::with_capacity(announced.unwrap_or_default());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Error::invalid(format!("the body broke off: {error}")))?;
        let Ok(mut data) = frame.into_data() else { continue };
        let total = bytes.len() + data.remaining();
        let (name, bytes_max) = (purpose.name(), purpose.bytes_max());
        if total > bytes_max {
            return Err(Error::too_large(format!(
                "the {name} has over {bytes_max} bytes, which is the limit"
            ))
            .into());
        }
        if total > permit.num_permits() {
            // Of unknown length and no longer small: from here on it may become a largest one.
            permit = claim(http, bytes_max)?;
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
    let permits = u32::try_from(bytes).expect("checked against the largest body");
    Arc::clone(budget)
        .try_acquire_many_owned(permits)
        .map_err(|_| Error::overloaded(format!("no room for a body of {bytes} bytes among those in flight")))
}
