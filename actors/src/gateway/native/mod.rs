//! The native protocol: length-delimited MessagePack frames with request ids, fully pipelined. The frames
//! are those of [`trandb_cluster::wire`].
//!
//! One task per connection ([`pump`]) turns frames into batches ([`request`]), runs them, and turns results
//! into frames ([`reply`]). Requests in flight on one connection run at once and are answered in any order;
//! a client that needs one done before another waits for its answer.
//!
//! Measured against a map in memory, one thread for the door, both ends on two shared cores: 430,000 gets/s with
//! 16 in flight, 37,000 with one. An idle connection costs about 12 KiB, most of it its actor.
//!
//! **Caveats.** A batch is answered as a whole: reads of one run wait for the slowest partition among them
//! (writes and large values are batched apart). Answers of requests in flight are bounded by their number
//! only, so a connection that asks for a thousand of the largest values at once, of a remote leader, can make
//! the node hold them all; the peer link's budget is what stops it.

mod greeting;
mod input;
mod output;
mod pump;
mod reply;
mod request;
#[cfg(test)]
mod tests;

use super::backend::Backend;
use super::connection::{Closed, Connection, farewell};
use super::door::{self, DoorArguments, Protocol};
use super::listen::{BoxedStream, Listener};
use super::metrics::RequestMetrics;
use super::options::GatewayOptions;
use crate::database::Database;
use futures_util::future::BoxFuture;
use output::Output;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use trandb_cluster::Error;
use trandb_cluster::wire::ServerFrame;

/// What all connections of the door share.
pub(crate) struct Native {
    backend: Arc<dyn Backend>,
    options: GatewayOptions,
    metrics: RequestMetrics,
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Native {
    pub(crate) fn new(backend: Arc<dyn Backend>, options: GatewayOptions) -> Self {
        Self {
            backend,
            metrics: RequestMetrics::new(),
            small: Arc::new(Semaphore::new(options.small_permits())),
            large: Arc::new(Semaphore::new(options.large_permits())),
            options,
        }
    }
}

/// The native protocol as a door speaks it.
struct NativeProtocol(Arc<Native>);

impl Protocol for NativeProtocol {
    fn name(&self) -> &'static str {
        "native"
    }

    fn serve(&self, connection: Connection) -> BoxFuture<'static, Closed> {
        Box::pin(pump::Pump::new(connection, Arc::clone(&self.0)).run())
    }

    fn refuse(&self, mut stream: BoxedStream, error: Error) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut output = Output::default();
            output.push(&ServerFrame::Refused(error));
            farewell(&mut stream, output.rest()).await;
        })
    }
}

/// Serves the native protocol until `shutdown`, then drains: what is in flight is answered, every connection
/// is told that the node stops, and what is left after [`GatewayOptions::drain_ms`] is cut.
pub async fn serve_native(
    listener: Box<dyn Listener>,
    database: Database,
    options: GatewayOptions,
    shutdown: CancellationToken,
) {
    serve(listener, Arc::new(database), options, shutdown).await;
}

async fn serve(
    listener: Box<dyn Listener>,
    backend: Arc<dyn Backend>,
    options: GatewayOptions,
    shutdown: CancellationToken,
) {
    let (connections_max, drain_ms) = (options.connections_max, options.drain_ms);
    let protocol = Arc::new(NativeProtocol(Arc::new(Native::new(backend, options))));
    door::run(DoorArguments { listener, protocol, connections_max, drain_ms, shutdown }).await;
}
