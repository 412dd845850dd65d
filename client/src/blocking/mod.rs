//! The same client for programs without an async runtime.

mod txn;

pub use txn::Txn;

use crate::options::{Addresses, Builder};
use crate::{
    Batch, CheckpointReport, ClusterView, Committed, Condition, Error, Page, ScanRequest, Timestamp,
    Topology, TxnId, TxnOutcome, VerifyReport, Versioned, Written,
};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// A [`Client`](crate::Client) that waits. It brings its own runtime on the calling thread, so it must not be
/// used inside an async runtime; there, use the async one. Connections make progress only during calls.
///
/// ```no_run
/// # fn example() -> Result<(), trandb_client::Error> {
/// let client = trandb_client::blocking::Client::connect("127.0.0.1:7400")?;
/// client.put("greeting", "hello")?;
/// assert!(client.get("greeting")?.is_some());
/// # Ok(()) }
/// ```
pub struct Client {
    client: crate::Client,
    runtime: Arc<Runtime>,
}

macro_rules! forwards {
    ($($name:ident($($arg:ident: $type:ty),*) -> $output:ty),* $(,)?) => {
        $(
            #[doc = concat!("See [`Client::", stringify!($name), "`](crate::Client::", stringify!($name), ").")]
            ///
            /// # Errors
            /// As there.
            pub fn $name(&self, $($arg: $type),*) -> Result<$output, Error> {
                wait(&self.runtime, self.client.$name($($arg),*))
            }
        )*
    };
}

/// Waits for a call.
fn wait<T>(runtime: &Runtime, call: impl Future<Output = T>) -> T {
    runtime.block_on(async {
        // Lets connections notice what happened between calls, such as a node's farewell, before anything is sent on
        // them.
        tokio::task::yield_now().await;
        call.await
    })
}

impl Client {
    /// See [`Client::connect`](crate::Client::connect).
    ///
    /// # Errors
    /// As there.
    pub fn connect(addrs: impl Addresses) -> Result<Self, Error> {
        Self::connect_with(Builder::default(), addrs)
    }

    /// Connects with other settings than the defaults.
    ///
    /// # Errors
    /// As [`Builder::connect`]; `internal` when the system gives no resources for a runtime.
    pub fn connect_with(builder: Builder, addrs: impl Addresses) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::internal(format!("no runtime: {error}")))?;
        let client = runtime.block_on(builder.connect(addrs))?;
        Ok(Self { client, runtime: Arc::new(runtime) })
    }

    /// Changes the time limit of each call from here on, retries included.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.client = self.client.with_timeout(timeout);
    }

    /// Changes the keyspace from here on.
    pub fn set_keyspace(&mut self, keyspace: impl Into<String>) {
        self.client = self.client.with_keyspace(keyspace);
    }

    forwards! {
        get(key: impl AsRef<[u8]>) -> Option<Versioned>,
        get_at(key: impl AsRef<[u8]>, at: Timestamp) -> Option<Versioned>,
        exists(key: impl AsRef<[u8]>) -> Option<Timestamp>,
        put(key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Written,
        compare_and_set(key: impl AsRef<[u8]>, expected: Timestamp, value: impl Into<Bytes>) -> Written,
        put_if_absent(key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Written,
        put_if(key: impl AsRef<[u8]>, value: impl Into<Bytes>, condition: Condition) -> Written,
        delete(key: impl AsRef<[u8]>) -> Written,
        delete_if(key: impl AsRef<[u8]>, condition: Condition) -> Written,
        scan(scan: ScanRequest) -> Page,
        topology() -> Topology,
        cluster_status() -> ClusterView,
        verify() -> VerifyReport,
        checkpoint() -> CheckpointReport,
        ping() -> (),
        outcome(txn: TxnId) -> TxnOutcome,
        batch(batch: Batch) -> Committed,
    }
}
