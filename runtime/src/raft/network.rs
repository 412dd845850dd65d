//! Raft's calls as messages to the same group's actor on another node.

use super::beats::{Beat, Heartbeats};
use super::commits::CommitsAlong;
use super::machine::SnapshotData;
use super::message::{AppendCall, RaftMessage, SnapshotPart, TransferCall, VoteCall};
use super::types::{TypeConfig, Vote};
use crate::pace::reach;
use crate::peer::PeerHub;
use crate::rpc::{Reply, RpcError};
use futures_util::Stream;
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::{SnapshotOf, VoteOf};
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::{NodeId, PartitionId};

/// How long one snapshot chunk may take: a few megabytes over a slow link.
const SNAPSHOT_CHUNK_DEADLINE: Duration = Duration::from_secs(20);

/// How long a snapshot whose stream broke is held on to, so that it can go on where it was. A receiver that was started
/// anew refuses the next part, and a new stream begins at once.
pub const SNAPSHOT_RESUME_MAX: Duration = Duration::from_secs(60);

/// Between two attempts to go on.
const SNAPSHOT_RESUME_PAUSE: Duration = Duration::from_millis(250);

/// The least time that entries are given to arrive and become durable. A heartbeat's own limit is far
/// shorter, but large entries on a slow link must not be sent again and again.
const APPEND_DEADLINE_MIN: Duration = Duration::from_secs(5);

/// Makes one `PeerClient` per peer for a group.
#[derive(Clone)]
pub struct PeerNetwork {
    hub: PeerHub,
    heartbeats: Heartbeats,
    group: PartitionId,
    actor: String,
}

impl PeerNetwork {
    /// A network for `group` over this node's links, whose groups share `heartbeats`.
    pub fn new(hub: PeerHub, heartbeats: Heartbeats, group: PartitionId) -> Self {
        Self { hub, heartbeats, group, actor: format!("{group}/raft") }
    }
}

impl RaftNetworkFactory<TypeConfig> for PeerNetwork {
    type Network = PeerClient;

    async fn new_client(&mut self, target: u64, _node: &()) -> PeerClient {
        PeerClient { network: self.clone(), target: NodeId(target), transfers: 0 }
    }
}

/// Raft's line to one peer.
pub struct PeerClient {
    network: PeerNetwork,
    target: NodeId,
    transfers: u64,
}

impl PeerClient {
    async fn call<T>(
        &self,
        deadline: Duration,
        weight: usize,
        make: impl FnOnce(Reply<Result<T, String>>) -> RaftMessage,
    ) -> Result<T, RPCError<TypeConfig>>
    where
        T: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
    {
        let PeerNetwork { hub, actor, .. } = &self.network;
        outcome(hub.call(self.target, actor, deadline, weight, make).await)
    }
}

/// A call's outcome in Raft's words.
fn outcome<T>(called: Result<Result<T, String>, RpcError>) -> Result<T, RPCError<TypeConfig>> {
    match called {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(refusal)) => Err(RPCError::Network(NetworkError::from_string(refusal))),
        Err(error @ RpcError::Timeout) => Err(RPCError::Network(NetworkError::from_string(error))),
        Err(error) => Err(RPCError::Unreachable(Unreachable::from_string(error))),
    }
}

/// What became of a stream of appends, one after the other.
type AppendsAnswered<'s> =
    Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>, RPCError<TypeConfig>>;

fn weigh(request: &AppendEntriesRequest<TypeConfig>) -> usize {
    request.entries.iter().fold(256, |sum, entry| {
        sum + 64
            + match &entry.payload {
                openraft::EntryPayload::Normal(proposal) => proposal.0.len(),
                _ => 256,
            }
    })
}

impl RaftNetworkV2<TypeConfig> for PeerClient {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut deadline = option.hard_ttl().max(APPEND_DEADLINE_MIN);
        if request.entries.is_empty() {
            deadline = option.hard_ttl();
            let beat = Beat { group: self.network.group, request: request.clone() };
            match self.network.heartbeats.send(self.target, beat, deadline).await {
                Ok(Some(answer)) => return outcome(Ok(answer)),
                Err(error) => return outcome(Err(error)),
                // Slow or just starting: it is asked by itself.
                Ok(None) => {}
            }
        }
        let weight = weigh(&request);
        self.call(deadline, weight, |reply| RaftMessage::Append(AppendCall(request), reply)).await
    }

    fn stream_append<'s, S>(&'s mut self, appends: S, option: RPCOption) -> BoxFuture<'s, AppendsAnswered<'s>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        stream_append_sequential(self, CommitsAlong::new(appends), option)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let call = VoteCall { request, pre: false };
        self.call(option.hard_ttl(), 256, |reply| RaftMessage::Vote(call, reply)).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let call = VoteCall { request, pre: true };
        self.call(option.hard_ttl(), 256, |reply| RaftMessage::Vote(call, reply)).await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        self.transfers += 1;
        let sending = self.send_snapshot(vote, snapshot);
        tokio::pin!(sending, cancel);
        tokio::select! {
            biased;
            closed = &mut cancel => Err(StreamingError::Closed(closed)),
            sent = &mut sending => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let call = TransferCall {
            from: *request.from_leader(),
            to: *request.to_node_id(),
            last_log_id: request.last_log_id().copied(),
        };
        self.call(option.hard_ttl(), 256, |reply| RaftMessage::Transfer(call, reply)).await
    }
}

impl PeerClient {
    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let unreachable = |what: String| StreamingError::Unreachable(Unreachable::from_string(what));
        let SnapshotData::Source(source) = snapshot.snapshot else {
            return Err(unreachable("only a received snapshot is at hand".into()));
        };
        for sequence in 0.. {
            if sequence == 1 {
                reach("snapshot-going");
            }
            let (data, last) = source.next_chunk().await.map_err(|error| unreachable(error.to_string()))?;
            let part = SnapshotPart {
                transfer: self.transfers,
                sequence,
                vote,
                last_log_id: snapshot.meta.last_log_id,
                membership: snapshot.meta.last_membership.clone(),
                data,
                last,
            };
            let answer = self.send_part(part).await.map_err(|error| match error {
                RPCError::Unreachable(error) => StreamingError::Unreachable(error),
                RPCError::Network(error) => StreamingError::Network(error),
                RPCError::Timeout(error) => StreamingError::Timeout(error),
                other => unreachable(other.to_string()),
            })?;
            match (answer, last) {
                (Some(response), _) => return Ok(response),
                (None, true) => return Err(unreachable("the last chunk was not answered".into())),
                (None, false) => {}
            }
        }
        unreachable!("the loop returns")
    }

    /// Sends a part until the receiver has it, or is gone for long. The first one is sent once: with nothing taken there is
    /// nothing to go on with, and whoever comes back later is better served by a newer snapshot, which needs no second one after
    /// it. So is the last one: whether it was taken is seen by what the follower answers next.
    async fn send_part(
        &self,
        part: SnapshotPart,
    ) -> Result<Option<SnapshotResponse<TypeConfig>>, RPCError<TypeConfig>> {
        let PeerNetwork { hub, actor, group, .. } = &self.network;
        let bytes = part.data.len();
        let labels = [("partition", group.0.to_string())];
        let mut broke: Option<Instant> = None;
        loop {
            let call = part.clone();
            let called = hub
                .call(self.target, actor, SNAPSHOT_CHUNK_DEADLINE, bytes + 256, |reply| {
                    RaftMessage::Snapshot(call, reply)
                })
                .await;
            if matches!(called, Ok(Ok(_))) {
                metrics::counter!("trandb_raft_snapshot_sent_bytes_total", &labels).increment(bytes as u64);
                if broke.is_some() {
                    metrics::counter!("trandb_raft_snapshots_resumed_total", &labels).increment(1);
                }
            }
            let passes = matches!(
                called,
                Err(RpcError::Unreachable | RpcError::Timeout | RpcError::Lost | RpcError::Overloaded)
            );
            let since = *broke.get_or_insert_with(Instant::now);
            if part.sequence == 0 || part.last || !passes || since.elapsed() >= SNAPSHOT_RESUME_MAX {
                return outcome(called);
            }
            tokio::time::sleep(SNAPSHOT_RESUME_PAUSE).await;
        }
    }
}
