//! Checkpoints on demand: before a node is stopped for long, or its disk copied.

use super::{Database, RequestContext};
use crate::control::{ControlAnswer, ControlCall, ControlMessage};
use futures_util::future::join_all;
use tokio::time::Instant;
use trandb_cluster::wire::CheckpointReport;
use trandb_cluster::{Error, NodeId, PartitionId};

/// Bytes that a question takes, for the budget of calls to a peer.
const CALL_BYTES: usize = 64;

impl Database {
    /// Has every replica of every partition write a checkpoint that holds all it has applied by now. A node writes one
    /// at a time, so this takes as long as all of them.
    ///
    /// # Errors
    /// `unavailable` while the partition map is not known.
    pub async fn checkpoint(&self, context: &RequestContext) -> Result<CheckpointReport, Error> {
        let table = self.routes.borrow().table.clone();
        let places: Vec<(PartitionId, NodeId)> = table
            .partitions()
            .flat_map(|route| route.replicas.iter().map(|&node| (route.id, node)).collect::<Vec<_>>())
            .collect();
        if places.is_empty() {
            return Err(Error::unavailable("the partition map is not known yet"));
        }
        let asked = places.into_iter().map(|(id, node)| async move {
            (id, node, self.checkpoint_at(node, id, context.deadline).await)
        });
        let replicas = join_all(asked).await;
        Ok(CheckpointReport { complete: replicas.iter().all(|(_, _, reached)| reached.is_ok()), replicas })
    }

    async fn checkpoint_at(
        &self,
        node: NodeId,
        group: PartitionId,
        deadline: Instant,
    ) -> Result<u64, String> {
        let within = deadline.saturating_duration_since(Instant::now());
        let within_ms = within.as_millis() as u64;
        let make = move |reply| ControlMessage::Control(ControlCall::Checkpoint { group, within_ms }, reply);
        match self.context.hub.call(node, "control", within, CALL_BYTES, make).await {
            Ok(Ok(ControlAnswer::Checkpointed(index))) => Ok(index),
            Ok(Ok(_)) => Err("an unexpected answer".to_owned()),
            Ok(Err(why)) => Err(why),
            Err(error) => Err(error.to_string()),
        }
    }
}
