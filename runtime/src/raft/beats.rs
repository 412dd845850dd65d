//! Heartbeats of all groups, gathered: one message per peer and interval instead of one per group.
//!
//! ```text
//!   every group's Raft ──empty append──▶ Heartbeats ──one BeatsCall per peer──▶ the peer's actor for them
//!                                                                               └─▶ every group's actor
//! ```
//!
//! A node tells its groups to beat at the same moment, so what they send to one peer comes within the time that the
//! first of it waits for the others. A group that the peer cannot answer for in time, because it is busy or not there,
//! is left out of the answer and asks again by itself, so that it holds nobody up.
//!
//! Appends that only carry a commit index or look for where logs part are empty, too, and go the same way.

use super::types::TypeConfig;
use crate::peer::PeerHub;
use crate::rpc::{Reply, RpcError};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use trandb_cluster::{NodeId, PartitionId};

/// The name of the actor that takes a peer's gathered heartbeats.
pub const BEATS_ACTOR: &str = "beats";

/// How long the first heartbeat of a message waits for the others. It is part of what a lease is made of, so short.
const GATHER: Duration = Duration::from_millis(1);

/// Heartbeats in one message: as many as there can be groups. More than one per group and peer do not come, since each
/// is answered before the next; at the limit the message goes at once.
const BEATS_MAX: usize = trandb_cluster::limits::PARTITIONS_MAX as usize + 1;

/// About what a heartbeat weighs, encoded.
const BEAT_BYTES: usize = 256;

/// The mailbox of the actor that takes a peer's gathered heartbeats, and makes this node's groups send theirs.
#[derive(Debug)]
pub enum BeatsMessage {
    /// What a peer's groups say to their members here; answered in the same order.
    Beats(BeatsCall, Reply<BeatsAnswer>),
    /// Local: it is time for this node's groups to beat.
    Tick,
}

crate::wire_message! {
    BeatsMessage {
        call Beats(BeatsCall);
    }
}

/// Heartbeats of several groups.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BeatsCall {
    /// Each group's.
    pub beats: Vec<Beat>,
}

/// A group's heartbeat: an append without entries.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Beat {
    /// The group.
    pub group: PartitionId,
    /// What its Raft says.
    pub request: AppendEntriesRequest<TypeConfig>,
}

/// What each group answered; none where it did not in time, or is not there.
pub type BeatsAnswer = Vec<Option<Result<AppendEntriesResponse<TypeConfig>, String>>>;

/// What came of one heartbeat: see [`BeatsAnswer`].
type Outcome = Result<Option<Result<AppendEntriesResponse<TypeConfig>, String>>, RpcError>;

/// Gathers a node's heartbeats. Clones share it.
#[derive(Clone)]
pub struct Heartbeats {
    hub: PeerHub,
    waiting: Arc<Mutex<BTreeMap<NodeId, Vec<Waiting>>>>,
}

struct Waiting {
    beat: Beat,
    deadline: Duration,
    outcome: oneshot::Sender<Outcome>,
}

impl Heartbeats {
    /// Sends over this node's links.
    pub fn new(hub: PeerHub) -> Self {
        Self { hub, waiting: Arc::default() }
    }

    /// Sends a heartbeat with whatever else goes to that peer now.
    pub(super) async fn send(&self, target: NodeId, beat: Beat, deadline: Duration) -> Outcome {
        let (outcome, answer) = oneshot::channel();
        let (first, full) = {
            let mut waiting = self.waiting();
            let waiting = waiting.entry(target).or_default();
            waiting.push(Waiting { beat, deadline, outcome });
            (waiting.len() == 1, waiting.len() >= BEATS_MAX)
        };
        if first || full {
            let this = self.clone();
            tokio::spawn(async move {
                if !full {
                    tokio::time::sleep(GATHER).await;
                }
                this.flush(target).await;
            });
        }
        answer.await.unwrap_or(Err(RpcError::Lost))
    }

    async fn flush(&self, target: NodeId) {
        let waiting = self.waiting().remove(&target).unwrap_or_default();
        let Some(deadline) = waiting.iter().map(|waiting| waiting.deadline).max() else { return };
        let (beats, outcomes): (Vec<_>, Vec<_>) =
            waiting.into_iter().map(|waiting| (waiting.beat, waiting.outcome)).unzip();
        let weight = BEAT_BYTES * beats.len();
        let call = BeatsCall { beats };
        let answered: Result<BeatsAnswer, RpcError> = self
            .hub
            .call(target, BEATS_ACTOR, deadline, weight, |reply| BeatsMessage::Beats(call, reply))
            .await;
        // Whoever has stopped waiting meanwhile needs no outcome.
        match answered {
            Ok(answers) => {
                let answers = answers.into_iter().chain(std::iter::repeat_with(|| None));
                for (outcome, answer) in outcomes.into_iter().zip(answers) {
                    let _ = outcome.send(Ok(answer));
                }
            }
            Err(error) => {
                for outcome in outcomes {
                    let _ = outcome.send(Err(error));
                }
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<NodeId, Vec<Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
