//! Requests prepared once: per kind the encoded frame, in which a request's id and key are written over.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use trandb_client::{Condition, Error, Request, RequestFrame, ScanRequest};
use trandb_cluster::wire;

/// Ids have the highest bit set, so that each is encoded in the same nine bytes.
const ID_BASE: u64 = 1 << 63;

/// In place of an id while a template is made; no other bytes of a template look like it.
const ID_MARK: u64 = 0xF1F2_F3F4_F5F6_F7F8;

/// Digits of a key's number.
const KEY_DIGITS: usize = 10;

/// In place of a key's number while a template is made.
const KEY_MARK: &str = "##########";

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
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Get, Self::Put, Self::Scan];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::Scan => "scan",
        }
    }
}

struct Template {
    frame: Vec<u8>,
    id_at: usize,
    key_at: usize,
}

/// One template per kind.
pub(crate) struct Templates([Template; Kind::ALL.len()]);

impl Templates {
    pub(crate) fn new(value_bytes: u32, scan_limit: u32, keyspace: Option<String>) -> Self {
        // Text that does not compress to nothing, and in which no mark can occur.
        let value: Bytes =
            (0..value_bytes).map(|i| b'a' + (i.wrapping_mul(2_654_435_761) >> 24) as u8 % 26).collect();
        Self(Kind::ALL.map(|kind| {
            let key = Bytes::from(format!("{KEY_PREFIX}{KEY_MARK}"));
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
            };
            let frame =
                wire::encode(&RequestFrame { id: ID_MARK, deadline_ms: DEADLINE_MS, trace: None, body });
            let find = |mark: &[u8]| {
                frame.windows(mark.len()).position(|window| window == mark).expect("the mark was encoded")
            };
            Template { id_at: find(&ID_MARK.to_be_bytes()), key_at: find(KEY_MARK.as_bytes()), frame }
        }))
    }

    /// The frame of request number `slot` about key number `key`.
    pub(crate) fn request(&self, kind: Kind, slot: usize, key: u64) -> Bytes {
        let template = &self.0[kind as usize];
        let mut frame = template.frame.clone();
        frame[template.id_at..template.id_at + 8].copy_from_slice(&(ID_BASE | slot as u64).to_be_bytes());
        let digits = &mut frame[template.key_at..template.key_at + KEY_DIGITS];
        let mut rest = key;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        frame.into()
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

#[cfg(test)]
mod tests {
    use super::*;
    use trandb_client::{Response, ServerFrame, Timestamp, Versioned};

    #[test]
    fn a_template_becomes_the_request_that_it_stands_for() {
        let templates = Templates::new(100, 7, Some("other".to_owned()));
        for kind in Kind::ALL {
            let frame: RequestFrame =
                wire::decode(&templates.request(kind, 5, 9_876_543_210)).expect("decodes");
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
                other => panic!("{other:?}"),
            }
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
