//! What travels between clients and nodes, and between nodes on a client's behalf. MessagePack with field
//! names, so that fields can be added: readers ignore what they do not know, `#[serde(default)]` fills what
//! is missing.
//!
//! A client connection is a stream of frames, each a 32-bit big-endian length and that many bytes:
//!
//! ```text
//! client                         node
//!   Hello ───────────────────────▶
//!   ◀─────────────────────────── Welcome, or Refused and the connection closes
//!   Request{id: 1} ──────────────▶
//!   Request{id: 2} ──────────────▶         any number in flight up to the Welcome's bound
//!   ◀─────────────── Response{id: 2}       replies in any order
//!   ◀─────────────── Response{id: 1}
//! ```

use crate::command::{Condition, WriteOutcome};
use crate::error::Error;
use crate::ids::{ClusterId, Epoch, NodeId, PartitionId};
use crate::key::{EncodedKey, Token};
use crate::timestamp::Timestamp;
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The native protocol's version; a node refuses another major one.
pub const PROTOCOL: u32 = 1;

/// Encodes with field names.
///
/// # Panics
/// Never for the types of this crate: their serialisation has no failing case and memory is the only writer.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("plain data always encodes")
}

/// Encodes with field names into a buffer of `bytes_expected`, which spares large messages the growing.
pub fn encode_sized<T: Serialize>(value: &T, bytes_expected: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes_expected);
    rmp_serde::encode::write_named(&mut out, value).expect("plain data always encodes");
    out
}

/// Decodes what [`encode`] wrote.
///
/// # Errors
/// `invalid` with the decoder's reason.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    rmp_serde::from_slice(bytes).map_err(|error| Error::invalid(format!("undecodable message: {error}")))
}

/// The W3C trace context of a request: which trace and span it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// The trace, 16 bytes as a number.
    pub trace_id: u128,
    /// The parent span.
    pub span_id: u64,
    /// Whether the trace is recorded.
    pub sampled: bool,
}

/// A client's first frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The client library's name and version, for logs.
    #[serde(default)]
    pub client: String,
}

/// A frame from a client after its [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFrame {
    /// Chosen by the client, repeated in the response; unique among its requests in flight.
    pub id: u64,
    /// How long the client will wait, in milliseconds; zero means the node's default.
    #[serde(default)]
    pub deadline_ms: u32,
    /// The span this request is part of.
    #[serde(default)]
    pub trace: Option<TraceContext>,
    /// What to do.
    pub body: Request,
}

/// What a client asks for. Keys are raw bytes here so that a bad one is answered by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// A key's value.
    Get {
        /// The key.
        key: Bytes,
        /// Read as of then; none reads the latest, linearizably.
        #[serde(default)]
        at: Option<Timestamp>,
        /// None is `default`.
        #[serde(default)]
        keyspace: Option<String>,
    },
    /// Whether a key has a value, and which version.
    Exists {
        /// The key.
        key: Bytes,
        /// None is `default`.
        #[serde(default)]
        keyspace: Option<String>,
    },
    /// Sets a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
        /// What must hold for it.
        #[serde(default)]
        condition: Condition,
        /// None is `default`.
        #[serde(default)]
        keyspace: Option<String>,
    },
    /// Removes a key; removing an absent one is done, too.
    Delete {
        /// The key.
        key: Bytes,
        /// What must hold for it.
        #[serde(default)]
        condition: Condition,
        /// None is `default`.
        #[serde(default)]
        keyspace: Option<String>,
    },
    /// One page of keys and values in key order.
    Scan(ScanRequest),
    /// The partition map, for clients that go to leaders directly.
    Topology,
    /// The cluster as `GET /admin/cluster` shows it.
    ClusterStatus,
    /// Every replica's digest, compared partition by partition.
    Verify,
    /// A checkpoint of every replica, now.
    Checkpoint,
    /// Nothing; proves the connection.
    Ping,
    /// A transaction, or a part of one.
    Txn(crate::txn::TxnRequest),
}

/// Which keys a scan wants.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanRequest {
    /// Only keys that start with these bytes.
    #[serde(default)]
    pub prefix: Bytes,
    /// Only keys at or after this.
    #[serde(default)]
    pub start: Option<Bytes>,
    /// Only keys before this.
    #[serde(default)]
    pub end: Option<Bytes>,
    /// Entries at the most; zero means the default, and no page exceeds the limits of this crate.
    #[serde(default)]
    pub limit: u32,
    /// Where an earlier page ended. It carries the snapshot: later pages see the same point in time.
    #[serde(default)]
    pub cursor: Option<Bytes>,
    /// Read as of then; none reads the latest, linearizably.
    #[serde(default)]
    pub at: Option<Timestamp>,
    /// Leave the values out.
    #[serde(default)]
    pub keys_only: bool,
    /// None is `default`.
    #[serde(default)]
    pub keyspace: Option<String>,
}

/// A frame from a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ServerFrame {
    /// Answers the [`Hello`].
    Welcome(Welcome),
    /// The connection is over, and why. Sent in place of a Welcome, or at any time before closing: then after the
    /// answers to all requests that were begun, so that those without one are surely not done.
    Refused(Error),
    /// Answers a request.
    Response {
        /// The request's id.
        id: u64,
        /// The request was led to another node: a [`Request::Topology`] would spare the detour.
        #[serde(default)]
        forwarded: bool,
        /// What came of it.
        result: Result<Response, Error>,
    },
}

/// What a node tells a client that it lets in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The node's [`PROTOCOL`].
    pub protocol: u32,
    /// The node.
    pub node: NodeId,
    /// Its cluster; none while it is still forming.
    pub cluster: Option<ClusterId>,
    /// Its version, for people.
    pub version: String,
    /// Requests that may be in flight on one connection; beyond it the node stops reading.
    pub in_flight_max: u32,
}

/// A request's result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// Of a get.
    Value(Option<Versioned>),
    /// Of an exists: the live value's version.
    Exists(Option<Timestamp>),
    /// Of a put or delete. A failed condition arrives as the error `condition_failed`.
    Written {
        /// The new version.
        version: Timestamp,
        /// The version it replaced; none if the key had no live value.
        previous: Option<Timestamp>,
    },
    /// Of a scan.
    Page(Page),
    /// Of a topology request.
    Topology(Topology),
    /// Of a cluster status request.
    Cluster(ClusterView),
    /// Of a verify request.
    Verified(VerifyReport),
    /// Of a checkpoint request.
    Checkpointed(CheckpointReport),
    /// Of a ping.
    Pong,
    /// Of a transaction's request.
    Txn(crate::txn::TxnResponse),
}

/// A value and its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned {
    /// The value.
    pub value: Bytes,
    /// Its commit timestamp.
    pub version: Timestamp,
}

/// A part of a scan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// In key order.
    pub entries: Vec<Entry>,
    /// Where the next page starts; none when this is the last.
    pub cursor: Option<Bytes>,
    /// The point in time that all pages of this scan show.
    pub at: Timestamp,
}

/// A key of a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// Its value; empty when only keys were asked for.
    pub value: Bytes,
    /// Its version.
    pub version: Timestamp,
}

/// Where partitions live, for clients that go to leaders directly.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// Grows with each change of the map (not of leaders).
    pub epoch: Epoch,
    /// Every node's id and native address.
    pub nodes: Vec<(NodeId, String)>,
    /// In token order: a partition's first token, its id, its leader where one is known.
    pub partitions: Vec<(Token, PartitionId, Option<NodeId>)>,
    /// Keyspaces by name.
    pub keyspaces: Vec<(String, crate::ids::KeyspaceId)>,
}

/// The cluster as people and programs see it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    /// None while forming.
    pub cluster_id: Option<ClusterId>,
    /// The node that answered.
    pub answered_by: NodeId,
    /// The partition map's epoch.
    pub epoch: Epoch,
    /// Every node.
    pub nodes: Vec<NodeView>,
    /// Every group, the system group (0) first.
    pub partitions: Vec<PartitionView>,
}

/// One node of a [`ClusterView`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// The node.
    pub id: NodeId,
    /// `up`, `suspect`, `down` or `removed`, as the answering node sees it.
    pub state: String,
    /// Peer address.
    pub peer: String,
    /// HTTP address.
    pub http: String,
    /// Native address.
    pub native: String,
    /// Groups that it leads.
    pub leads: u32,
}

/// One group of a [`ClusterView`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartitionView {
    /// The group.
    pub id: PartitionId,
    /// None when no leader is known.
    pub leader: Option<NodeId>,
    /// The leader's term, or the highest known here.
    pub term: u64,
    /// Nodes with a replica.
    pub replicas: Vec<NodeId>,
    /// The last log index applied at the leader, as last heard.
    pub applied: u64,
    /// First token, in hexadecimal; empty for the system group.
    pub start: String,
}

/// Every replica's digest at one log index per partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Whether all replicas of all partitions answered and agree.
    pub identical: bool,
    /// Partition by partition.
    pub partitions: Vec<VerifiedPartition>,
}

/// One partition of a [`VerifyReport`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedPartition {
    /// The partition.
    pub id: PartitionId,
    /// The log index compared at.
    pub applied: u64,
    /// Per replica its digest in hexadecimal, or why there is none.
    pub replicas: Vec<(NodeId, Result<String, String>)>,
    /// Live keys at that index.
    pub keys: u64,
    /// Whether every replica answered with the same digest.
    pub identical: bool,
}

/// Up to where every replica is in a durable checkpoint, after one was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointReport {
    /// Whether all replicas of all partitions have one.
    pub complete: bool,
    /// Per replica the log index that its checkpoint reaches to, or why it has none.
    pub replicas: Vec<(PartitionId, NodeId, Result<u64, String>)>,
}

/// An operation on one key, on its way to the key's partition. Already validated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyOp {
    /// A key's value.
    Get {
        /// The key.
        key: EncodedKey,
        /// As of then; none reads the latest.
        #[serde(default)]
        at: Option<Timestamp>,
    },
    /// A key's version.
    Exists {
        /// The key.
        key: EncodedKey,
    },
    /// A put or delete.
    Write(crate::command::Write),
}

impl KeyOp {
    /// The key that it is about.
    pub fn key(&self) -> &EncodedKey {
        match self {
            Self::Get { key, .. } | Self::Exists { key } => key,
            Self::Write(write) => &write.key,
        }
    }

    /// Whether it changes anything.
    pub fn is_write(&self) -> bool {
        matches!(self, Self::Write(_))
    }

    /// About how many bytes it takes in memory and on the wire.
    pub fn weight(&self) -> usize {
        match self {
            Self::Get { key, .. } | Self::Exists { key } => key.as_bytes().len() + 32,
            Self::Write(write) => write.weight(),
        }
    }
}

/// What came of a [`KeyOp`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyResult {
    /// Of a get.
    Value(Option<Versioned>),
    /// Of an exists.
    Exists(Option<Timestamp>),
    /// Of a write.
    Write(WriteOutcome),
}

/// One partition's part of a scan. `start` and `end` are encoded keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeScan {
    /// Keys at or after this.
    pub start: EncodedKey,
    /// Keys before this; none means to the end.
    pub end: Option<EncodedKey>,
    /// The snapshot.
    pub at: Timestamp,
    /// Entries at the most.
    pub limit: u32,
    /// Bytes after which it ends, though it holds one entry if there is one.
    pub bytes_max: u32,
    /// Leave the values out.
    pub keys_only: bool,
}

/// What a [`RangeScan`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangePage {
    /// In order of encoded keys.
    pub entries: Vec<(EncodedKey, Versioned)>,
    /// It stopped at a limit: there may be more keys after the last one.
    pub more: bool,
}
