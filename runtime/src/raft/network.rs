//! Raft's calls as messages to the same group's actor on another node.

use super::beats::{Beat, Heartbeats};
use super::commits::CommitsAlong;
use super::machine::SnapshotData;
use super::message::{AppendCall, RaftMessage, SnapshotPart, TransferCall, VoteCall};
use super::snapshots::{Snapshots, Turn};
use super::types::{LogId, TypeConfig, Vote};
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
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::{NodeId, PartitionId};

/// How long one snapshot chunk may take: a few megabytes over a slow link.
const SNAPSHOT_CHUNK_DEADLINE: Duration = Duration::from_secs(20);

/// How fast a receiver writes a state at the least. One that took longer would be sent another for ever.
const INSTALL_BYTES_PER_SECOND: u64 = 4 << 20;

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
    snapshots: Snapshots,
    group: PartitionId,
    actor: String,
    reverted: Reverted,
}

/// Told of a peer whose log ends before what it had acknowledged.
pub type Reverted = Arc<dyn Fn(NodeId) + Send + Sync>;

impl PeerNetwork {
    /// A network for `group` over this node's links, whose groups share `heartbeats` and `snapshots`.
    pub fn new(
        hub: PeerHub,
        heartbeats: Heartbeats,
        snapshots: Snapshots,
        group: PartitionId,
        reverted: Reverted,
    ) -> Self {
        Self { hub, heartbeats, snapshots, group, actor: format!("{group}/raft"), reverted }
    }
}

impl RaftNetworkFactory<TypeConfig> for PeerNetwork {
    type Network = PeerClient;

    async fn new_client(&mut self, target: u64, _node: &()) -> PeerClient {
        PeerClient { network: self.clone(), target: NodeId(target), turn: None, acked: None }
    }
}

/// Raft's line to one peer.
pub struct PeerClient {
    network: PeerNetwork,
    target: NodeId,
    /// The turn that it waited for, for the snapshot that it sends next. Each snapshot has a line of its own in Raft, which asks
    /// anew when its backoff is over, or drops it, and the turn with it.
    turn: Option<Turn>,
    /// The last entry that the peer acknowledged over this line, and to which leader.
    acked: Option<(Vote, u64)>,
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

    async fn append(
        &self,
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
}

/// Whether a peer that finds no entry at `prev` has lost it: it acknowledged one there or behind it to the same leader, and no
/// other may take it back from it while that one leads.
fn has_reverted(acked: Option<(Vote, u64)>, vote: Vote, prev: Option<LogId>) -> bool {
    let Some(((to, acked), prev)) = acked.zip(prev) else { return false };
    to == vote && prev.index <= acked
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
        let (vote, prev) = (request.vote, request.prev_log_id);
        let last = request.entries.last().map(|entry| entry.log_id).or(prev);
        let answer = self.append(request, option).await?;
        match &answer {
            AppendEntriesResponse::Success => self.acked = last.map(|last| (vote, last.index)),
            AppendEntriesResponse::PartialSuccess(upto) => self.acked = upto.map(|upto| (vote, upto.index)),
            AppendEntriesResponse::Conflict if has_reverted(self.acked, vote, prev) => {
                (self.network.reverted)(self.target);
            }
            _ => {}
        }
        Ok(answer)
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
        let sending = self.send_in_turn(vote, snapshot);
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

fn unreachable(what: &str) -> StreamingError<TypeConfig> {
    StreamingError::Unreachable(Unreachable::from_string(what))
}

impl PeerClient {
    /// Sends the snapshot if it is this group's turn. Else waits for that without it, and has Raft ask for a new one.
    async fn send_in_turn(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let PeerNetwork { snapshots, group, .. } = &self.network;
        // The system group's is small, and says where everything is.
        if !group.is_system() && self.turn.is_none() {
            self.turn = snapshots.try_turn(self.target);
            if self.turn.is_none() {
                drop(snapshot);
                self.turn = snapshots.turn(self.target).await;
                return Err(unreachable("other snapshots were sent to it"));
            }
        }
        let _turn = self.turn.take();
        self.send_snapshot(vote, snapshot).await
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let SnapshotData::Source(source) = snapshot.snapshot else {
            return Err(unreachable("only a received snapshot is at hand"));
        };
        let transfer = self.network.snapshots.begin(self.network.group, self.target);
        let mut sent = 0;
        for sequence in 0.. {
            if sequence == 1 {
                reach("snapshot-going");
            }
            let (data, last) = source.next_chunk().await.map_err(|error| unreachable(&error.to_string()))?;
            let bytes = data.len();
            sent += bytes as u64;
            let deadline = if last { install_deadline(sent) } else { SNAPSHOT_CHUNK_DEADLINE };
            let part = SnapshotPart {
                transfer: transfer.number,
                sequence,
                vote,
                last_log_id: snapshot.meta.last_log_id,
                membership: snapshot.meta.last_membership.clone(),
                data,
                last,
            };
            let answer = self.send_part(part, deadline).await.map_err(|error| match error {
                RPCError::Unreachable(error) => StreamingError::Unreachable(error),
                RPCError::Network(error) => StreamingError::Network(error),
                RPCError::Timeout(error) => StreamingError::Timeout(error),
                other => unreachable(&other.to_string()),
            })?;
            let rest = transfer.sent(bytes);
            match (answer, last) {
                (Some(response), _) => {
                    transfer.installed();
                    return Ok(response);
                }
                (None, true) => return Err(unreachable("the last chunk was not answered")),
                (None, false) => tokio::time::sleep(rest).await,
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
        deadline: Duration,
    ) -> Result<Option<SnapshotResponse<TypeConfig>>, RPCError<TypeConfig>> {
        let PeerNetwork { hub, actor, group, .. } = &self.network;
        let bytes = part.data.len();
        let once = part.sequence == 0 || part.last;
        let send = || {
            let call = part.clone();
            let make = |reply| RaftMessage::Snapshot(call, reply);
            hub.call(self.target, actor, deadline, bytes + 256, make)
        };
        let (called, resumed) = if once { (send().await, false) } else { until_it_passes(send).await };
        if matches!(called, Ok(Ok(_))) {
            let labels = [("partition", group.0.to_string())];
            metrics::counter!("trandb_raft_snapshot_sent_bytes_total", &labels).increment(bytes as u64);
            metrics::counter!("trandb_raft_snapshots_resumed_total", &labels).increment(u64::from(resumed));
        }
        outcome(called)
    }
}

/// Calls until there is an answer, or another call would have none either, or [`SNAPSHOT_RESUME_MAX`] after the first that had
/// none; and says whether there was such a one.
async fn until_it_passes<T, F>(mut call: impl FnMut() -> F) -> (Result<T, RpcError>, bool)
where
    F: Future<Output = Result<T, RpcError>>,
{
    let mut broke: Option<Instant> = None;
    loop {
        let called = call().await;
        let passes = matches!(
            called,
            Err(RpcError::Unreachable | RpcError::Timeout | RpcError::Lost | RpcError::Overloaded)
        );
        if !passes {
            return (called, broke.is_some());
        }
        if broke.get_or_insert_with(Instant::now).elapsed() >= SNAPSHOT_RESUME_MAX {
            return (called, true);
        }
        tokio::time::sleep(SNAPSHOT_RESUME_PAUSE).await;
    }
}

/// How long the last part of a snapshot of so many bytes may take: it is answered when all of it is written.
fn install_deadline(bytes: u64) -> Duration {
    SNAPSHOT_CHUNK_DEADLINE + Duration::from_secs(bytes / INSTALL_BYTES_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::super::log::log_id;
    use super::*;

    /// Calls that have no answer for so long; what came of them, after how long.
    async fn broken_for(broken: Duration, error: RpcError) -> (Result<(), RpcError>, bool, Duration) {
        let began = Instant::now();
        let call = || std::future::ready(if began.elapsed() < broken { Err(error) } else { Ok(()) });
        let (called, resumed) = until_it_passes(call).await;
        (called, resumed, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_is_sent_again_for_as_long_as_a_receiver_may_be_gone_and_no_longer() {
        let (called, resumed, _) = broken_for(Duration::ZERO, RpcError::Lost).await;
        assert!(called.is_ok() && !resumed);
        for error in [RpcError::Unreachable, RpcError::Timeout, RpcError::Lost, RpcError::Overloaded] {
            let (called, resumed, took) = broken_for(SNAPSHOT_RESUME_MAX, error).await;
            assert!(called.is_ok() && resumed, "back at the last moment");
            assert!(took >= SNAPSHOT_RESUME_MAX);
            let (called, resumed, took) = broken_for(SNAPSHOT_RESUME_MAX * 2, error).await;
            assert!(called.is_err_and(|last| last == error) && resumed);
            assert!(
                (SNAPSHOT_RESUME_MAX..SNAPSHOT_RESUME_MAX + SNAPSHOT_RESUME_PAUSE).contains(&took),
                "{took:?}"
            );
        }
        let (called, _, took) = broken_for(SNAPSHOT_RESUME_MAX, RpcError::Decode).await;
        assert!(called.is_err() && took.is_zero(), "nothing will be other than it is");
    }

    #[test]
    fn a_large_state_has_the_time_to_be_written() {
        assert_eq!(install_deadline(0), SNAPSHOT_CHUNK_DEADLINE);
        let gigabyte = install_deadline(1 << 30);
        assert!((Duration::from_secs(120)..Duration::from_secs(600)).contains(&gigabyte), "{gigabyte:?}");
    }

    #[test]
    fn only_what_was_acknowledged_to_the_same_leader_can_be_lost() {
        let leads = |term| Vote::new_committed(term, 1);
        let at = |index| Some(log_id(3, index));
        let acked = Some((leads(3), 7));
        assert!(has_reverted(acked, leads(3), at(7)) && has_reverted(acked, leads(3), at(5)));
        assert!(!has_reverted(acked, leads(3), at(8)), "it has not heard of that one yet");
        assert!(!has_reverted(acked, leads(4), at(7)), "a leader between the two may have taken it back");
        assert!(!has_reverted(acked, leads(3), None), "that is no conflict");
        assert!(!has_reverted(None, leads(3), at(7)));
    }
}
