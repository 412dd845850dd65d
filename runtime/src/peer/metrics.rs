//! What peers look like from outside. Handles are made once per peer: looking one up costs more than a call
//! may.

use crate::rpc::RpcError;
use metrics::{Gauge, Histogram};
use std::time::Duration;
use trandb_cluster::ids::NodeId;

/// One peer's metrics.
pub(super) struct PeerMetrics {
    peer: String,
    calls: Gauge,
    bytes: Gauge,
    up: Gauge,
    seconds: Histogram,
}

impl PeerMetrics {
    pub(super) fn new(peer: NodeId) -> Self {
        let peer = peer.to_string();
        Self {
            calls: metrics::gauge!("trandb_peer_calls_in_flight", "peer" => peer.clone()),
            bytes: metrics::gauge!("trandb_peer_bytes_in_flight", "peer" => peer.clone()),
            up: metrics::gauge!("trandb_peer_up", "peer" => peer.clone()),
            seconds: metrics::histogram!("trandb_peer_rpc_seconds", "peer" => peer.clone()),
            peer,
        }
    }

    pub(super) fn up(&self, up: bool) {
        self.up.set(f64::from(u8::from(up)));
    }

    pub(super) fn redialed(&self) {
        metrics::counter!("trandb_peer_redials_total", "peer" => self.peer.clone()).increment(1);
    }

    pub(super) fn in_flight(&self, bytes: usize) -> InFlight<'_> {
        self.calls.increment(1.0);
        self.bytes.increment(bytes as f64);
        InFlight { metrics: self, bytes }
    }

    pub(super) fn answered(&self, took: Duration) {
        self.seconds.record(took.as_secs_f64());
    }

    pub(super) fn failed(&self, error: RpcError) {
        metrics::counter!("trandb_peer_rpc_errors_total", "peer" => self.peer.clone(), "kind" => error.kind())
            .increment(1);
    }
}

/// A call counts as in flight until this is dropped.
pub(super) struct InFlight<'a> {
    metrics: &'a PeerMetrics,
    bytes: usize,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.metrics.calls.decrement(1.0);
        self.metrics.bytes.decrement(self.bytes as f64);
    }
}

/// A connection attempt that came to nothing.
pub(super) fn handshake_failed(reason: &'static str) {
    metrics::counter!("trandb_peer_handshakes_failed_total", "reason" => reason).increment(1);
}
