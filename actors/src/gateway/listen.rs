//! Where connections come from: the network's door, so that a simulated network can stand in for the real one.

pub use trandb_runtime::net::{BoxedStream, ByteStream, Listener};
