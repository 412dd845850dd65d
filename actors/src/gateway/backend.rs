//! What the gateways ask of the database, as a port: the doors are tested against a map in memory, and the
//! node's [`Database`] stands behind it in production. Calls are per batch, so a boxed future costs nothing
//! that would show.

use crate::database::{Database, OpReply, Readiness, RequestContext};
use futures_util::future::BoxFuture;
use trandb_cluster::txn::{TxnRequest, TxnResponse};
use trandb_cluster::wire::{CheckpointReport, ClusterView, KeyOp, Page, ScanRequest, Topology, VerifyReport};
use trandb_cluster::{ClusterId, Error, KeyspaceId, NodeId, TxnId};
#[cfg(debug_assertions)]
use trandb_cluster::{EncodedKey, PartitionId};

/// See the methods of the same names of [`Database`].
pub(crate) trait Backend: Send + Sync + 'static {
    fn keyspace(&self, name: Option<&str>) -> Result<KeyspaceId, Error>;
    fn execute(&self, ops: Vec<KeyOp>, context: RequestContext) -> BoxFuture<'static, Vec<OpReply>>;
    fn scan(&self, scan: ScanRequest, context: RequestContext) -> BoxFuture<'static, Result<Page, Error>>;
    fn txn(
        &self,
        request: TxnRequest,
        context: RequestContext,
    ) -> BoxFuture<'static, Result<TxnResponse, Error>>;
    /// The connection that used these has ended.
    fn leave(&self, txns: Vec<TxnId>);
    fn verify(&self, context: RequestContext) -> BoxFuture<'static, Result<VerifyReport, Error>>;
    fn checkpoint(&self, context: RequestContext) -> BoxFuture<'static, Result<CheckpointReport, Error>>;
    fn topology(&self) -> Topology;
    fn cluster_view(&self) -> ClusterView;
    fn readiness(&self) -> Readiness;
    fn node(&self) -> NodeId;
    fn cluster_id(&self) -> Option<ClusterId>;
    /// Debug builds only.
    #[cfg(debug_assertions)]
    fn panic_partition(&self, _partition: PartitionId) -> Result<(), Error> {
        Err(Error::not_found("there are no actors here"))
    }
    /// Debug builds only.
    #[cfg(debug_assertions)]
    fn flip_byte(&self, _key: EncodedKey, _with_digest: bool) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async { Err(Error::not_found("there is no memory here")) })
    }
}

impl Backend for Database {
    fn keyspace(&self, name: Option<&str>) -> Result<KeyspaceId, Error> {
        Database::keyspace(self, name)
    }

    fn execute(&self, ops: Vec<KeyOp>, context: RequestContext) -> BoxFuture<'static, Vec<OpReply>> {
        let database = self.clone();
        Box::pin(async move { Database::execute(&database, ops, &context).await })
    }

    fn scan(&self, scan: ScanRequest, context: RequestContext) -> BoxFuture<'static, Result<Page, Error>> {
        let database = self.clone();
        Box::pin(async move { Database::scan(&database, scan, &context).await })
    }

    fn txn(
        &self,
        request: TxnRequest,
        context: RequestContext,
    ) -> BoxFuture<'static, Result<TxnResponse, Error>> {
        let database = self.clone();
        Box::pin(async move { Database::txn(&database, request, &context).await })
    }

    fn leave(&self, txns: Vec<TxnId>) {
        Database::leave(self, txns);
    }

    fn verify(&self, context: RequestContext) -> BoxFuture<'static, Result<VerifyReport, Error>> {
        let database = self.clone();
        Box::pin(async move { Database::verify(&database, &context).await })
    }

    fn checkpoint(&self, context: RequestContext) -> BoxFuture<'static, Result<CheckpointReport, Error>> {
        let database = self.clone();
        Box::pin(async move { Database::checkpoint(&database, &context).await })
    }

    fn topology(&self) -> Topology {
        Database::topology(self)
    }

    fn cluster_view(&self) -> ClusterView {
        Database::cluster_view(self)
    }

    fn readiness(&self) -> Readiness {
        Database::readiness(self)
    }

    fn node(&self) -> NodeId {
        Database::node(self)
    }

    fn cluster_id(&self) -> Option<ClusterId> {
        Database::cluster_id(self)
    }

    #[cfg(debug_assertions)]
    fn panic_partition(&self, partition: PartitionId) -> Result<(), Error> {
        Database::panic_partition(self, partition)
    }

    #[cfg(debug_assertions)]
    fn flip_byte(&self, key: EncodedKey, with_digest: bool) -> BoxFuture<'static, Result<(), Error>> {
        let database = self.clone();
        Box::pin(async move { Database::flip_byte(&database, key, with_digest).await })
    }
}
