//! The TranDB client library.
//!
//! [`Client`] is what applications use: it keeps a few connections to every node, sends each request to the
//! leader of its key's partition, retries what is surely not done, and leaves failing nodes alone for a while.
//! [`blocking::Client`] is the same for programs without async. [`Connection`] is one bare connection, for
//! load generators and tests.
//!
//! ```text
//! Txn, Batch
//!   │
//! Client ── dispatch ──▶ routing: which node?      retry: when again?
//!              │
//!              ▼
//!            node ── breaker: may it be asked?     a few channels
//!              │
//!              ▼
//!           channel: one task, many callers ──▶ connection: frames ──▶ dial: bytes
//! ```
//!
//! # Outcomes
//!
//! A call ends as done, as surely not done (a retryable code, see [`ErrorCode::row`]), or as
//! [`ErrorCode::Unknown`]: the write was sent and no answer came. Only the caller can know what to do then;
//! reading the key, or having written with a [`Condition`], tells. Of transactions ([`Client::begin`],
//! [`Client::transact`], [`Client::batch`]) the client finds out by itself what became of a commit or batch whose answer
//! was lost.

pub mod blocking;
mod breaker;
mod channel;
mod client;
mod connection;
mod dial;
mod dispatch;
mod node;
mod options;
mod retry;
mod routing;
mod scan;
mod txn;

pub use breaker::BreakerOptions;
pub use client::{Client, Written};
pub use connection::{Connection, ConnectionError};
pub use dial::{BoxedStream, Dialer, Stream, TcpDialer};
pub use options::{Addresses, Builder};
pub use retry::RetryBudget;
pub use scan::Pages;
pub use txn::{Batch, BatchResult, Committed, Txn, TxnOptions};

pub use trandb_cluster::command::Condition;
pub use trandb_cluster::txn::{Isolation, TxnId, TxnOutcome};
pub use trandb_cluster::wire::{
    CheckpointReport, ClusterView, Entry, NodeView, Page, PartitionView, Request, RequestFrame, Response,
    ScanRequest, ServerFrame, Topology, TraceContext, VerifiedPartition, VerifyReport, Versioned, Welcome,
};
pub use trandb_cluster::{
    ClusterId, Epoch, Error, ErrorCode, KeyspaceId, NodeId, PartitionId, Timestamp, Token,
};
