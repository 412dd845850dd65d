//! One connection: hyper's HTTP/1 under our timeouts, drained and closed by our rules.

use super::Http;
use super::answer::answer;
use super::paced::{PacedStream, Turn};
use crate::gateway::connection::{Closed, Connection, farewell};
use crate::gateway::listen::BoxedStream;
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use trandb_cluster::Error;

/// Largest head, and the most that is buffered of a body: room for a key of the largest size, percent-encoded,
/// several times over. A larger head is answered 431.
const BUFFER_BYTES_MAX: usize = 32 << 10;

/// What is sent to a client whose head did not come in time: hyper has no request to answer then.
const SLOW_HEAD: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// The service of one connection.
struct OnConnection {
    http: Arc<Http>,
    router: Router,
    turn: Turn,
}

impl Service<Request<Incoming>> for OnConnection {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        /// Ends the turn also when the answer is given up half-way.
        struct EndTurn(Turn);
        impl Drop for EndTurn {
            fn drop(&mut self) {
                self.0.advance();
            }
        }
        self.turn.advance();
        let turn = EndTurn(self.turn.clone());
        let (http, router) = (Arc::clone(&self.http), self.router.clone());
        Box::pin(async move {
            let response = answer(&http, router, request.map(Body::new)).await;
            drop(turn);
            Ok(response)
        })
    }
}

/// Serves one connection to its end.
pub(super) async fn serve(connection: Connection, http: Arc<Http>, router: Router) -> Closed {
    let Connection { stream, mut close, slot } = connection;
    let turn = Turn::default();
    let stream = TokioIo::new(PacedStream::new(stream, turn.clone()));
    let mut served = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(stream, OnConnection { http, router, turn });

    let mut ordered = None;
    let result = poll_fn(|cx| {
        if ordered.is_none()
            && let Poll::Ready(order) = Pin::new(&mut close).poll(cx)
        {
            ordered = Some(order.unwrap_or_else(|_| Error::unavailable("the session has ended")));
            // Finishes the request in flight, if there is one, and takes no other.
            Pin::new(&mut served).graceful_shutdown();
        }
        served.poll_without_shutdown(cx)
    })
    .await;

    let mut stream = served.into_parts().io.into_inner().into_inner();
    let (closed, last_words) = match result {
        Ok(()) => (ordered.map_or(Closed::ByClient, Closed::Ordered), &b""[..]),
        Err(error) => reason(error),
    };
    farewell(&mut stream, last_words).await;
    drop(slot);
    closed
}

/// Why hyper gave up, and what the client is told about it. What is not HTTP is answered by hyper itself.
fn reason(error: hyper::Error) -> (Closed, &'static [u8]) {
    if error.is_parse() || error.is_parse_too_large() {
        return (Closed::Fault(Error::invalid(format!("not HTTP: {error}"))), b"");
    }
    match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(source) if source.kind() == io::ErrorKind::TimedOut => {
            (Closed::Fault(Error::invalid(source.to_string())), SLOW_HEAD)
        }
        Some(source) => (Closed::Io(io::Error::new(source.kind(), source.to_string())), b""),
        None if error.is_incomplete_message() => {
            (Closed::Fault(Error::invalid("the stream ended within a request")), b"")
        }
        None => (Closed::Io(io::Error::other(error)), b""),
    }
}

/// Tells a connection that it cannot come in, and closes it.
pub(super) async fn refuse(mut stream: BoxedStream, error: Error, request_id: String) {
    let failure = super::problem::Failure::from(error);
    let status = failure.status();
    let body = failure.body(&request_id);
    let mut answer = format!(
        "HTTP/1.1 {} {}\r\nconnection: close\r\nretry-after: 1\r\ncontent-type: application/problem+json\r\n\
         x-request-id: {request_id}\r\ncontent-length: {}\r\n\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    farewell(&mut stream, &answer).await;
}
