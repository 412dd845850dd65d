//! The door between Raft and whoever owns a group's state.

use super::types::{CommittedEntry, EntryBody, LogApplied, LogId, StoredMembership, TypeConfig};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::{EntryPayload, RaftSnapshotBuilder};
use std::any::Any;
use std::io;
use std::sync::Arc;

/// Committed entries that are handed over in one go when that many are ready: bounds the time that the
/// owner of the state is busy with one message.
const APPLY_ENTRIES_MAX: usize = 256;

/// Whoever owns a group's state: a data partition's actor, or the system group's.
pub trait Applier: Send + Sync + 'static {
    /// The last entry applied and the last membership.
    fn applied(&self) -> BoxFuture<'_, io::Result<(Option<LogId>, StoredMembership)>>;

    /// Applies entries in order and answers one result for each. Entries that were applied already (their
    /// owner was rebuilt meanwhile) are not applied again.
    fn apply(&self, entries: Vec<CommittedEntry>) -> BoxFuture<'_, io::Result<Vec<LogApplied>>>;

    /// The newest entry up to which the log may be purged: a checkpoint that is durable, and not the only
    /// one. Purging further is then not asked for.
    fn durable(&self) -> BoxFuture<'_, io::Result<(Option<LogId>, StoredMembership)>>;

    /// The current state as a source of chunks, frozen at the log id answered.
    fn open_snapshot(&self) -> BoxFuture<'_, io::Result<Option<OpenSnapshot>>>;

    /// Replaces the state by a received one and makes it durable before answering. `state` is what the
    /// group's actor made of the chunks.
    fn install(
        &self,
        last: Option<LogId>,
        membership: StoredMembership,
        state: Box<dyn Any + Send>,
    ) -> BoxFuture<'_, io::Result<()>>;
}

/// The entry that a frozen state covers, the membership as of it, and the state.
pub type OpenSnapshot = (LogId, StoredMembership, Arc<dyn ChunkSource>);

/// A state that can be read out in chunks while it goes on changing.
pub trait ChunkSource: Send + Sync + 'static {
    /// The next chunk, and whether it is the last.
    fn next_chunk(&self) -> BoxFuture<'_, io::Result<(Bytes, bool)>>;
}

/// A snapshot on its way: at the leader a source, at the follower what was made of its chunks.
pub enum SnapshotData {
    /// To be read.
    Source(Arc<dyn ChunkSource>),
    /// To be installed.
    Received(Box<dyn Any + Send>),
    /// Only says how far the state is durable; holds nothing.
    Mark,
}

/// Raft's side of the door.
#[derive(Clone)]
pub struct StateMachine {
    applier: Arc<dyn Applier>,
}

impl StateMachine {
    /// Hands everything to `applier`.
    pub fn new(applier: Arc<dyn Applier>) -> Self {
        Self { applier }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        self.applier.applied().await
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + Send,
    {
        let mut chunks = entries.ready_chunks(APPLY_ENTRIES_MAX);
        while let Some(chunk) = chunks.next().await {
            let mut committed = Vec::with_capacity(chunk.len());
            let mut responders = Vec::with_capacity(chunk.len());
            for item in chunk {
                let (entry, responder) = item?;
                let body = match entry.payload {
                    EntryPayload::Blank => EntryBody::Blank,
                    EntryPayload::Normal(proposal) => EntryBody::Command(proposal.0),
                    EntryPayload::Membership(membership) => EntryBody::Membership(membership),
                };
                committed.push(CommittedEntry { log_id: entry.log_id, body });
                responders.push(responder);
            }
            let results = self.applier.apply(committed).await?;
            for (responder, result) in responders.into_iter().zip(results) {
                if let Some(responder) = responder {
                    responder.send(result);
                }
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TypeConfig>,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        match snapshot {
            SnapshotData::Received(state) => {
                self.applier.install(meta.last_log_id, meta.last_membership.clone(), state).await
            }
            SnapshotData::Source(_) | SnapshotData::Mark => {
                Err(io::Error::other("only a received snapshot can be installed"))
            }
        }
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, SnapshotData>>> {
        let Some((last, membership, source)) = self.applier.open_snapshot().await? else {
            return Ok(None);
        };
        Ok(Some(Snapshot {
            meta: SnapshotMetaOf::<TypeConfig> { last_log_id: Some(last), last_membership: membership },
            snapshot: SnapshotData::Source(source),
        }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;

    /// Builds nothing: the checkpoint was written by the state's owner. Tells Raft how far its log may go.
    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, SnapshotData>> {
        let (last_log_id, last_membership) = self.applier.durable().await?;
        Ok(Snapshot {
            meta: SnapshotMetaOf::<TypeConfig> { last_log_id, last_membership },
            snapshot: SnapshotData::Mark,
        })
    }
}
