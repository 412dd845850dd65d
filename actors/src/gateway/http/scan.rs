//! `/keys`: pages of keys in order.

use super::keys::keyspace_name;
use super::problem::Failure;
use super::query::Query;
use super::{Http, RequestInfo, json};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde::Serialize;
use std::sync::Arc;
use trandb_cluster::limits::{SCAN_PAGE_ENTRIES_DEFAULT, SCAN_PAGE_ENTRIES_MAX};
use trandb_cluster::wire::{Page, ScanRequest};
use trandb_cluster::{Error, Timestamp};

/// The query parameters.
pub(super) const PARAMETERS: [&str; 8] =
    ["prefix", "start", "end", "limit", "cursor", "at", "keys_only", "keyspace"];

pub(super) async fn page(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    let scan = asked(&request, &PARAMETERS)?;
    let keys_only = scan.keys_only;
    let info = RequestInfo::of(&request);
    let page = info.run(&http, false, |context| http.backend.scan(scan, context)).await??;
    Ok(json(StatusCode::OK, &PageBody::new(&page, keys_only)))
}

/// What a request's query, in which only `known` may occur, wants.
pub(super) fn asked(request: &Request, known: &[&str]) -> Result<ScanRequest, Failure> {
    let query = Query::parse(request.uri().query(), known)?;
    Ok(ScanRequest {
        prefix: query.bytes("prefix").unwrap_or_default(),
        start: query.bytes("start"),
        end: query.bytes("end"),
        limit: limit(&query)?,
        cursor: query.text("cursor")?.map(decode_cursor).transpose()?,
        at: query.at()?,
        keys_only: query.parsed("keys_only", "true or false")?.unwrap_or(false),
        keyspace: keyspace_name(request.headers(), &query)?,
    })
}

fn limit(query: &Query) -> Result<u32, Failure> {
    let wanted = format!("a number from 1 to {SCAN_PAGE_ENTRIES_MAX}");
    let limit = query.parsed::<u32>("limit", &wanted)?.unwrap_or(SCAN_PAGE_ENTRIES_DEFAULT as u32);
    if !(1..=SCAN_PAGE_ENTRIES_MAX as u32).contains(&limit) {
        return Err(Error::invalid(format!("query parameter \"limit\" is {limit}, not {wanted}")).into());
    }
    Ok(limit)
}

fn encode_cursor(cursor: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(cursor)
}

fn decode_cursor(text: &str) -> Result<Bytes, Failure> {
    cursor(text).ok_or_else(|| Error::invalid("query parameter \"cursor\" is none that was given out").into())
}

/// A cursor as pages write it.
pub(super) fn cursor(text: &str) -> Option<Bytes> {
    URL_SAFE_NO_PAD.decode(text).ok().map(Bytes::from)
}

/// A page as JSON.
#[derive(Serialize)]
pub(super) struct PageBody<'a> {
    entries: Vec<EntryBody<'a>>,
    cursor: Option<String>,
    /// As text: JSON's readers round numbers above 2^53.
    at: String,
}

#[derive(Serialize)]
struct EntryBody<'a> {
    key: std::borrow::Cow<'a, str>,
    #[serde(flatten)]
    value: Option<ValueBody<'a>>,
    version: Option<String>,
}

/// A value in JSON: as text if it is UTF-8, else in base64.
#[derive(Serialize)]
pub(super) enum ValueBody<'a> {
    #[serde(rename = "value")]
    Text(&'a str),
    #[serde(rename = "value_base64")]
    Base64(String),
}

impl<'a> ValueBody<'a> {
    pub(super) fn new(value: &'a [u8]) -> Self {
        match std::str::from_utf8(value) {
            Ok(text) => Self::Text(text),
            Err(_) => Self::Base64(STANDARD.encode(value)),
        }
    }
}

/// A version in JSON; none of what a transaction has written and not yet committed. As text: JSON's readers round
/// numbers above 2^53.
pub(super) fn version_body(version: Timestamp) -> Option<String> {
    (version != Timestamp::ZERO).then(|| version.to_string())
}

impl<'a> PageBody<'a> {
    pub(super) fn new(page: &'a Page, keys_only: bool) -> Self {
        let entries = page.entries.iter().map(|entry| EntryBody {
            key: String::from_utf8_lossy(&entry.key),
            value: (!keys_only).then(|| ValueBody::new(&entry.value)),
            version: version_body(entry.version),
        });
        Self {
            entries: entries.collect(),
            cursor: page.cursor.as_deref().map(encode_cursor),
            at: page.at.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trandb_cluster::wire::Entry;

    #[test]
    fn cursors_survive_a_url() {
        let cursor: Vec<u8> = (0..=255).collect();
        let text = encode_cursor(&cursor);
        assert!(
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'),
            "{text}"
        );
        assert_eq!(decode_cursor(&text).expect("ours"), cursor);
        assert!(decode_cursor("not/ours").is_err());
    }

    #[test]
    fn text_is_shown_as_text_and_bytes_as_base64() {
        let entry = |key: &'static str, value: &'static [u8]| Entry {
            key: Bytes::from_static(key.as_bytes()),
            value: Bytes::from_static(value),
            version: Timestamp(1 << 60),
        };
        let page = Page {
            entries: vec![entry("a", "grün".as_bytes()), entry("b", b"\xff")],
            cursor: Some(Bytes::from_static(b"more")),
            at: Timestamp(5),
        };
        let body = serde_json::to_value(PageBody::new(&page, false)).expect("encodes");
        assert_eq!(
            body,
            serde_json::json!({
                "entries": [
                    { "key": "a", "value": "grün", "version": "1152921504606846976" },
                    { "key": "b", "value_base64": "/w==", "version": "1152921504606846976" },
                ],
                "cursor": "bW9yZQ",
                "at": "5",
            })
        );
        let body = serde_json::to_value(PageBody::new(&page, true)).expect("encodes");
        assert_eq!(body["entries"][1], serde_json::json!({ "key": "b", "version": "1152921504606846976" }));
    }
}
