//! Verification: every replica's digest of every partition, compared at one log index.

use super::{Database, RequestContext};
use crate::partition::{DigestCall, DigestReply, PartitionMessage};
use futures_util::future::join_all;
use ractor::rpc::CallResult;
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::audit::Report;
use trandb_cluster::wire::{VerifiedPartition, VerifyReport};
use trandb_cluster::{Error, NodeId, PartitionId};
use trandb_runtime::rpc::Reply;

/// How long one replica may take to answer, the time it needs to catch up included.
const REPLICA_DEADLINE: Duration = Duration::from_secs(2);

impl Database {
    /// Compares all replicas of all partitions. Each partition is compared at the highest index that any of
    /// its replicas had applied when first asked; a replica that is behind is given time to get there.
    ///
    /// # Errors
    /// `unavailable` while the partition map is not known.
    pub async fn verify(&self, context: &RequestContext) -> Result<VerifyReport, Error> {
        let table = self.routes.borrow().table.clone();
        let partitions: Vec<(PartitionId, Vec<NodeId>)> =
            table.partitions().map(|route| (route.id, route.replicas.clone())).collect();
        if partitions.is_empty() {
            return Err(Error::unavailable("the partition map is not known yet"));
        }
        let deadline = context.deadline.min(Instant::now() + REPLICA_DEADLINE * 2);
        let verified = partitions
            .into_iter()
            .map(|(id, replicas)| async move { self.verify_partition(id, replicas, deadline).await });
        let partitions = join_all(verified).await;
        Ok(VerifyReport { identical: partitions.iter().all(|partition| partition.identical), partitions })
    }

    async fn verify_partition(
        &self,
        id: PartitionId,
        replicas: Vec<NodeId>,
        deadline: Instant,
    ) -> VerifiedPartition {
        let first = join_all(replicas.iter().map(|&node| self.digest(node, id, None))).await;
        let applied = first.iter().flatten().map(|reply| reply.applied).max().unwrap_or(0);
        let compared = join_all(replicas.iter().map(async |&node| {
            let reply = self.digest_at(node, id, applied, deadline).await?;
            // Its digest may be what was written, and say that all is well.
            if reply.sound {
                reply.digest.ok_or_else(String::new)
            } else {
                Err("it was found wrong: see its alarms".to_owned())
            }
        }))
        .await;
        let keys = compared.iter().flatten().map(|(_, keys)| *keys).max().unwrap_or(0);
        let mut digests = compared.iter().map(|result| result.as_ref().ok().map(|(digest, _)| *digest));
        let identical = match digests.next() {
            Some(Some(first)) => digests.all(|digest| digest == Some(first)),
            _ => false,
        };
        let replicas = replicas
            .into_iter()
            .zip(compared)
            .map(|(node, result)| (node, result.map(|(digest, _)| digest.to_string())))
            .collect();
        VerifiedPartition { id, applied, replicas, keys, identical }
    }

    /// What those replicas say of themselves at log index `at` that answer in time and still know it.
    pub(crate) async fn reports(
        &self,
        id: PartitionId,
        replicas: &[NodeId],
        at: u64,
        deadline: Instant,
    ) -> Vec<Report> {
        let report = async |&node: &NodeId| {
            let DigestReply { digest, sound, .. } = self.digest_at(node, id, at, deadline).await.ok()?;
            Some(Report { node, index: at, digest: digest?.0, sound })
        };
        join_all(replicas.iter().map(report)).await.into_iter().flatten().collect()
    }

    /// A reply with a digest at `at`; a replica that is behind is given time to get there.
    async fn digest_at(
        &self,
        node: NodeId,
        id: PartitionId,
        at: u64,
        deadline: Instant,
    ) -> Result<DigestReply, String> {
        loop {
            let reply = self.digest(node, id, Some(at)).await;
            let why = match reply {
                Ok(reply @ DigestReply { digest: Some(_), .. }) => return Ok(reply),
                Ok(DigestReply { applied, .. }) if applied > at => {
                    return Err(format!("has applied {applied} and does not remember {at}"));
                }
                Ok(DigestReply { applied, .. }) => format!("has applied {applied}, not yet {at}"),
                Err(why) => why,
            };
            if Instant::now() >= deadline {
                return Err(why);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn digest(&self, node: NodeId, id: PartitionId, at: Option<u64>) -> Result<DigestReply, String> {
        let make = |reply| PartitionMessage::Digest(DigestCall { at }, reply);
        if node != self.context.node {
            let name = id.to_string();
            return self
                .context
                .hub
                .call(node, &name, REPLICA_DEADLINE, 64, make)
                .await
                .map_err(|error| error.to_string());
        }
        let actor = self.context.partition(id).ok_or("no replica here")?;
        match actor.call(|port| make(Reply::Local(port)), Some(REPLICA_DEADLINE)).await {
            Ok(CallResult::Success(reply)) => Ok(reply),
            _ => Err("the partition's actor gave no answer".into()),
        }
    }
}
