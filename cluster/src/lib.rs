//! What all TranDB nodes must agree on, bit for bit.
//!
//! Everything here is a pure function of its inputs: no clock, no randomness, no
//! input or output, no iteration over hash maps. Actors (`trandb-actors`) feed these
//! cores and carry out what they ask; whatever cannot be tested without a network
//! is in the wrong crate.

pub mod audit;
pub mod catch_up;
pub mod command;
pub mod digest;
pub mod error;
pub mod forming;
pub mod ids;
pub mod key;
pub mod known_logs;
pub mod limits;
pub mod log_bounds;
pub mod memory;
pub mod mvcc;
pub mod oracle;
pub mod pace;
pub mod partition;
pub mod placement;
pub mod shared;
pub mod system;
pub mod table;
pub mod timestamp;
pub mod txn;
pub mod whereabouts;
pub mod wire;

pub use error::{Error, ErrorCode};
pub use ids::{ClusterId, Epoch, InstanceId, KeyspaceId, NodeId, PartitionId};
pub use key::{EncodedKey, Key, Token};
pub use timestamp::Timestamp;
pub use txn::TxnId;
