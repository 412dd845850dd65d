//! What the HTTP door answers from while there is no database yet: why there is none.

use super::backend::Backend;
use crate::database::{OpReply, Readiness, RequestContext};
use futures_util::future::{BoxFuture, ready};
use trandb_cluster::txn::{TxnRequest, TxnResponse};
use trandb_cluster::wire::{CheckpointReport, ClusterView, KeyOp, Page, ScanRequest, Topology, VerifyReport};
use trandb_cluster::{ClusterId, Error, KeyspaceId, NodeId, TxnId};

/// A node that waits for something before it starts.
pub(super) struct Waiting {
    /// What for.
    pub(super) why: String,
}

impl Waiting {
    fn refusal(&self) -> Error {
        Error::unavailable(self.why.clone())
    }

    fn refuse<T: Send + 'static>(&self) -> BoxFuture<'static, Result<T, Error>> {
        Box::pin(ready(Err(self.refusal())))
    }
}

impl Backend for Waiting {
    fn keyspace(&self, _name: Option<&str>) -> Result<KeyspaceId, Error> {
        Err(self.refusal())
    }

    fn execute(&self, ops: Vec<KeyOp>, _context: RequestContext) -> BoxFuture<'static, Vec<OpReply>> {
        let refused = ops.iter().map(|_| OpReply { result: Err(self.refusal()), forwarded: false }).collect();
        Box::pin(ready(refused))
    }

    fn scan(&self, _scan: ScanRequest, _context: RequestContext) -> BoxFuture<'static, Result<Page, Error>> {
        self.refuse()
    }

    fn txn(
        &self,
        _request: TxnRequest,
        _context: RequestContext,
    ) -> BoxFuture<'static, Result<TxnResponse, Error>> {
        self.refuse()
    }

    fn leave(&self, _txns: Vec<TxnId>) {}

    fn verify(&self, _context: RequestContext) -> BoxFuture<'static, Result<VerifyReport, Error>> {
        self.refuse()
    }

    fn checkpoint(&self, _context: RequestContext) -> BoxFuture<'static, Result<CheckpointReport, Error>> {
        self.refuse()
    }

    fn topology(&self) -> Topology {
        Topology::default()
    }

    fn cluster_view(&self) -> ClusterView {
        ClusterView::default()
    }

    fn readiness(&self) -> Readiness {
        Readiness { ready: false, reasons: vec![self.why.clone()], details: Vec::new() }
    }

    fn node(&self) -> NodeId {
        NodeId(0)
    }

    fn cluster_id(&self) -> Option<ClusterId> {
        None
    }
}
