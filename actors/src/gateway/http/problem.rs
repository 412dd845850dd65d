//! Refusals as RFC 9457 problem details. A handler says what is wrong; the outermost layer, which knows the
//! request's id, writes it out.

use super::conditions::etag;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use trandb_cluster::{Error, Timestamp};

/// Media type of problem details.
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// When to try again after `unavailable` and `overloaded`, in seconds: elections and full queues are over
/// within it.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// A refused request, on its way to becoming a response.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    error: Error,
    status: StatusCode,
    /// The version that stood in the way, for the entity tag.
    current: Option<Timestamp>,
}

impl Failure {
    /// With a status that is the protocol's own rather than the error's.
    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// With the version that the key has.
    pub(super) fn with_current(mut self, version: Option<Timestamp>) -> Self {
        self.current = version;
        self
    }

    pub(super) fn error(&self) -> &Error {
        &self.error
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The response, all of it.
    pub(super) fn render(self, request_id: &str) -> Response {
        let body = self.body(request_id);
        let mut response = (self.status, body).into_response();
        if let Some(version) = self.current {
            response.headers_mut().insert(header::ETAG, etag(version));
        }
        response.headers_mut().insert(header::CONTENT_TYPE, PROBLEM_JSON);
        if matches!(
            self.status,
            StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::TOO_MANY_REQUESTS
                | StatusCode::INSUFFICIENT_STORAGE
        ) {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }

    /// The problem details.
    pub(super) fn body(&self, request_id: &str) -> Vec<u8> {
        let row = self.error.code.row();
        let problem = Problem {
            type_uri: format!("urn:trandb:problem:{}", row.name),
            title: row.title,
            status: self.status.as_u16(),
            detail: &self.error.message,
            code: row.name,
            retryable: row.retryable,
            request_id,
        };
        serde_json::to_vec(&problem).expect("plain data always encodes")
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = StatusCode::from_u16(error.http()).expect("the table of codes holds valid statuses");
        Self { error, status, current: None }
    }
}

/// Without a body: that is added by [`Failure::render`] in the outermost layer.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    type_uri: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    retryable: bool,
    request_id: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use trandb_cluster::ErrorCode;

    #[test]
    fn every_code_becomes_a_problem() {
        for code in ErrorCode::ALL {
            let failure = Failure::from(Error { code, ..Error::internal("what happened") });
            let body: serde_json::Value = serde_json::from_slice(&failure.body("n1-7")).expect("is JSON");
            let row = code.row();
            assert_eq!(body["type"], format!("urn:trandb:problem:{}", row.name));
            assert_eq!(body["title"], row.title);
            assert_eq!(body["status"], row.http);
            assert_eq!(body["detail"], "what happened");
            assert_eq!(body["code"], row.name);
            assert_eq!(body["retryable"], row.retryable);
            assert_eq!(body["request_id"], "n1-7");
            let response = failure.render("n1-7");
            assert_eq!(response.status().as_u16(), row.http);
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
            assert_eq!(
                response.headers().contains_key(header::RETRY_AFTER),
                matches!(code, ErrorCode::Unavailable | ErrorCode::Overloaded)
            );
        }
    }

    #[test]
    fn a_lack_of_memory_is_overload_of_another_status() {
        let response = Failure::from(Error::out_of_memory("n1 is full")).render("n1-7");
        assert_eq!(response.status(), StatusCode::INSUFFICIENT_STORAGE);
        assert!(response.headers().contains_key(header::RETRY_AFTER));
        let body = Failure::from(Error::out_of_memory("n1 is full")).body("n1-7");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("is JSON");
        assert_eq!((&body["code"], &body["status"]), (&"overloaded".into(), &507.into()));
    }
}
