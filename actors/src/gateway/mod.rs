//! The doors that clients come in through.
//!
//! Each door is an actor above one listener, and each of its connections a session actor below it: the
//! actors own how connections begin and end, one task per connection moves its bytes. All doors check,
//! execute and answer through the same few functions, so that a bad key is the same bad key everywhere.

mod backend;
mod connection;
mod door;
mod http;
pub mod listen;
mod metrics;
mod native;
mod options;
pub(crate) mod rules;
mod session;
#[cfg(test)]
mod testing;
mod trace;
mod waiting;

pub(crate) use http::serve_waiting;
pub use http::{HttpOptions, serve_http};
pub use native::serve_native;
pub use options::{GatewayOptions, LARGE_BYTES, REQUEST_TIMEOUT_MAX_MS};
