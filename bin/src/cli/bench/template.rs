//! Requests prepared once: per kind the encoded frame, in which a request's id and keys are written over. The requests of
//! a read-modify-write name their transaction and are made one by one.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use trandb_client::{
    Condition, Error, Isolation, Request, RequestFrame, Response, ScanRequest, ServerFrame, TxnId,
};
use trandb_cluster::txn::{TxnBatch, TxnKey, TxnOp, TxnRequest, TxnResponse, TxnWrite};
use trandb_cluster::wire;

/// Ids have the highest bit set, so that each is encoded in the same nine bytes.
const ID_BASE: u64 = 1 << 63;

/// In place of an id while a template is made; no other bytes of a template look like it.
const ID_MARK: u64 = 0xF1F2_F3F4_F5F6_F7F8;

/// Digits of a key's number.
const KEY_DIGITS: usize = 10;

/// In place of keys' numbers while a template is made.
const KEY_MARKS: [&str; 2] = ["##########", "%%%%%%%%%%"];

/// Before a key's number: keys of 16 bytes in all, which is what other databases are measured with.
const KEY_PREFIX: &str = "bench:";

/// How long a node may take over a request before it answers with an error.
const DEADLINE_MS: u32 = 10_000;

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Get,
    Put,
    Scan,
    /// Two puts on one partition, as one transaction in one request.
    Single,
    /// Two puts on two partitions, as one transaction in one request.
    Cross,
    /// A transaction of four requests: begin, get, put, commit.
    Rmw,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Get, Self::Put, Self::Scan, Self::Single, Self::Cross, Self::Rmw];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::Scan => "scan",
            Self::Single => "single",
            Self::Cross => "cross",
            Self::Rmw => "rmw",
        }
    }

    /// Whether it reads keys that should be there.
    pub(crate) fn reads(self) -> bool {
        matches!(self, Self::Get | Self::Scan | Self::Rmw)
    }
}

/// The steps of a read-modify-write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Begin,
    Get(TxnId),
    Put(TxnId),
    Commit(TxnId),
}

struct Template {
    frame: Vec<u8>,
    id_at: usize,
    /// Of each key; the kinds of one key have one.
    keys_at: Vec<usize>,
}

/// One template per kind.
pub(crate) struct Templates {
    templates: [Template; Kind::ALL.len()],
    value: Bytes,
    keyspace: Option<String>,
    isolation: Isolation,
}

impl Templates {
    pub(crate) fn new(
        value_bytes: u32,
        scan_limit: u32,
        keyspace: Option<String>,
        isolation: Isolation,
    ) -> Self {
        // Text that does not compress to nothing, and in which no mark can occur.
        let value: Bytes =
            (0..value_bytes).map(|i| b'a' + (i.wrapping_mul(2_654_435_761) >> 24) as u8 % 26).collect();
        let marked = |mark: &str| Bytes::from(format!("{KEY_PREFIX}{mark}"));
        let templates = Kind::ALL.map(|kind| {
            let key = marked(KEY_MARKS[0]);
            let keyspace = keyspace.clone();
            let body = match kind {
                Kind::Get => Request::Get { key, at: None, keyspace },
                Kind::Put => Request::Put { key, value: value.clone(), condition: Condition::Any, keyspace },
                Kind::Scan => {
                    let start = Some(key);
                    Request::Scan(ScanRequest {
                        start,
                        limit: scan_limit,
                        keyspace,
                        ..ScanRequest::default()
                    })
                }
                Kind::Single | Kind::Cross => {
                    let put = |mark| write(marked(mark), &keyspace, value.clone());
                    Request::Txn(TxnRequest::Batch(TxnBatch {
                        id: None,
                        run: 0,
                        isolation,
                        ops: KEY_MARKS.map(put).into(),
                    }))
                }
                Kind::Rmw => Request::Txn(begin(isolation)),
            };
            let frame = encode(ID_MARK, body);
            let find = |mark: &[u8]| frame.windows(mark.len()).position(|window| window == mark);
            Template {
                id_at: find(&ID_MARK.to_be_bytes()).expect("the mark was encoded"),
                keys_at: KEY_MARKS.iter().filter_map(|mark| find(mark.as_bytes())).collect(),
                frame,
            }
        });
        Self { templates, value, keyspace, isolation }
    }

    /// The first or only frame of request number `slot` about keys number `keys`.
    pub(crate) fn request(&self, kind: Kind, slot: usize, keys: [u64; 2]) -> Bytes {
        let template = &self.templates[kind as usize];
        let mut frame = template.frame.clone();
        frame[template.id_at..template.id_at + 8].copy_from_slice(&(ID_BASE | slot as u64).to_be_bytes());
        for (at, key) in template.keys_at.iter().zip(keys) {
            digits(key, &mut frame[*at..*at + KEY_DIGITS]);
        }
        frame.into()
    }

    /// The frame of a step of a read-modify-write.
    pub(crate) fn step(&self, step: Step, slot: usize, key: u64) -> Bytes {
        let op = |txn, op| TxnRequest::Op { txn, op };
        let named = Bytes::from(key_of(key));
        let request = match step {
            Step::Begin => begin(self.isolation),
            Step::Get(txn) => op(txn, TxnOp::Get(TxnKey { key: named, keyspace: self.keyspace.clone() })),
            Step::Put(txn) => op(txn, write(named, &self.keyspace, self.value.clone())),
            Step::Commit(txn) => TxnRequest::Commit { txn },
        };
        encode(ID_BASE | slot as u64, Request::Txn(request)).into()
    }
}

fn begin(isolation: Isolation) -> TxnRequest {
    TxnRequest::Begin { isolation, read_only: false, at: None, idle_timeout_ms: 0, run: 0 }
}

fn write(key: Bytes, keyspace: &Option<String>, value: Bytes) -> TxnOp {
    let key = TxnKey { key, keyspace: keyspace.clone() };
    TxnOp::Write(TxnWrite { key, value: Some(value), condition: Condition::Any })
}

fn encode(id: u64, body: Request) -> Vec<u8> {
    wire::encode(&RequestFrame { id, deadline_ms: DEADLINE_MS, trace: None, body })
}

/// Key number `key`.
pub(crate) fn key_of(key: u64) -> Vec<u8> {
    let mut named = format!("{KEY_PREFIX}{}", KEY_MARKS[0]).into_bytes();
    digits(key, &mut named[KEY_PREFIX.len()..]);
    named
}

fn digits(key: u64, digits: &mut [u8]) {
    let mut rest = key;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// As much of a response as the generator looks at.
#[derive(Deserialize)]
pub(crate) enum Verdict {
    Welcome(IgnoredAny),
    Refused(Error),
    Response { id: u64, result: Result<IgnoredAny, Error> },
}

/// Reads a response's slot and verdict.
pub(crate) fn verdict(frame: &[u8]) -> Result<(usize, Result<(), Error>), Error> {
    match wire::decode(frame)? {
        Verdict::Response { id, result } => Ok(((id & !ID_BASE) as usize, result.map(|_| ()))),
        Verdict::Refused(error) => Err(error),
        Verdict::Welcome(_) => Err(Error::internal("a second welcome")),
    }
}

/// The transaction that a begin was answered with.
pub(crate) fn begun(frame: &[u8]) -> Result<TxnId, Error> {
    match wire::decode(frame)? {
        ServerFrame::Response { result: Ok(Response::Txn(TxnResponse::Begun { txn, .. })), .. } => Ok(txn),
        _ => Err(Error::internal("a begin was answered by something else")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trandb_client::{NodeId, Timestamp, Versioned};

    #[test]
    fn a_template_becomes_the_request_that_it_stands_for() {
        let templates = Templates::new(100, 7, Some("other".to_owned()), Isolation::Snapshot);
        for kind in Kind::ALL {
            let frame: RequestFrame =
                wire::decode(&templates.request(kind, 5, [9_876_543_210, 42])).expect("decodes");
            assert_eq!((frame.id, frame.deadline_ms), (ID_BASE | 5, DEADLINE_MS));
            let (wanted, name) = ("bench:9876543210", Some("other"));
            match frame.body {
                Request::Get { key, at: None, keyspace } => {
                    assert_eq!((&key[..], keyspace.as_deref()), (wanted.as_bytes(), name));
                }
                Request::Put { key, value, condition: Condition::Any, keyspace } => {
                    assert_eq!((&key[..], keyspace.as_deref()), (wanted.as_bytes(), name));
                    assert_eq!(value.len(), 100);
                }
                Request::Scan(scan) => {
                    assert_eq!(scan.start.as_deref(), Some(wanted.as_bytes()));
                    assert_eq!((scan.limit, scan.keyspace.as_deref()), (7, name));
                }
                Request::Txn(TxnRequest::Batch(batch)) => {
                    assert_eq!(batch.isolation, Isolation::Snapshot);
                    let keys: Vec<_> = batch.ops.iter().map(|op| written(op, name)).collect();
                    assert_eq!(keys, [wanted.as_bytes(), b"bench:0000000042"]);
                }
                Request::Txn(TxnRequest::Begin { isolation: Isolation::Snapshot, .. }) => {
                    assert_eq!(kind, Kind::Rmw);
                }
                other => panic!("{other:?}"),
            }
        }
        let txn = TxnId { begin: Timestamp(7), node: NodeId(2) };
        let step = |step| {
            let frame: RequestFrame = wire::decode(&templates.step(step, 6, 42)).expect("decodes");
            assert_eq!(frame.id, ID_BASE | 6);
            frame.body
        };
        assert!(matches!(step(Step::Begin), Request::Txn(TxnRequest::Begin { .. })));
        assert_eq!(step(Step::Commit(txn)), Request::Txn(TxnRequest::Commit { txn }));
        let Request::Txn(TxnRequest::Op { op, .. }) = step(Step::Put(txn)) else { panic!("no put") };
        assert_eq!(written(&op, Some("other")), "bench:0000000042");
        let Request::Txn(TxnRequest::Op { op: TxnOp::Get(key), .. }) = step(Step::Get(txn)) else {
            panic!("no get")
        };
        assert_eq!((key.key, key.keyspace.as_deref()), (key_of(42).into(), Some("other")));
    }

    fn written<'a>(op: &'a TxnOp, keyspace: Option<&str>) -> &'a Bytes {
        match op {
            TxnOp::Write(TxnWrite { key, value: Some(value), condition: Condition::Any }) => {
                assert_eq!((value.len(), key.keyspace.as_deref()), (100, keyspace));
                &key.key
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn verdicts_are_read_from_real_responses() {
        let encode =
            |result| wire::encode(&ServerFrame::Response { id: ID_BASE | 3, forwarded: true, result });
        let value = Versioned { value: "v".into(), version: Timestamp(1) };
        for response in [Response::Value(Some(value)), Response::Pong, Response::Exists(None)] {
            assert_eq!(verdict(&encode(Ok(response))), Ok((3, Ok(()))));
        }
        let error = Error::unavailable("no leader");
        assert_eq!(verdict(&encode(Err(error.clone()))), Ok((3, Err(error.clone()))));
        assert_eq!(verdict(&wire::encode(&ServerFrame::Refused(error.clone()))), Err(error));
    }
}
