//! Transactions, from any node.

use super::{Database, RequestContext};
use trandb_cluster::Error;
use trandb_cluster::txn::{TxnRequest, TxnResponse};

impl Database {
    /// Does what is asked of transactions.
    ///
    /// # Errors
    /// Always `unavailable`, until coordinators exist.
    pub async fn txn(&self, _request: TxnRequest, _context: &RequestContext) -> Result<TxnResponse, Error> {
        Err(Error::unavailable("transactions are not built yet"))
    }
}
