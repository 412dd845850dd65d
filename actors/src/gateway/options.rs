//! What a gateway is allowed to take.

use std::time::Duration;
use trandb_cluster::limits::CLIENT_FRAME_BYTES_MAX;

/// Limits of one door. Each field says what happens at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayOptions {
    /// Connections at once; one more is told so (`overloaded`) and closed.
    pub connections_max: usize,
    /// Requests in flight on one native connection; beyond it the connection is not read from.
    pub in_flight_max: u32,
    /// Bytes of requests in flight that came in frames or bodies of up to [`LARGE_BYTES`], over all
    /// connections of the door. At it the native door stops reading, HTTP answers `overloaded`.
    pub small_bytes_max: usize,
    /// The same for larger ones. Separate, so that slow senders of large values hold up only each other.
    pub large_bytes_max: usize,
    /// How long a request may take when its client names no deadline, in milliseconds.
    pub request_timeout_ms: u32,
    /// How long connections may take to finish what is in flight when the node stops, in milliseconds;
    /// those left then are cut.
    pub drain_ms: u64,
}

/// A frame or body above this counts as large: it is received on its own budget and executed alone, so
/// that it never stands in front of small requests.
pub const LARGE_BYTES: usize = 64 << 10;

/// Longest deadline that a client may ask for, in milliseconds; a longer one is cut to this, so that no
/// request can hold its memory for ever.
pub const REQUEST_TIMEOUT_MAX_MS: u32 = 60_000;

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            in_flight_max: 1024,
            small_bytes_max: 64 << 20,
            large_bytes_max: 192 << 20,
            request_timeout_ms: 5_000,
            drain_ms: 30_000,
        }
    }
}

impl GatewayOptions {
    /// How long a request may take: what its client asked for within the bounds; zero means the default.
    pub(crate) fn timeout(&self, asked_ms: u32) -> Duration {
        let ms = if asked_ms == 0 { self.request_timeout_ms } else { asked_ms };
        Duration::from_millis(u64::from(ms.clamp(1, REQUEST_TIMEOUT_MAX_MS)))
    }

    /// The budget of large requests: at least one largest frame fits, else none could ever be received.
    pub(crate) fn large_permits(&self) -> usize {
        self.large_bytes_max.max(CLIENT_FRAME_BYTES_MAX)
    }

    /// The budget of small requests: at least a few full reads fit.
    pub(crate) fn small_permits(&self) -> usize {
        self.small_bytes_max.max(4 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_the_asked_one_within_bounds() {
        let options = GatewayOptions::default();
        assert_eq!(options.timeout(0), Duration::from_secs(5));
        assert_eq!(options.timeout(7), Duration::from_millis(7));
        assert_eq!(options.timeout(u32::MAX), Duration::from_secs(60));
    }

    #[test]
    fn the_largest_frame_always_fits_its_budget() {
        let options = GatewayOptions { large_bytes_max: 1, ..GatewayOptions::default() };
        assert!(options.large_permits() >= CLIENT_FRAME_BYTES_MAX);
    }
}
