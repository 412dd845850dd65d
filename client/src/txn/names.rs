//! Names for batches: timestamps that nobody else gets, fetched many at a time.
//!
//! A batch is named before it is sent, so that its outcome can be asked for when its answer is lost. The name is a
//! transaction's id: a timestamp from here, and the node that the batch goes to. Names come from any node, in one
//! request for [`AT_ONCE`] batches; they are good for 24 seconds, so a client that sends a batch now and then
//! pays one round trip more for each.

use super::ask;
use crate::dispatch::{Dispatch, mismatch};
use crate::routing::Target;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use trandb_cluster::limits::TXN_NAME_MS_MAX;
use trandb_cluster::txn::{TxnRequest, TxnResponse};
use trandb_cluster::wire::Response;
use trandb_cluster::{Error, Timestamp};

/// How many are fetched at once.
const AT_ONCE: u32 = 256;

/// How long one is used after it was asked for: the batch may have to wait for its turn in the node.
const GOOD: Duration = Duration::from_millis(TXN_NAME_MS_MAX / 2);

/// Names that are ready; all clones of a client share them.
#[derive(Default)]
pub(crate) struct Names(tokio::sync::Mutex<Ready>);

#[derive(Default)]
struct Ready {
    next: Timestamp,
    left: u32,
    good_until: Option<Instant>,
}

impl Ready {
    fn pop(&mut self) -> Option<Timestamp> {
        if self.left == 0 || self.good_until.is_none_or(|until| Instant::now() >= until) {
            return None;
        }
        let name = self.next;
        self.next = name.plus(1);
        self.left -= 1;
        Some(name)
    }
}

impl Names {
    /// The next one. Those who find none wait for one request together.
    pub(super) async fn take(&self, dispatch: &Arc<Dispatch>, deadline: Instant) -> Result<Timestamp, Error> {
        let late = || Error::unavailable("no name for the batch was got in time");
        let mut ready = timeout_at(deadline, self.0.lock()).await.map_err(|_| late())?;
        if let Some(name) = ready.pop() {
            return Ok(name);
        }
        let asked = Instant::now();
        match ask(dispatch, TxnRequest::Names { count: AT_ONCE }, Target::Any, deadline, None).await? {
            TxnResponse::Names { first, count } => {
                *ready = Ready { next: first.begin, left: count, good_until: Some(asked + GOOD) };
                ready.pop().ok_or_else(late)
            }
            other => Err(mismatch(&Response::Txn(other))),
        }
    }
}
