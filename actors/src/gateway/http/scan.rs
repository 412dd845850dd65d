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
use trandb_cluster::Error;
use trandb_cluster::limits::{SCAN_PAGE_ENTRIES_DEFAULT, SCAN_PAGE_ENTRIES_MAX};
use trandb_cluster::wire::{Page, ScanRequest};

/// The query parameters.
pub(super) const PARAMETERS: [&str; 8] =
    ["prefix", "start", "end", "limit", "cursor", "at", "keys_only", "keyspace"];

pub(super) async fn page(State(http): State<Arc<Http>>, request: Request) -> Result<Response, Failure> {
    let query = Query::parse(request.uri().query(), &PARAMETERS)?;
    let scan = ScanRequest {
        prefix: query.bytes("prefix").unwrap_or_default(),
        start: query.bytes("start"),
        end: query.bytes("end"),
        limit: limit(&query)?,
        cursor: query.text("cursor")?.map(decode_cursor).transpose()?,
        at: query.at()?,
        keys_only: query.parsed("keys_only", "true or false")?.unwrap_or(false),
        keyspace: keyspace_name(request.headers(), &query)?,
    };
    let keys_only = scan.keys_only;
    let info = RequestInfo::of(&request);
    let page = info.run(&http, false, |context| http.backend.scan(scan, context)).await??;
    Ok(json(StatusCode::OK, &PageBody::new(&page, keys_only)))
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
    URL_SAFE_NO_PAD
        .decode(text)
        .map(Bytes::from)
        .map_err(|_| Error::invalid("query parameter \"cursor\" is none that was given out").into())
}

#[derive(Serialize)]
struct PageBody<'a> {
    entries: Vec<EntryBody<'a>>,
    cursor: Option<String>,
    /// As text: JSON's readers round numbers above 2^53.
    at: String,
}

#[derive(Serialize)]
struct EntryBody<'a> {
    key: std::borrow::Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    version: String,
}

impl<'a> PageBody<'a> {
    fn new(page: &'a Page, keys_only: bool) -> Self {
        let entries = page.entries.iter().map(|entry| {
            let text = std::str::from_utf8(&entry.value).ok();
            EntryBody {
                key: String::from_utf8_lossy(&entry.key),
                value: text.filter(|_| !keys_only),
                value_base64: (text.is_none() && !keys_only).then(|| STANDARD.encode(&entry.value)),
                version: entry.version.to_string(),
            }
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
    use trandb_cluster::Timestamp;
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
