//! What a partition's actor and its group's Raft share, and the door between them.

use super::flights::Flights;
use super::message::{LocalPartition, PartitionMessage};
use super::past::Covered;
use super::slot;
use crate::context::NodeContext;
use crate::node::Fatal;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ractor::rpc::CallResult;
use ractor::{ActorRef, RpcReplyPort};
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use trandb_cluster::partition::{PartitionHeader, PartitionState, SnapshotCursor};
use trandb_cluster::{NodeId, PartitionId, wire};
use trandb_runtime::pace::pace;
use trandb_runtime::planted::{Planted, is_planted};
use trandb_runtime::raft::{
    Applier, ChunkSource, CommittedEntry, GivenAway, GroupLog, LogApplied, LogId, Raft, RaftMessage,
    StoredMembership,
};

/// How long Raft waits for a partition's actor that is being rebuilt before it gives the group up. Loading a
/// checkpoint of a few gigabytes takes that long.
const ACTOR_WAIT: Duration = Duration::from_secs(120);

/// What a checkpoint says of itself; the versions are beside it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct StoredMeta {
    pub(super) header: PartitionHeader,
    pub(super) log_id: Option<LogId>,
    pub(super) membership: StoredMembership,
}

/// Shared by a partition's actor and its group's Raft; outlives either being restarted.
pub struct ReplicaState {
    /// The group's log.
    pub log: GroupLog,
    /// Whether the group was handed over in the term that it is led in here.
    pub(crate) given_away: GivenAway,
    actor: watch::Sender<Option<ActorRef<PartitionMessage>>>,
    group: Mutex<Option<(ActorRef<RaftMessage>, Raft)>>,
    acknowledged: AtomicU64,
    /// The last two checkpoints, newest last. The log may go up to the first.
    durable: Mutex<[Option<(LogId, StoredMembership)>; 2]>,
    generation: AtomicU32,
    /// Held by who writes to the engine for this replica, or loads it: what one that was overtaken still puts must not come
    /// after what the next one has dropped or read.
    writing: tokio::sync::Mutex<()>,
    flights: Flights,
    covered: Covered,
    /// As its actor last counted them.
    live_bytes: AtomicU64,
    /// The engine failed in a way that only a restart can judge; until then the log holds everything.
    stopped: AtomicBool,
    /// The state was found wrong: nothing is served from it, and nobody is to be led by it.
    suspect: AtomicBool,
}

impl ReplicaState {
    /// Nothing is running yet.
    pub fn new(log: GroupLog) -> Self {
        Self {
            log,
            given_away: GivenAway::default(),
            actor: watch::Sender::new(None),
            group: Mutex::new(None),
            acknowledged: AtomicU64::new(0),
            durable: Mutex::new([None, None]),
            generation: AtomicU32::new(1),
            writing: tokio::sync::Mutex::new(()),
            flights: Flights::default(),
            covered: Covered::default(),
            live_bytes: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            suspect: AtomicBool::new(false),
        }
    }

    /// The partition's actor is this one now, or there is none.
    pub fn publish(&self, actor: Option<ActorRef<PartitionMessage>>) {
        self.actor.send_replace(actor);
    }

    /// The partition's actor, if it runs.
    pub fn actor(&self) -> Option<ActorRef<PartitionMessage>> {
        self.actor.borrow().clone()
    }

    /// The group's actor and Raft are these now, or there are none.
    pub fn set_group(&self, group: Option<(ActorRef<RaftMessage>, Raft)>) {
        *self.group.lock().expect("no holder of the lock panics") = group;
    }

    /// That actor of the group's has ended; it may have a successor already.
    pub fn forget_group(&self, ended: &ActorRef<RaftMessage>) {
        let mut group = self.group.lock().expect("no holder of the lock panics");
        group.take_if(|(actor, _)| actor.get_id() == ended.get_id());
    }

    /// The group's actor, if it runs.
    pub fn group(&self) -> Option<ActorRef<RaftMessage>> {
        self.group.lock().expect("no holder of the lock panics").as_ref().map(|(actor, _)| actor.clone())
    }

    /// The group's Raft, if it runs.
    pub fn raft(&self) -> Option<Raft> {
        self.group.lock().expect("no holder of the lock panics").as_ref().map(|(_, raft)| raft.clone())
    }

    /// The proposals of its actors.
    pub(super) fn flights(&self) -> &Flights {
        &self.flights
    }

    /// Up to when its state is known.
    pub(super) fn covered(&self) -> &Covered {
        &self.covered
    }

    /// The index after the last one that Raft was told is applied.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    /// Raft starts anew and will learn what is applied from the partition itself.
    pub fn forget_acknowledged(&self) {
        self.acknowledged.store(0, Ordering::Release);
    }

    pub(super) fn generation(&self) -> u16 {
        self.generation.load(Ordering::Acquire) as u16
    }

    /// The turn of a writer to the engine, or of a load from it. One that was overtaken ends at its next question to the actor.
    pub(super) async fn writing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.writing.lock().await
    }

    pub(super) fn set_generation(&self, generation: u16) {
        self.generation.store(u32::from(generation), Ordering::Release);
    }

    /// No checkpoint is written any more until the node is restarted.
    pub(super) fn stop_checkpoints(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    pub(super) fn checkpoints_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Whether the state was found wrong and is not rebuilt yet.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    /// Answers what it was.
    pub(super) fn set_suspect(&self, suspect: bool) -> bool {
        self.suspect.swap(suspect, Ordering::AcqRel)
    }

    /// Bytes of its live data, as of some second ago.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn set_live_bytes(&self, bytes: u64) {
        self.live_bytes.store(bytes, Ordering::Relaxed);
    }

    /// A checkpoint was committed.
    pub(super) fn checkpointed(&self, meta: &Bytes) -> io::Result<()> {
        let meta: StoredMeta = wire::decode(meta).map_err(io::Error::other)?;
        if let Some(log_id) = meta.log_id {
            let mut durable = self.durable.lock().expect("no holder of the lock panics");
            durable[0] = durable[1].take();
            durable[1] = Some((log_id, meta.membership));
        }
        Ok(())
    }

    /// The last log entry that the previous checkpoint holds: the log may go up to it.
    pub(crate) fn purgeable(&self) -> Option<u64> {
        let durable = self.durable.lock().expect("no holder of the lock panics");
        durable[0].as_ref().map(|(log_id, _)| log_id.index)
    }

    /// The last log entry that the newest checkpoint holds.
    pub(super) fn checkpointed_to(&self) -> Option<u64> {
        let durable = self.durable.lock().expect("no holder of the lock panics");
        durable[1].as_ref().map(|(log_id, _)| log_id.index)
    }

    /// Waits until the actor runs.
    async fn wait_for_actor(&self) -> io::Result<ActorRef<PartitionMessage>> {
        let mut watch = self.actor.subscribe();
        let waited = tokio::time::timeout(ACTOR_WAIT, watch.wait_for(Option::is_some)).await;
        match waited {
            Ok(Ok(actor)) => Ok(actor.clone().expect("just seen")),
            _ => Err(io::Error::other(format!("the partition's actor did not start within {ACTOR_WAIT:?}"))),
        }
    }

    /// Asks the actor, and asks its successor when it dies before it answers.
    async fn ask<T: Send + 'static>(
        &self,
        make: impl Fn(RpcReplyPort<T>) -> LocalPartition + Send + Sync,
    ) -> io::Result<T> {
        loop {
            let actor = self.wait_for_actor().await?;
            match actor.call(|reply| PartitionMessage::Local(make(reply)), None).await {
                Ok(CallResult::Success(answer)) => return Ok(answer),
                _ => {
                    // Only this very actor is known to be dead; its successor may be there already.
                    self.actor.send_if_modified(|current| {
                        let same = current.as_ref().is_some_and(|current| current.get_id() == actor.get_id());
                        if same {
                            *current = None;
                        }
                        same
                    });
                }
            }
        }
    }
}

/// Loads the valid checkpoint.
pub(super) async fn load(
    context: &NodeContext,
    id: PartitionId,
    replica: &ReplicaState,
) -> io::Result<(PartitionState, StoredMeta)> {
    let _writing = replica.writing().await;
    let (generation, meta, state) = context
        .engine
        .run(move |engine| -> io::Result<_> {
            let (generation, meta) = slot::valid_meta(engine, id)?;
            let Some(meta) = meta else {
                return Ok((generation, StoredMeta::default(), PartitionState::new()));
            };
            let damaged = |error: &dyn std::fmt::Display| {
                let what = format!("the checkpoint of {id} is not what was written: {error}");
                io::Error::new(io::ErrorKind::InvalidData, what)
            };
            let meta: StoredMeta = wire::decode(&meta).map_err(|error| damaged(&error))?;
            let mut restore = PartitionState::restore_from_checkpoint(meta.header.clone());
            engine.load(slot::slot(id, generation), &mut |version| restore.add(version))?;
            let state = restore.finish().map_err(|error| damaged(&error))?;
            Ok((generation, meta, state))
        })
        .await
        .inspect_err(|error| {
            // Another try would find the same.
            let damaged = error.kind() == io::ErrorKind::InvalidData;
            context.give_up(if damaged { Fatal::damaged(error) } else { Fatal::unreadable(error) });
        })?;
    replica.set_generation(generation);
    if let Some(log_id) = meta.log_id {
        // It was written, synced, and has just been read back whole: it may stand for both marks.
        *replica.durable.lock().expect("no holder of the lock panics") =
            [Some((log_id, meta.membership.clone())), Some((log_id, meta.membership.clone()))];
    }
    Ok((state, meta))
}

/// Raft's door to a partition's actor.
pub struct DataApplier {
    /// What both sides share.
    pub replica: Arc<ReplicaState>,
    /// Where it is.
    pub node: NodeId,
}

impl Applier for DataApplier {
    fn applied(&self) -> BoxFuture<'_, io::Result<(Option<LogId>, StoredMembership)>> {
        async {
            let (applied, membership) = self.replica.ask(LocalPartition::Applied).await?;
            self.replica.acknowledged.store(applied.map_or(0, |id| id.index + 1), Ordering::Release);
            Ok((applied, membership))
        }
        .boxed()
    }

    fn apply(&self, entries: Vec<CommittedEntry>) -> BoxFuture<'_, io::Result<Vec<LogApplied>>> {
        async move {
            pace(self.node, "appliers").await;
            let last = entries.last().map(|entry| entry.log_id.index + 1);
            let entries = Arc::new(entries);
            if is_planted(Planted::ApplyTwice) && self.replica.acknowledged() == 0 {
                self.replica.ask(|reply| LocalPartition::Apply(entries.clone(), reply)).await?;
            }
            let results = self.replica.ask(|reply| LocalPartition::Apply(entries.clone(), reply)).await?;
            if let Some(last) = last {
                self.replica.acknowledged.store(last, Ordering::Release);
            }
            Ok(results)
        }
        .boxed()
    }

    fn durable(&self) -> BoxFuture<'_, io::Result<(Option<LogId>, StoredMembership)>> {
        async {
            let durable = self.replica.durable.lock().expect("no holder of the lock panics");
            Ok(match &durable[0] {
                Some((log_id, membership)) => (Some(*log_id), membership.clone()),
                None => (None, StoredMembership::default()),
            })
        }
        .boxed()
    }

    fn open_snapshot(
        &self,
    ) -> BoxFuture<'_, io::Result<Option<(LogId, StoredMembership, Arc<dyn ChunkSource>)>>> {
        async {
            let Some((header, log_id, membership)) = self.replica.ask(LocalPartition::OpenSnapshot).await?
            else {
                return Ok(None);
            };
            let source = PartitionSource {
                replica: self.replica.clone(),
                cursor: Mutex::new(Cursor { after: None, header: Some(header.clone()) }),
                index: header.index,
            };
            Ok(Some((log_id, membership, Arc::new(source) as Arc<dyn ChunkSource>)))
        }
        .boxed()
    }

    fn install(
        &self,
        last: Option<LogId>,
        membership: StoredMembership,
        state: Box<dyn Any + Send>,
    ) -> BoxFuture<'_, io::Result<()>> {
        async move {
            let actor = self.replica.wait_for_actor().await?;
            let install =
                |reply| PartitionMessage::Local(LocalPartition::Install { last, membership, state, reply });
            match actor.call(install, None).await {
                Ok(CallResult::Success(done)) => {
                    done?;
                    self.replica.acknowledged.store(last.map_or(0, |id| id.index + 1), Ordering::Release);
                    Ok(())
                }
                _ => Err(io::Error::other("the partition's actor died while it installed a snapshot")),
            }
        }
        .boxed()
    }
}

/// A chunk of a partition's snapshot on the wire. The first carries the header.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotChunk {
    pub(crate) header: Option<PartitionHeader>,
    pub(crate) versions: Vec<trandb_cluster::mvcc::StoredVersion>,
}

struct Cursor {
    after: Option<SnapshotCursor>,
    header: Option<PartitionHeader>,
}

/// A partition's frozen state, read from its actor chunk by chunk while it goes on serving.
struct PartitionSource {
    replica: Arc<ReplicaState>,
    cursor: Mutex<Cursor>,
    index: u64,
}

impl ChunkSource for PartitionSource {
    fn next_chunk(&self) -> BoxFuture<'_, io::Result<(Bytes, bool)>> {
        async {
            let (after, header) = {
                let mut cursor = self.cursor.lock().expect("no holder of the lock panics");
                (cursor.after.clone(), cursor.header.take())
            };
            // A successor of the actor knows nothing of this freeze; a chunk of its state would not match.
            let Some(actor) = self.replica.actor() else {
                return Err(io::Error::other("the partition's actor is being rebuilt"));
            };
            let index = self.index;
            let ask = |reply| PartitionMessage::Local(LocalPartition::SnapshotChunk { index, after, reply });
            let Ok(CallResult::Success((mut versions, resume))) = actor.call(ask, Some(ACTOR_WAIT)).await
            else {
                return Err(io::Error::other("the partition's actor died while it sent a snapshot"));
            };
            let last = resume.is_none();
            if last && is_planted(Planted::SnapshotWithoutLast) {
                versions.pop();
            }
            self.cursor.lock().expect("no holder of the lock panics").after = resume;
            Ok((wire::encode(&SnapshotChunk { header, versions }).into(), last))
        }
        .boxed()
    }
}

impl Drop for PartitionSource {
    fn drop(&mut self) {
        if let Some(actor) = self.replica.actor() {
            // An actor that is gone has forgotten the freeze with everything else.
            let _ = actor.cast(PartitionMessage::Local(LocalPartition::CloseSnapshot(self.index)));
        }
    }
}
