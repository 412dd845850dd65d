//! The first frames: a client says which protocol it speaks, the node whether it can come in.

use super::Native;
use std::time::Duration;
use trandb_cluster::Error;
use trandb_cluster::wire::{Hello, PROTOCOL, Welcome, decode};

/// How long a connection may take to send its Hello. After it a connection may be idle for ever.
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest Hello in bytes: whoever has not said it yet gets no memory.
pub(super) const HELLO_BYTES_MAX: usize = 4 << 10;

/// Answers a Hello.
///
/// # Errors
/// `invalid` when it is none, or of another protocol.
pub(super) fn greet(payload: &[u8], native: &Native) -> Result<Welcome, Error> {
    let hello: Hello =
        decode(payload).map_err(|error| Error::invalid(format!("not a hello: {}", error.message)))?;
    if hello.protocol != PROTOCOL {
        return Err(Error::invalid(format!(
            "protocol {} is not spoken here, this node speaks {PROTOCOL}",
            hello.protocol
        )));
    }
    Ok(Welcome {
        protocol: PROTOCOL,
        node: native.backend.node(),
        cluster: native.backend.cluster_id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        in_flight_max: native.options.in_flight_max,
    })
}
