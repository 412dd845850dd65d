//! The client: what applications call.

use crate::dispatch::{Dispatch, Task, mismatch};
use crate::options::{Addresses, Builder, Options};
use crate::routing::Target;
use crate::scan::{Pages, Source};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::command::Condition;
use trandb_cluster::limits::VALUE_BYTES_MAX;
use trandb_cluster::wire::{
    CheckpointReport, ClusterView, Page, Request, Response, ScanRequest, Topology, TraceContext,
    VerifyReport, Versioned,
};
use trandb_cluster::{Error, Key, Timestamp};

/// A handle to a cluster. Clones are cheap and share connections; use one from as many tasks as you like.
///
/// ```no_run
/// # async fn example() -> Result<(), trandb_client::Error> {
/// use trandb_client::Client;
/// let client = Client::connect("127.0.0.1:7400").await?;
/// client.put("greeting", "hello").await?;
/// let found = client.get("greeting").await?.expect("just written");
/// assert_eq!(found.value, "hello");
///
/// // Change it only if nobody else did meanwhile.
/// client.compare_and_set("greeting", found.version, "hello, world").await?;
/// # Ok(()) }
/// ```
///
/// Errors mean what the caller should do, see [`ErrorCode`](crate::ErrorCode). What is surely not done is
/// retried within the timeout; a write that may have been done is never sent twice and ends as `unknown`.
#[derive(Clone)]
pub struct Client {
    pub(crate) dispatch: Arc<Dispatch>,
    pub(crate) timeout: Duration,
    pub(crate) keyspace: Option<String>,
    pub(crate) trace: Option<TraceContext>,
}

/// Refuses a value that no node would take, before it is sent.
pub(crate) fn check_value(value: &Bytes) -> Result<(), Error> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(Error::too_large(format!(
            "the value has {} bytes, the limit is {VALUE_BYTES_MAX}",
            value.len()
        )));
    }
    Ok(())
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The key's new version: the commit timestamp.
    pub version: Timestamp,
    /// The version that it replaced; none if the key had no live value.
    pub previous: Option<Timestamp>,
}

impl Client {
    /// Connects to a cluster by one or more of its nodes' native addresses; the others are found.
    ///
    /// # Errors
    /// `invalid` when `addrs` names no address, `unavailable` when none could be reached.
    pub async fn connect(addrs: impl Addresses) -> Result<Self, Error> {
        Self::builder().connect(addrs).await
    }

    /// For other settings than the defaults.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(addrs: Vec<String>, options: Options) -> Result<Self, Error> {
        if addrs.is_empty() {
            return Err(Error::invalid("no address to connect to"));
        }
        let timeout = options.timeout;
        Ok(Self { dispatch: Dispatch::new(addrs, options), timeout, keyspace: None, trace: None })
    }

    pub(crate) async fn reach(&self) -> Result<(), Error> {
        self.dispatch.reach().await
    }

    /// The same client with another time limit for each call, retries included.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// The same client in another keyspace.
    #[must_use]
    pub fn with_keyspace(&self, keyspace: impl Into<String>) -> Self {
        Self { keyspace: Some(keyspace.into()), ..self.clone() }
    }

    /// The same client with its calls as part of a trace.
    #[must_use]
    pub fn with_trace(&self, trace: TraceContext) -> Self {
        Self { trace: Some(trace), ..self.clone() }
    }

    /// The key's latest value, linearizably; none if it has none.
    ///
    /// # Errors
    /// `invalid` for a bad key; `unavailable` or `overloaded` when no node answered in time.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Versioned>, Error> {
        self.read(key.as_ref(), None).await
    }

    /// The key's value as it was at `at`, which must lie within the history that nodes keep.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_at(&self, key: impl AsRef<[u8]>, at: Timestamp) -> Result<Option<Versioned>, Error> {
        self.read(key.as_ref(), Some(at)).await
    }

    async fn read(&self, key: &[u8], at: Option<Timestamp>) -> Result<Option<Versioned>, Error> {
        let (key, target) = self.locate(key)?;
        let request = Request::Get { key, at, keyspace: self.keyspace.clone() };
        match self.run(request, target).await? {
            Response::Value(value) => Ok(value),
            other => Err(mismatch(&other)),
        }
    }

    /// The version of the key's live value; none if it has none.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn exists(&self, key: impl AsRef<[u8]>) -> Result<Option<Timestamp>, Error> {
        let (key, target) = self.locate(key.as_ref())?;
        match self.run(Request::Exists { key, keyspace: self.keyspace.clone() }, target).await? {
            Response::Exists(version) => Ok(version),
            other => Err(mismatch(&other)),
        }
    }

    /// Sets the key, whatever it was.
    ///
    /// # Errors
    /// `invalid` for a bad key, `too_large` for a value over 4 MiB, `unavailable` or `overloaded` when it was
    /// not done in time, `unknown` when it may or may not have been done.
    pub async fn put(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<Written, Error> {
        self.put_if(key, value, Condition::Any).await
    }

    /// Sets the key if its live value has exactly the version `expected`.
    ///
    /// # Errors
    /// `condition_failed` if it has another one or none; else as [`put`](Self::put).
    pub async fn compare_and_set(
        &self,
        key: impl AsRef<[u8]>,
        expected: Timestamp,
        value: impl Into<Bytes>,
    ) -> Result<Written, Error> {
        self.put_if(key, value, Condition::Version(expected)).await
    }

    /// Sets the key if it has no live value.
    ///
    /// # Errors
    /// `condition_failed` if it has one; else as [`put`](Self::put).
    pub async fn put_if_absent(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
    ) -> Result<Written, Error> {
        self.put_if(key, value, Condition::Absent).await
    }

    /// Sets the key if `condition` holds.
    ///
    /// # Errors
    /// `condition_failed` if it does not; else as [`put`](Self::put).
    pub async fn put_if(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        condition: Condition,
    ) -> Result<Written, Error> {
        let (key, target) = self.locate(key.as_ref())?;
        let value = value.into();
        check_value(&value)?;
        self.write(Request::Put { key, value, condition, keyspace: self.keyspace.clone() }, target).await
    }

    /// Removes the key; an absent one, too, counts as removed.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<Written, Error> {
        self.delete_if(key, Condition::Any).await
    }

    /// Removes the key if `condition` holds.
    ///
    /// # Errors
    /// `condition_failed` if it does not; else as [`put`](Self::put).
    pub async fn delete_if(&self, key: impl AsRef<[u8]>, condition: Condition) -> Result<Written, Error> {
        let (key, target) = self.locate(key.as_ref())?;
        self.write(Request::Delete { key, condition, keyspace: self.keyspace.clone() }, target).await
    }

    async fn write(&self, request: Request, target: Target) -> Result<Written, Error> {
        match self.run(request, target).await? {
            Response::Written { version, previous } => Ok(Written { version, previous }),
            other => Err(mismatch(&other)),
        }
    }

    /// One page of keys in order. All pages of a scan show the same point in time.
    ///
    /// # Errors
    /// `invalid` for a bad range or cursor; else as [`get`](Self::get).
    pub async fn scan(&self, mut scan: ScanRequest) -> Result<Page, Error> {
        if scan.keyspace.is_none() {
            scan.keyspace.clone_from(&self.keyspace);
        }
        match self.run(Request::Scan(scan), Target::Any).await? {
            Response::Page(page) => Ok(page),
            other => Err(mismatch(&other)),
        }
    }

    /// All pages of a scan, fetched one by one. The request's `limit` is the page size.
    ///
    /// ```no_run
    /// # async fn example(client: trandb_client::Client) -> Result<(), trandb_client::Error> {
    /// use trandb_client::ScanRequest;
    /// let mut pages = client.pages(ScanRequest { prefix: "user/".into(), ..Default::default() });
    /// while let Some(page) = pages.next().await? {
    ///     for entry in page.entries {
    ///         println!("{:?} at {}", entry.key, entry.version);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn pages(&self, scan: ScanRequest) -> Pages {
        Pages::new(Source::Client(self.clone()), scan)
    }

    /// The partition map. The client keeps its own up to date; this is for looking at it.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn topology(&self) -> Result<Topology, Error> {
        match self.run(Request::Topology, Target::Any).await? {
            Response::Topology(topology) => {
                self.dispatch.install(topology.clone());
                Ok(topology)
            }
            other => Err(mismatch(&other)),
        }
    }

    /// Nodes and partitions, as some node sees them.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn cluster_status(&self) -> Result<ClusterView, Error> {
        match self.run(Request::ClusterStatus, Target::Any).await? {
            Response::Cluster(view) => Ok(view),
            other => Err(mismatch(&other)),
        }
    }

    /// Compares all replicas' contents, partition by partition.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn verify(&self) -> Result<VerifyReport, Error> {
        match self.run(Request::Verify, Target::Any).await? {
            Response::Verified(report) => Ok(report),
            other => Err(mismatch(&other)),
        }
    }

    /// Has every replica write a checkpoint now, so that a restart has little to replay. Up to where they reach.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn checkpoint(&self) -> Result<CheckpointReport, Error> {
        match self.run(Request::Checkpoint, Target::Any).await? {
            Response::Checkpointed(report) => Ok(report),
            other => Err(mismatch(&other)),
        }
    }

    /// Whether some node answers at all.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn ping(&self) -> Result<(), Error> {
        match self.run(Request::Ping, Target::Any).await? {
            Response::Pong => Ok(()),
            other => Err(mismatch(&other)),
        }
    }

    fn locate(&self, key: &[u8]) -> Result<(Bytes, Target), Error> {
        let key = Key::new(Bytes::copy_from_slice(key))?;
        let token = self.dispatch.routes().token(self.keyspace.as_deref(), &key);
        Ok((key.as_bytes().clone(), token.map_or(Target::Any, Target::Leader)))
    }

    async fn run(&self, request: Request, target: Target) -> Result<Response, Error> {
        let deadline = Instant::now() + self.timeout;
        self.dispatch.run(Task { request, target, deadline, trace: self.trace }).await
    }
}
