//! From frames to work: each request is checked, and those that can go together are put together.
//!
//! Requests of one run go into as few calls of the database as keep them independent: reads do not wait for
//! writes, nothing waits for a large value, and requests with different deadlines or traces stay apart.

use super::super::backend::Backend;
use super::super::metrics::Kind;
use super::super::options::LARGE_BYTES;
use super::super::rules;
use bytes::Bytes;
use serde::Deserialize;
use trandb_cluster::Error;
use trandb_cluster::txn::TxnRequest;
use trandb_cluster::wire::{KeyOp, Request, RequestFrame, ScanRequest, TraceContext, decode};

/// A request that waits for its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) id: u64,
    pub(super) kind: Kind,
}

/// What requests of one batch have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) deadline_ms: u32,
    pub(super) trace: Option<TraceContext>,
}

/// Operations that go to the database in one call.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) terms: Terms,
    class: Class,
    pub(super) waiting: Vec<Waiting>,
    pub(super) ops: Vec<KeyOp>,
}

impl Batch {
    /// The name of the batch's span.
    pub(super) fn name(&self) -> &'static str {
        match self.ops.as_slice() {
            [_] => self.waiting[0].kind.name(),
            _ if self.class == Class::Read => "reads",
            _ => "writes",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Read,
    Write,
    /// Alone in its batch.
    Large,
}

/// A request that goes to the database by itself.
#[derive(Debug)]
pub(super) enum Call {
    Scan(ScanRequest),
    Topology,
    Cluster,
    Verify,
    Checkpoint,
    Ping,
    Txn(TxnRequest),
}

impl Call {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Scan(_) => Kind::Scan,
            Self::Topology => Kind::Topology,
            Self::Cluster => Kind::Cluster,
            Self::Verify => Kind::Verify,
            Self::Checkpoint => Kind::Checkpoint,
            Self::Ping => Kind::Ping,
            Self::Txn(request) => Kind::of_txn(request),
        }
    }

    /// Whether it may have been done when no answer came.
    pub(super) fn is_write(&self) -> bool {
        matches!(self, Self::Txn(request) if rules::txn_is_write(request))
    }
}

/// What came out of a run of frames.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) batches: Vec<Batch>,
    pub(super) calls: Vec<(u64, Terms, Call)>,
    /// Requests that are answered without being run.
    pub(super) refused: Vec<(Waiting, Error)>,
}

impl Work {
    /// Takes one frame's payload.
    ///
    /// # Errors
    /// `invalid` when it is no request and names no id to answer to: the stream cannot be trusted further.
    pub(super) fn take(&mut self, payload: &[u8], backend: &dyn Backend) -> Result<(), Error> {
        let frame = match decode::<RequestFrame>(payload) {
            Ok(frame) => frame,
            Err(error) => {
                // A request of a newer protocol is undecodable as a whole but still names its id.
                let Ok(OnlyId { id }) = decode::<OnlyId>(payload) else { return Err(error) };
                self.refused.push((Waiting { id, kind: Kind::Other }, error));
                return Ok(());
            }
        };
        let RequestFrame { id, deadline_ms, trace, body } = frame;
        let terms = Terms { deadline_ms, trace };
        let kind = kind(&body);
        match prepare(body, backend) {
            Ok(Prepared::Op(op)) => self.add(Waiting { id, kind }, terms, op),
            Ok(Prepared::Call(call)) => self.calls.push((id, terms, call)),
            Err(error) => self.refused.push((Waiting { id, kind }, error)),
        }
        Ok(())
    }

    fn add(&mut self, waiting: Waiting, terms: Terms, op: KeyOp) {
        let class = match &op {
            op if op.weight() > LARGE_BYTES => Class::Large,
            KeyOp::Write(_) => Class::Write,
            KeyOp::Get { .. } | KeyOp::Exists { .. } => Class::Read,
        };
        // From the end: neighbours mostly agree, so the first look finds it.
        let fitting = self
            .batches
            .iter_mut()
            .rev()
            .find(|batch| batch.class == class && batch.terms == terms && class != Class::Large);
        match fitting {
            Some(batch) => {
                batch.waiting.push(waiting);
                batch.ops.push(op);
            }
            None => self.batches.push(Batch { terms, class, waiting: vec![waiting], ops: vec![op] }),
        }
    }
}

/// The part of a request that is needed to refuse it.
#[derive(Deserialize)]
struct OnlyId {
    id: u64,
}

enum Prepared {
    Op(KeyOp),
    Call(Call),
}

fn kind(request: &Request) -> Kind {
    match request {
        Request::Get { .. } => Kind::Get,
        Request::Exists { .. } => Kind::Exists,
        Request::Put { .. } => Kind::Put,
        Request::Delete { .. } => Kind::Delete,
        Request::Scan(_) => Kind::Scan,
        Request::Topology => Kind::Topology,
        Request::ClusterStatus => Kind::Cluster,
        Request::Verify => Kind::Verify,
        Request::Checkpoint => Kind::Checkpoint,
        Request::Ping => Kind::Ping,
        Request::Txn(request) => Kind::of_txn(request),
    }
}

fn prepare(request: Request, backend: &dyn Backend) -> Result<Prepared, Error> {
    let encode =
        |key: Bytes, keyspace: Option<String>| rules::key(backend.keyspace(keyspace.as_deref())?, key);
    Ok(match request {
        Request::Get { key, at, keyspace } => Prepared::Op(KeyOp::Get { key: encode(key, keyspace)?, at }),
        Request::Exists { key, keyspace } => Prepared::Op(KeyOp::Exists { key: encode(key, keyspace)? }),
        Request::Put { key, value, condition, keyspace } => {
            Prepared::Op(KeyOp::Write(rules::write(encode(key, keyspace)?, Some(value), condition)?))
        }
        Request::Delete { key, condition, keyspace } => {
            Prepared::Op(KeyOp::Write(rules::write(encode(key, keyspace)?, None, condition)?))
        }
        Request::Scan(scan) => Prepared::Call(Call::Scan(scan)),
        Request::Topology => Prepared::Call(Call::Topology),
        Request::ClusterStatus => Prepared::Call(Call::Cluster),
        Request::Verify => Prepared::Call(Call::Verify),
        Request::Checkpoint => Prepared::Call(Call::Checkpoint),
        Request::Ping => Prepared::Call(Call::Ping),
        Request::Txn(request) => {
            rules::txn(&request, backend)?;
            Prepared::Call(Call::Txn(request))
        }
    })
}
