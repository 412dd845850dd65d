//! Transactions that are run until they come through.

use super::{Pace, Txn, TxnOptions};
use crate::client::Client;
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::{Error, ErrorCode};

impl Client {
    /// Runs `run` within a strictly serializable transaction and commits it. When it loses a conflict, or its node is
    /// lost, all of it is run again, after a pause, until the client's timeout is over. So `run` may be called several
    /// times; what it returns at last is what was committed. A `run` that has aborted the transaction itself decides what
    /// is returned.
    ///
    /// ```no_run
    /// # async fn example(client: trandb_client::Client) -> Result<(), trandb_client::Error> {
    /// let visits = client
    ///     .transact(|txn| async move {
    ///         let found = txn.get("visits").await?;
    ///         let visits = found.map_or(0, |found| found.value.iter().fold(0, |n, d| n * 10 + u64::from(d - b'0')));
    ///         txn.put("visits", (visits + 1).to_string()).await?;
    ///         Ok(visits + 1)
    ///     })
    ///     .await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// What `run` returns, if another run could not help: the transaction is aborted then. `conflict`, `unavailable` or
    /// `overloaded` when no run came through in time; nothing was written. `unknown` only if the outcome of a
    /// commit could not be learned in time.
    pub async fn transact<T, F, Fut>(&self, run: F) -> Result<T, Error>
    where
        F: FnMut(Txn) -> Fut,
        Fut: Future<Output = Result<T, Error>>,
    {
        self.transact_with(TxnOptions::default(), run).await
    }

    /// The same with a transaction of another kind.
    ///
    /// # Errors
    /// As [`transact`](Self::transact).
    pub async fn transact_with<T, F, Fut>(&self, options: TxnOptions, mut run: F) -> Result<T, Error>
    where
        F: FnMut(Txn) -> Fut,
        Fut: Future<Output = Result<T, Error>>,
    {
        let mut runs = Runs::new(self, options);
        loop {
            let txn = runs.begin().await?;
            let result = run(txn.clone()).await;
            if let Some(result) = runs.end(txn, result).await {
                return result;
            }
        }
    }
}

/// The part of its time that a transaction or batch does not begin another run in: what the last one's commit came to
/// may have to be asked for, while nodes look for a new leader.
const SETTLING: u32 = 8;

/// Until when another run of what has to be done by `deadline`, within `timeout`, may begin.
pub(super) fn again_until(deadline: Instant, timeout: Duration) -> Instant {
    deadline - timeout / SETTLING
}

/// The runs of one transaction, one after the other.
pub(crate) struct Runs {
    client: Client,
    options: TxnOptions,
    deadline: Instant,
    again_until: Instant,
    runs: u32,
}

impl Runs {
    pub(crate) fn new(client: &Client, options: TxnOptions) -> Self {
        let deadline = Instant::now() + client.timeout;
        let again_until = again_until(deadline, client.timeout);
        Self { client: client.clone(), options, deadline, again_until, runs: 0 }
    }

    /// Opens the next one.
    pub(crate) async fn begin(&mut self) -> Result<Txn, Error> {
        let run = self.runs;
        self.runs += 1;
        let attempt = self.client.dispatch.options.attempt_timeout;
        self.client.open(self.options, run, Pace::Until(self.deadline, attempt)).await
    }

    /// Commits it, if `result` says so. None after the pause when it is to be run again.
    pub(crate) async fn end<T>(&mut self, txn: Txn, result: Result<T, Error>) -> Option<Result<T, Error>> {
        let error = match result {
            Ok(value) if txn.has_ended() => return Some(Ok(value)),
            Ok(value) => match txn.finish(self.deadline).await {
                Ok(_) => {
                    self.client.dispatch.transacted();
                    return Some(Ok(value));
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        // Before the pause, so that what it holds is free for others.
        drop(txn);
        // Of these each says that nothing was written.
        let again =
            matches!(error.code, ErrorCode::Conflict | ErrorCode::Unavailable | ErrorCode::Overloaded);
        let pause =
            again.then(|| self.client.dispatch.pause_after_conflict(self.runs, self.again_until)).flatten();
        match pause {
            Some(pause) => {
                tokio::time::sleep(pause).await;
                None
            }
            None => Some(Err(error)),
        }
    }
}
