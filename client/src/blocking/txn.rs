//! Transactions that are waited for.

use super::{Client, wait};
use crate::txn::Runs;
use crate::{Condition, Error, Page, ScanRequest, Timestamp, TxnId, TxnOptions, Versioned};
use bytes::Bytes;
use std::sync::Arc;
use tokio::runtime::Runtime;

/// A [`Txn`](crate::Txn) whose calls wait. When it is dropped before a commit, it is aborted as soon as the client is
/// used again, or by its node when it has been idle for long enough.
pub struct Txn {
    /// None once it was taken, to be ended.
    txn: Option<crate::Txn>,
    runtime: Arc<Runtime>,
}

macro_rules! forwards {
    ($($name:ident($($arg:ident: $type:ty),*) -> $output:ty),* $(,)?) => {
        $(
            #[doc = concat!("See [`Txn::", stringify!($name), "`](crate::Txn::", stringify!($name), ").")]
            ///
            /// # Errors
            /// As there.
            pub fn $name(&self, $($arg: $type),*) -> Result<$output, Error> {
                wait(&self.runtime, self.txn().$name($($arg),*))
            }
        )*
    };
}

impl Txn {
    /// See [`Txn::id`](crate::Txn::id).
    pub fn id(&self) -> TxnId {
        self.txn().id()
    }

    /// See [`Txn::read_at`](crate::Txn::read_at).
    pub fn read_at(&self) -> Timestamp {
        self.txn().read_at()
    }

    /// See [`Txn::with_keyspace`](crate::Txn::with_keyspace).
    #[must_use]
    pub fn with_keyspace(&self, keyspace: impl Into<String>) -> Self {
        Self { txn: Some(self.txn().with_keyspace(keyspace)), runtime: self.runtime.clone() }
    }

    forwards! {
        get(key: impl AsRef<[u8]>) -> Option<Versioned>,
        get_for_update(key: impl AsRef<[u8]>) -> Option<Versioned>,
        lock(key: impl AsRef<[u8]>) -> (),
        exists(key: impl AsRef<[u8]>) -> Option<Timestamp>,
        put(key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> (),
        put_if(key: impl AsRef<[u8]>, value: impl Into<Bytes>, condition: Condition) -> (),
        delete(key: impl AsRef<[u8]>) -> (),
        delete_if(key: impl AsRef<[u8]>, condition: Condition) -> (),
        scan(scan: ScanRequest) -> Page,
    }

    /// See [`Txn::commit`](crate::Txn::commit).
    ///
    /// # Errors
    /// As there.
    pub fn commit(mut self) -> Result<Timestamp, Error> {
        let txn = self.take();
        wait(&self.runtime, txn.commit())
    }

    /// See [`Txn::abort`](crate::Txn::abort).
    ///
    /// # Errors
    /// As there.
    pub fn abort(mut self) -> Result<(), Error> {
        let txn = self.take();
        wait(&self.runtime, txn.abort())
    }

    fn txn(&self) -> &crate::Txn {
        self.txn.as_ref().expect("only taken by what consumes the handle")
    }

    fn take(&mut self) -> crate::Txn {
        self.txn.take().expect("only taken by what consumes the handle")
    }
}

impl Drop for Txn {
    fn drop(&mut self) {
        // Within the runtime, so that the abort can be queued there.
        let _entered = self.runtime.enter();
        drop(self.txn.take());
    }
}

impl Client {
    /// See [`Client::begin`](crate::Client::begin).
    ///
    /// # Errors
    /// As there.
    pub fn begin(&self) -> Result<Txn, Error> {
        self.begin_with(TxnOptions::default())
    }

    /// See [`Client::begin_with`](crate::Client::begin_with).
    ///
    /// # Errors
    /// As there.
    pub fn begin_with(&self, options: TxnOptions) -> Result<Txn, Error> {
        Ok(self.hold(wait(&self.runtime, self.client.begin_with(options))?))
    }

    /// See [`Client::transact`](crate::Client::transact).
    ///
    /// # Errors
    /// As there.
    pub fn transact<T>(&self, run: impl FnMut(&Txn) -> Result<T, Error>) -> Result<T, Error> {
        self.transact_with(TxnOptions::default(), run)
    }

    /// See [`Client::transact_with`](crate::Client::transact_with).
    ///
    /// # Errors
    /// As there.
    pub fn transact_with<T>(
        &self,
        options: TxnOptions,
        mut run: impl FnMut(&Txn) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut runs = Runs::new(&self.client, options);
        loop {
            let mut txn = self.hold(wait(&self.runtime, runs.begin())?);
            let result = run(&txn);
            let txn = txn.take();
            if let Some(result) = wait(&self.runtime, runs.end(txn, result)) {
                return result;
            }
        }
    }

    fn hold(&self, txn: crate::Txn) -> Txn {
        Txn { txn: Some(txn), runtime: self.runtime.clone() }
    }
}
