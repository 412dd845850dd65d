//! What became of a transaction that no coordinator knows: the partitions are asked, all of them, by entries in their
//! logs. Where none has anything of it, none will ever commit it afterwards.

use crate::database::{Database, RequestContext};
use futures_util::future::try_join_all;
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::txn::{TxnApplied, TxnOutcome, TxnStep};
use trandb_cluster::{Error, TxnId};

/// How long until an undecided transaction is asked for again.
const AGAIN: Duration = Duration::from_millis(100);

impl Database {
    /// What became of a transaction, as its partitions say.
    ///
    /// # Errors
    /// `unavailable` when some partition does not answer within the deadline.
    pub(crate) async fn inquire(&self, txn: TxnId, request: &RequestContext) -> Result<TxnOutcome, Error> {
        metrics::counter!("trandb_txn_inquiries_total").increment(1);
        loop {
            let asked = self.partitions().into_iter().map(|partition| async move {
                self.txn_step(partition, TxnStep::Inquire { txn }, request).await
            });
            let answers = try_join_all(asked).await.map_err(|error| {
                Error::unavailable(format!(
                    "not every partition said what became of {txn}: {}",
                    error.message
                ))
            })?;
            if answers.is_empty() {
                return Err(Error::unavailable("the partition map is not known yet"));
            }
            let committed = answers.iter().find_map(|answer| match answer {
                TxnApplied::Committed(at) => Some(*at),
                _ => None,
            });
            if let Some(at) = committed {
                return Ok(TxnOutcome::Committed(at));
            }
            let held = answers.iter().find_map(|answer| match answer {
                TxnApplied::Held { anchor, expires } => Some((*anchor, *expires)),
                _ => None,
            });
            let Some((anchor, expires)) = held else {
                if answers.iter().any(|answer| matches!(answer, TxnApplied::Forgotten)) {
                    return Ok(TxnOutcome::Unknown);
                }
                let why = answers.into_iter().find_map(|answer| match answer {
                    TxnApplied::Aborted(why) => Some(why),
                    _ => None,
                });
                return Ok(TxnOutcome::Aborted(why.unwrap_or_else(|| "nobody has heard of it".into())));
            };
            match self.txn_step(anchor, TxnStep::Push { txn, expires }, request).await? {
                TxnApplied::Committed(at) => return Ok(TxnOutcome::Committed(at)),
                TxnApplied::Aborted(why) => return Ok(TxnOutcome::Aborted(why)),
                _ => {}
            }
            if Instant::now() + AGAIN >= request.deadline {
                return Err(Error::unavailable(format!("{txn} is still being decided")));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}
