//! A batch of writes on its way through Raft: proposed, awaited, its callers answered.

use super::leading::is_cut_off;
use super::message::{Answer, LocalPartition, PartitionMessage};
use super::writes::{Batch, Pending, Refusal, Work};
use crate::context::NodeContext;
use ractor::ActorRef;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tracing::Instrument;
use trandb_cluster::command::Applied;
use trandb_cluster::txn::{Blocker, TxnApplied, TxnStep};
use trandb_cluster::{Error, NodeId, PartitionId, Timestamp};
use trandb_runtime::pace::pace;
use trandb_runtime::planted::{Planted, is_planted};
use trandb_runtime::raft::{ClientWriteError, LogApplied, Proposal, Raft, RaftError};
use trandb_runtime::raft::{ServerState, WatchReceiver};

/// Proposes a batch and answers its callers when it is applied. Runs outside the actor and holds the
/// callers' reply ports, so it answers even if the actor dies meanwhile.
pub(super) async fn propose(
    context: Arc<NodeContext>,
    raft: Raft,
    partition: PartitionId,
    actor: ActorRef<PartitionMessage>,
    timestamp: Timestamp,
    gc_floor: Timestamp,
    batch: Batch,
) {
    let sequence = batch.sequence;
    let rest = propose_batch(&context, &raft, partition, timestamp, gc_floor, batch).await;
    // An actor that is gone has no use for it; the one after it waits for all that this one had in flight to end.
    let _ = actor.cast(PartitionMessage::Local(LocalPartition::Proposed { sequence, rest }));
}

/// What a proposal leaves to be done.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "part of the mailbox, which is public")]
pub enum Rest {
    /// Nothing.
    Nothing,
    /// Refused for a stale timestamp: all of it, again.
    Again(Batch),
    /// Transactions stood in the way of these.
    Blocked(Vec<BlockedWrites>),
}

/// A caller's writes that a transaction stands in the way of.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "part of the mailbox, which is public")]
pub struct BlockedWrites {
    pub(super) by: Blocker,
    pub(super) pending: Pending,
}

/// Waits for a proposal whose caller waits no more. It is done all the same if the others come back before they elect
/// another leader, and no snapshot above its timestamp may be read until then.
async fn outlast(raft: &Raft, look: Duration, mut proposing: Pin<&mut impl Future>) {
    if is_planted(Planted::ForgetInFlight) {
        return;
    }
    let term = raft.metrics().borrow_watched().current_term;
    let leads = || {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.state == ServerState::Leader && metrics.current_term == term
    };
    // The leader of a later term has applied what an earlier one left before it answers.
    while leads() && tokio::time::timeout(look, &mut proposing).await.is_err() {}
}

async fn propose_batch(
    context: &NodeContext,
    raft: &Raft,
    partition: PartitionId,
    timestamp: Timestamp,
    gc_floor: Timestamp,
    batch: Batch,
) -> Rest {
    let sequence = batch.sequence;
    let proposal = Proposal(batch.encode(timestamp, gc_floor));
    pace(context.node, "proposers").await;
    let began = Instant::now();
    // A leader that is cut off does not hear of its proposal's end; its caller is told that much.
    let proposed = {
        let proposing = raft.client_write(proposal).instrument(batch.proposal_span());
        tokio::pin!(proposing);
        loop {
            match tokio::time::timeout(context.lease() / 4, &mut proposing).await {
                Ok(proposed) => break proposed,
                Err(_) if is_cut_off(raft, context.lease()) => {
                    let error = format!("{partition} lost touch with its other replicas during the write");
                    batch.refuse(&Refusal::Failed(Error::unknown(error)));
                    outlast(raft, context.lease() / 4, proposing).await;
                    return Rest::Nothing;
                }
                Err(_) => {}
            }
        }
    };
    if proposed.is_ok() {
        context.gauges.proposed(batch.count(), began.elapsed());
    }
    let refusal = match proposed {
        Ok(response) => match (response.data, batch.work) {
            (LogApplied::Data(Applied::Writes(outcomes)), Work::Writes(callers)) => {
                let mut outcomes = outcomes.into_iter();
                let blocked: Vec<BlockedWrites> = callers
                    .into_iter()
                    .filter_map(|caller| caller.answer(&mut outcomes))
                    .map(|(by, pending)| BlockedWrites { by, pending })
                    .collect();
                return if blocked.is_empty() { Rest::Nothing } else { Rest::Blocked(blocked) };
            }
            (LogApplied::Data(Applied::Writes(_)), Work::Floor) => return Rest::Nothing,
            (LogApplied::Data(Applied::Txns(answers)), Work::Steps(steps)) => {
                for (pending, answer) in steps.into_iter().zip(answers) {
                    super::ends::applied(&pending.step);
                    if let (TxnStep::Push { txn, .. }, TxnApplied::Aborted(why)) = (&pending.step, &answer) {
                        tracing::debug!(%partition, %txn, why, "a transaction in the way was aborted");
                    }
                    pending.answer(Answer::Done(answer));
                }
                return Rest::Nothing;
            }
            (LogApplied::Data(Applied::StaleTimestamp(last)), work) => {
                tracing::debug!(%partition, %timestamp, %last, "a batch came late and is stamped again");
                return Rest::Again(Batch { sequence, work });
            }
            (other, work) => {
                let error = Error::internal(format!("a proposal was answered with {other:?}"));
                Batch { sequence, work }.refuse(&Refusal::Failed(error));
                return Rest::Nothing;
            }
        },
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
            Refusal::NotLeader(forward.leader_id.map(NodeId))
        }
        Err(RaftError::APIError(error)) => Refusal::Failed(Error::unknown(format!(
            "the leader of {partition} changed during the write: {error}"
        ))),
        Err(RaftError::Fatal(error)) => Refusal::Failed(Error::unknown(format!(
            "the replica of {partition} stopped during the write: {error}"
        ))),
    };
    batch.refuse(&refusal);
    Rest::Nothing
}
