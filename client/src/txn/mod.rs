//! Transactions.
//!
//! A [`Txn`] is a handle; the transaction itself lives on the node of its coordinator, which keeps what it has written
//! and lets it read that back. Requests go to that node, or through any other while it cannot be reached.
//!
//! # What is lost on the way
//!
//! | lost is the reply to | then |
//! |---|---|
//! | a read, a lock, an abort | it is asked again |
//! | a write | it may be buffered or not, and sending it again could undo one that came after it. The transaction can only be aborted: this and every later call ends as `conflict` |
//! | a commit | [`commit`](Txn::commit) asks for the outcome until it knows (`ending`) |
//! | a batch | it was named before it was sent (`names`), so its outcome is asked for in the same way. One that was aborted is done again; of one that was committed all is known but what it read |

mod batch;
mod ending;
mod names;
mod options;
mod transact;

pub use batch::{Batch, BatchResult, Committed};
pub(crate) use names::Names;
pub use options::TxnOptions;
pub(crate) use transact::Runs;

use crate::client::{Client, check_value};
use crate::dispatch::{Dispatch, Task, mismatch};
use crate::node::lock;
use crate::routing::Target;
use crate::scan::{Pages, Source};
use bytes::Bytes;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::command::Condition;
use trandb_cluster::txn::{TxnId, TxnKey, TxnOp, TxnOutcome, TxnRequest, TxnResponse, TxnWrite};
use trandb_cluster::wire::{Page, Request, Response, ScanRequest, TraceContext, Versioned};
use trandb_cluster::{Error, ErrorCode, Key, Timestamp};

/// How long aborting a transaction that was dropped may take. The node ends it by itself a little later.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// An open transaction. Clones are handles to the same one; when the last is dropped before a commit, it is aborted in
/// the background.
///
/// ```no_run
/// # async fn example(client: trandb_client::Client) -> Result<(), trandb_client::Error> {
/// let txn = client.begin().await?;
/// txn.put("order/7", "paid").await?;
/// txn.delete("cart/7").await?;
/// txn.commit().await?;
/// # Ok(()) }
/// ```
///
/// Of its errors `conflict` says that it lost against another one, or has ended: nothing was written, run it again
/// from its beginning. [`Client::transact`] does so by itself.
#[derive(Clone)]
pub struct Txn {
    inner: Arc<Inner>,
    keyspace: Option<String>,
}

struct Inner {
    id: TxnId,
    read_at: Timestamp,
    dispatch: Arc<Dispatch>,
    trace: Option<TraceContext>,
    pace: Pace,
    /// Why it can only be aborted.
    doom: Mutex<Option<Error>>,
    /// Its end was asked for, or is known.
    ended: AtomicBool,
}

/// How long its calls may take.
#[derive(Debug, Clone, Copy)]
enum Pace {
    /// Each call on its own.
    PerCall(Duration),
    /// All of it by then, and no call but one for a lock longer than that, so that there is time for another run.
    Until(Instant, Duration),
}

impl Pace {
    fn deadline(self, waits: bool) -> Instant {
        let now = Instant::now();
        match self {
            Self::PerCall(timeout) => now + timeout,
            Self::Until(until, timeout) if waits => {
                until.min(now + timeout.max(until.saturating_duration_since(now) / 2))
            }
            Self::Until(until, timeout) => until.min(now + timeout),
        }
    }

    /// By when it must be open, and by when committed.
    fn end(self) -> Instant {
        match self {
            Self::PerCall(timeout) => Instant::now() + timeout,
            Self::Until(until, _) => until,
        }
    }
}

impl Client {
    /// Opens a transaction that is strictly serializable.
    ///
    /// # Errors
    /// `unavailable` or `overloaded` when no node opened one in time.
    pub async fn begin(&self) -> Result<Txn, Error> {
        self.begin_with(TxnOptions::default()).await
    }

    /// Opens a transaction.
    ///
    /// # Errors
    /// `invalid` for options that do not go together; else as [`begin`](Self::begin).
    pub async fn begin_with(&self, options: TxnOptions) -> Result<Txn, Error> {
        self.open(options, 0, Pace::PerCall(self.timeout)).await
    }

    /// What became of a transaction, of any client. Outcomes are kept for up to 24 hours. One that nobody knows can never
    /// be committed after this was answered.
    ///
    /// # Errors
    /// `unavailable` or `overloaded` when no node answered in time.
    pub async fn outcome(&self, txn: TxnId) -> Result<TxnOutcome, Error> {
        let deadline = Instant::now() + self.timeout;
        let asked = TxnRequest::Outcome { txn };
        ending::outcome(ask(&self.dispatch, asked, Target::Node(txn.node), deadline, self.trace).await?)
    }

    async fn open(&self, options: TxnOptions, run: u32, pace: Pace) -> Result<Txn, Error> {
        let deadline = pace.end();
        match ask(&self.dispatch, options.begin(run), Target::Any, deadline, self.trace).await? {
            TxnResponse::Begun { txn, read_at } => {
                let inner = Inner {
                    id: txn,
                    read_at,
                    dispatch: self.dispatch.clone(),
                    trace: self.trace,
                    pace,
                    doom: Mutex::default(),
                    ended: AtomicBool::new(false),
                };
                Ok(Txn { inner: Arc::new(inner), keyspace: self.keyspace.clone() })
            }
            other => Err(mismatch(&Response::Txn(other))),
        }
    }
}

/// Asks of transactions.
async fn ask(
    dispatch: &Arc<Dispatch>,
    request: TxnRequest,
    target: Target,
    deadline: Instant,
    trace: Option<TraceContext>,
) -> Result<TxnResponse, Error> {
    match dispatch.run(Task { request: Request::Txn(request), target, deadline, trace }).await? {
        Response::Txn(response) => Ok(response),
        other => Err(mismatch(&other)),
    }
}

impl Txn {
    /// Its name, by which [`Client::outcome`] knows it.
    pub fn id(&self) -> TxnId {
        self.inner.id
    }

    /// The point in time that its reads show; with read committed only the first.
    pub fn read_at(&self) -> Timestamp {
        self.inner.read_at
    }

    /// The same transaction in another keyspace.
    #[must_use]
    pub fn with_keyspace(&self, keyspace: impl Into<String>) -> Self {
        Self { inner: self.inner.clone(), keyspace: Some(keyspace.into()) }
    }

    /// The key's value as the transaction sees it. What it has written itself has version 0.
    ///
    /// # Errors
    /// `conflict` when the transaction has ended or can only be aborted, else as [`Client::get`].
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Versioned>, Error> {
        value(self.op(TxnOp::Get(self.key(key.as_ref())?)).await?)
    }

    /// The key's newest committed value, which must not change before the commit, at any isolation level. The key is
    /// locked until the transaction ends; this waits for its turn. `conflict` when waiting closed a cycle and this
    /// transaction gives way: it has ended then.
    ///
    /// # Errors
    /// `invalid` in a read-only transaction, `unavailable` when a lock was not got in time; else as [`get`](Self::get).
    pub async fn get_for_update(&self, key: impl AsRef<[u8]>) -> Result<Option<Versioned>, Error> {
        value(self.op(TxnOp::GetForUpdate(self.key(key.as_ref())?)).await?)
    }

    /// The same without the value.
    ///
    /// # Errors
    /// As [`get_for_update`](Self::get_for_update).
    pub async fn lock(&self, key: impl AsRef<[u8]>) -> Result<(), Error> {
        done(self.op(TxnOp::Lock(self.key(key.as_ref())?)).await?)
    }

    /// The version of the key's value as the transaction sees it, 0 for one that it has written itself; none if the
    /// key has none.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn exists(&self, key: impl AsRef<[u8]>) -> Result<Option<Timestamp>, Error> {
        Ok(self.get(key).await?.map(|found| found.version))
    }

    /// Sets the key when the transaction commits, whatever it was.
    ///
    /// # Errors
    /// `invalid` for a bad key or a read-only transaction, `too_large` for a value over 4 MiB or a transaction over its
    /// limits; else as [`get`](Self::get).
    pub async fn put(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<(), Error> {
        self.put_if(key, value, Condition::Any).await
    }

    /// Sets the key when the transaction commits, if `condition` holds now, as the transaction sees it.
    ///
    /// # Errors
    /// `condition_failed` if it does not, and the transaction goes on; else as [`put`](Self::put).
    pub async fn put_if(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        condition: Condition,
    ) -> Result<(), Error> {
        let value = value.into();
        check_value(&value)?;
        self.write(key.as_ref(), Some(value), condition).await
    }

    /// Removes the key when the transaction commits; an absent one, too, counts as removed.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<(), Error> {
        self.delete_if(key, Condition::Any).await
    }

    /// Removes the key when the transaction commits, if `condition` holds now, as the transaction sees it.
    ///
    /// # Errors
    /// As [`put_if`](Self::put_if).
    pub async fn delete_if(&self, key: impl AsRef<[u8]>, condition: Condition) -> Result<(), Error> {
        self.write(key.as_ref(), None, condition).await
    }

    /// One page of keys in order, as the transaction sees them, its own writes included. A serializable transaction
    /// commits only if nobody has put or removed a key in what it has scanned.
    ///
    /// # Errors
    /// `invalid` for a bad range or cursor, or a point in time of its own; else as [`get`](Self::get).
    pub async fn scan(&self, mut scan: ScanRequest) -> Result<Page, Error> {
        if scan.keyspace.is_none() {
            scan.keyspace.clone_from(&self.keyspace);
        }
        match self.op(TxnOp::Scan(scan)).await? {
            TxnResponse::Page(page) => Ok(page),
            other => Err(mismatch(&Response::Txn(other))),
        }
    }

    /// All pages of a scan, fetched one by one. The request's `limit` is the page size.
    pub fn pages(&self, scan: ScanRequest) -> Pages {
        Pages::new(Source::Txn(self.clone()), scan)
    }

    /// Ends the transaction: all that it has written becomes visible at once, as of the timestamp that is answered.
    ///
    /// When the node's answer is lost, the outcome is asked for, through any node, and the commit repeated if need be.
    ///
    /// # Errors
    /// `conflict` if it lost against another one or has ended: nothing was written. `unavailable` or `overloaded` if it
    /// was surely not committed in time. `unknown` only if not even the outcome could be learned in time;
    /// [`Client::outcome`] tells later.
    pub async fn commit(self) -> Result<Timestamp, Error> {
        self.finish(self.inner.pace.end()).await
    }

    /// Ends the transaction without effect. Dropping it does so in the background.
    ///
    /// # Errors
    /// `invalid` if it was committed already, through another handle; `unavailable` when no node answered in time: it
    /// then ends by itself.
    pub async fn abort(self) -> Result<(), Error> {
        self.inner.ended.store(true, Ordering::Relaxed);
        let deadline = self.inner.pace.deadline(false).max(Instant::now() + ABORT_TIMEOUT);
        match ending::outcome(self.inner.ask(TxnRequest::Abort { txn: self.id() }, deadline).await?)? {
            TxnOutcome::Committed(at) => {
                Err(Error::invalid(format!("transaction {} was committed at {at}", self.id())))
            }
            TxnOutcome::Aborted(_) | TxnOutcome::Open | TxnOutcome::Unknown => Ok(()),
        }
    }

    /// Whether some handle has asked for its end.
    fn has_ended(&self) -> bool {
        self.inner.ended.load(Ordering::Relaxed)
    }

    fn key(&self, key: &[u8]) -> Result<TxnKey, Error> {
        let key = Key::new(Bytes::copy_from_slice(key))?;
        Ok(TxnKey { key: key.as_bytes().clone(), keyspace: self.keyspace.clone() })
    }

    async fn write(&self, key: &[u8], value: Option<Bytes>, condition: Condition) -> Result<(), Error> {
        let key = self.key(key)?;
        let lost = Lost(Some(&self.inner));
        match self.op(TxnOp::Write(TxnWrite { key, value, condition })).await {
            Err(error) if matches!(error.code, ErrorCode::Unknown | ErrorCode::Internal) => {
                drop(lost);
                self.inner.check()
            }
            result => {
                lost.found();
                done(result?)
            }
        }
    }

    async fn op(&self, op: TxnOp) -> Result<TxnResponse, Error> {
        self.inner.check()?;
        let waits = matches!(op, TxnOp::Lock(_) | TxnOp::GetForUpdate(_));
        self.inner.ask(TxnRequest::Op { txn: self.id(), op }, self.inner.pace.deadline(waits)).await
    }
}

impl fmt::Debug for Txn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Txn").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Inner {
    /// Refuses once it can only be aborted.
    fn check(&self) -> Result<(), Error> {
        lock(&self.doom).clone().map_or(Ok(()), Err)
    }

    async fn ask(&self, request: TxnRequest, deadline: Instant) -> Result<TxnResponse, Error> {
        ask(&self.dispatch, request, Target::Node(self.id.node), deadline, self.trace).await
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if *self.ended.get_mut() {
            return;
        }
        // Outside of a runtime nothing can be sent; the node ends it when it has been idle for long enough.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (id, dispatch, trace) = (self.id, self.dispatch.clone(), self.trace);
        runtime.spawn(async move {
            let (request, deadline) = (TxnRequest::Abort { txn: id }, Instant::now() + ABORT_TIMEOUT);
            // In vain or not, nobody is left to be told.
            let _ = ask(&dispatch, request, Target::Node(id.node), deadline, trace).await;
        });
    }
}

/// A write whose answer has not come. Dropped like that, as when its caller gives it up half-way, it leaves a
/// transaction of which nobody knows what it would commit.
struct Lost<'a>(Option<&'a Inner>);

impl Lost<'_> {
    fn found(mut self) {
        self.0 = None;
    }
}

impl Drop for Lost<'_> {
    fn drop(&mut self) {
        if let Some(inner) = self.0 {
            let id = inner.id;
            let reason =
                format!("a write of transaction {id} got no answer: it can only be aborted, run it again");
            lock(&inner.doom).get_or_insert_with(|| Error::conflict(reason));
        }
    }
}

fn value(response: TxnResponse) -> Result<Option<Versioned>, Error> {
    match response {
        TxnResponse::Value(found) => Ok(found),
        other => Err(mismatch(&Response::Txn(other))),
    }
}

fn done(response: TxnResponse) -> Result<(), Error> {
    match response {
        TxnResponse::Done => Ok(()),
        other => Err(mismatch(&Response::Txn(other))),
    }
}
