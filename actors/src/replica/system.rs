//! The system group's state on this node: small enough to be written whole, so it needs no actor of its own.
//! Every change is published; the router, the controller and the replicas follow it.

use crate::context::NodeContext;
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;
use trandb_cluster::system::{SystemApplied, SystemCommand, SystemState};
use trandb_cluster::{PartitionId, wire};
use trandb_runtime::engine;
use trandb_runtime::raft::{
    Applier, ChunkSource, CommittedEntry, EntryBody, LogApplied, LogId, StoredMembership, witness,
};

/// The state and how far it has come; also what its checkpoint and its snapshot hold.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Applied {
    state: SystemState,
    log_id: Option<LogId>,
    membership: StoredMembership,
}

/// The last log index that the system group's checkpoint holds; none if there is no checkpoint.
///
/// # Errors
/// When the engine fails or the checkpoint cannot be decoded.
pub(crate) fn system_checkpoint_index(engine: &dyn engine::Engine) -> io::Result<Option<u64>> {
    Ok(checkpoint(engine)?.log_id.map(|log_id| log_id.index))
}

/// The system group's state as it will be if all of this node's log is committed. It may not be: this says by which peers a node
/// that restarts finds out, and nothing else.
#[derive(Debug, Clone)]
pub(crate) struct ExpectedSystem {
    pub(crate) state: SystemState,
    /// Its last entry. Once a state has that applied, or an entry of a later term, it knows what became of all of this.
    last: LogId,
}

/// What is to be expected of a log with these entries, of which some are commands; none without entries.
///
/// # Errors
/// When the engine fails, or something cannot be decoded.
pub(crate) fn expected_system(
    engine: &dyn engine::Engine,
    log: Vec<(LogId, Option<Bytes>)>,
) -> io::Result<Option<ExpectedSystem>> {
    let Applied { mut state, log_id, .. } = checkpoint(engine)?;
    let Some(last) = log.last().map(|(last, _)| *last).max(log_id) else { return Ok(None) };
    for (at, command) in log.into_iter().filter(|(at, _)| Some(at.index) > log_id.map(|there| there.index)) {
        if let Some(command) = command {
            state.apply(at.index, wire::decode(&command).map_err(undecodable)?);
        }
    }
    Ok(Some(ExpectedSystem { state, last }))
}

fn checkpoint(engine: &dyn engine::Engine) -> io::Result<Applied> {
    let meta = engine.meta(PartitionId::SYSTEM)?;
    meta.map_or_else(|| Ok(Applied::default()), |meta| wire::decode(&meta).map_err(undecodable))
}

fn undecodable(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", PartitionId::SYSTEM))
}

/// A checkpoint of the system group that reaches to `index`.
#[cfg(test)]
pub(crate) fn system_checkpoint_meta(index: u64) -> Vec<u8> {
    wire::encode(&Applied { log_id: Some(trandb_runtime::raft::log_id(1, index)), ..Applied::default() })
}

/// The system group's state machine.
pub struct SystemMachine {
    engine: engine::Worker,
    published: watch::Sender<Arc<SystemState>>,
    expected: Arc<ArcSwapOption<ExpectedSystem>>,
    applied: Mutex<Applied>,
    durable: Mutex<[Option<(LogId, StoredMembership)>; 2]>,
}

impl SystemMachine {
    /// Loads the checkpoint, if there is one, and publishes its state. What is `expected` is so until it shows what became of it.
    ///
    /// # Errors
    /// When the engine fails or the checkpoint cannot be decoded.
    pub(crate) async fn load(
        engine: engine::Worker,
        published: watch::Sender<Arc<SystemState>>,
        expected: Arc<ArcSwapOption<ExpectedSystem>>,
    ) -> io::Result<Arc<Self>> {
        let meta = engine.run(|engine| engine.meta(PartitionId::SYSTEM)).await.map_err(io::Error::other)?;
        let applied: Applied = match meta {
            Some(bytes) => wire::decode(&bytes).map_err(io::Error::other)?,
            None => Applied::default(),
        };
        let mark = applied.log_id.map(|log_id| (log_id, applied.membership.clone()));
        published.send_replace(Arc::new(applied.state.clone()));
        Ok(Arc::new(Self {
            engine,
            published,
            expected,
            applied: Mutex::new(applied),
            durable: Mutex::new([mark.clone(), mark]),
        }))
    }

    fn applied_now(&self) -> MutexGuard<'_, Applied> {
        self.applied.lock().expect("no holder of the lock panics")
    }

    /// Entries applied since the last checkpoint.
    pub fn entries_since_checkpoint(&self) -> u64 {
        let applied = self.applied_now().log_id.map_or(0, |id| id.index);
        let durable = self.durable.lock().expect("no holder of the lock panics");
        applied - durable[1].as_ref().map_or(0, |(id, _)| id.index)
    }

    /// The last log entry that the previous checkpoint holds: the log may go up to it.
    pub(crate) fn purgeable(&self) -> Option<u64> {
        let durable = self.durable.lock().expect("no holder of the lock panics");
        durable[0].as_ref().map(|(log_id, _)| log_id.index)
    }

    /// Writes the state. Answers whether Raft may be told.
    ///
    /// # Errors
    /// When the engine fails.
    pub async fn checkpoint(&self) -> io::Result<()> {
        let applied = self.applied_now().clone();
        let Some(log_id) = applied.log_id else { return Ok(()) };
        let bytes = wire::encode(&applied);
        self.engine
            .run(move |engine| engine.commit(PartitionId::SYSTEM, &bytes))
            .await
            .map_err(io::Error::other)?;
        let mut durable = self.durable.lock().expect("no holder of the lock panics");
        durable[0] = durable[1].take();
        durable[1] = Some((log_id, applied.membership));
        Ok(())
    }

    fn publish(&self, Applied { state, log_id, .. }: &Applied) {
        let shown = self.expected.load().as_ref().is_some_and(|expected| *log_id >= Some(expected.last));
        if shown {
            self.expected.store(None);
        }
        self.published.send_if_modified(|published| {
            // The timestamp window moves often and concerns only the oracle, which reads it when it must.
            let quiet = published.epoch == state.epoch && published.cluster_id == state.cluster_id;
            *published = Arc::new(state.clone());
            shown || !quiet
        });
    }
}

impl Applier for SystemMachine {
    fn applied(&self) -> BoxFuture<'_, io::Result<(Option<LogId>, StoredMembership)>> {
        let applied = self.applied_now();
        let answer = (applied.log_id, applied.membership.clone());
        async { Ok(answer) }.boxed()
    }

    fn apply(&self, entries: Vec<CommittedEntry>) -> BoxFuture<'_, io::Result<Vec<LogApplied>>> {
        async move {
            let mut applied = self.applied_now();
            let mut results = Vec::with_capacity(entries.len());
            for entry in entries {
                let index = entry.log_id.index;
                results.push(match entry.body {
                    EntryBody::Blank => LogApplied::Nothing,
                    EntryBody::Membership(membership) => {
                        applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                        LogApplied::Nothing
                    }
                    EntryBody::Command(bytes) => {
                        let command: SystemCommand = wire::decode(&bytes).map_err(io::Error::other)?;
                        let result = applied.state.apply(index, command);
                        if let SystemApplied::Refused(why) = &result {
                            tracing::debug!(index, why, "system command refused");
                        }
                        LogApplied::System(result)
                    }
                });
                witness::applied(PartitionId::SYSTEM, entry.log_id);
                applied.log_id = Some(entry.log_id);
            }
            self.publish(&applied);
            Ok(results)
        }
        .boxed()
    }

    fn durable(&self) -> BoxFuture<'_, io::Result<(Option<LogId>, StoredMembership)>> {
        let durable = self.durable.lock().expect("no holder of the lock panics");
        let answer = match &durable[0] {
            Some((log_id, membership)) => (Some(*log_id), membership.clone()),
            None => (None, StoredMembership::default()),
        };
        async { Ok(answer) }.boxed()
    }

    fn open_snapshot(
        &self,
    ) -> BoxFuture<'_, io::Result<Option<(LogId, StoredMembership, Arc<dyn ChunkSource>)>>> {
        async {
            let applied = self.applied_now().clone();
            let Some(log_id) = applied.log_id else { return Ok(None) };
            let source = Arc::new(Whole(wire::encode(&applied).into())) as Arc<dyn ChunkSource>;
            Ok(Some((log_id, applied.membership, source)))
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
            let bytes = state.downcast::<Vec<u8>>().map_err(|_| io::Error::other("not a system snapshot"))?;
            let received: Applied = wire::decode(&bytes).map_err(io::Error::other)?;
            {
                let mut applied = self.applied_now();
                *applied = Applied { state: received.state, log_id: last, membership };
                self.publish(&applied);
            }
            self.checkpoint().await
        }
        .boxed()
    }
}

/// A snapshot that is one chunk.
struct Whole(Bytes);

impl ChunkSource for Whole {
    fn next_chunk(&self) -> BoxFuture<'_, io::Result<(Bytes, bool)>> {
        async { Ok((self.0.clone(), true)) }.boxed()
    }
}

/// Writes the system group's checkpoint when it is due and tells its Raft. Runs until the node stops.
///
/// A changed map is written soon: a restarted node finds its peers by it before it has heard from any of them.
pub(crate) async fn checkpoint_loop(context: Arc<NodeContext>, machine: Arc<SystemMachine>) {
    /// Entries after which the state is written: some minutes of timestamp windows.
    const ENTRIES: u64 = 128;
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(500));
    let mut written = trandb_cluster::Epoch::default();
    loop {
        tick.tick().await;
        let epoch = context.system().epoch;
        if epoch == written && machine.entries_since_checkpoint() < ENTRIES {
            continue;
        }
        if let Err(error) = machine.checkpoint().await {
            tracing::error!(%error, "the system group's checkpoint failed; its log is kept");
            context.gauges.checkpoint_failed();
            continue;
        }
        written = epoch;
        if let Some(raft) = context.system_raft() {
            // A Raft that has stopped is started again by its supervisor and told by the next checkpoint.
            let _ = raft.trigger().snapshot().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use trandb_cluster::system::{NodeAddresses, NodeInfo};
    use trandb_cluster::{ClusterId, InstanceId, NodeId};
    use trandb_runtime::engine::MemoryEngine;
    use trandb_runtime::raft::log_id;

    #[tokio::test]
    async fn a_log_is_expected_to_come_true_until_it_shows_what_became_of_it() {
        let engine = Arc::new(MemoryEngine::new());
        let nodes = [(
            NodeId(1),
            NodeInfo { instance: InstanceId(7), addresses: NodeAddresses::default(), removed: false },
        )];
        let found = SystemCommand::Found {
            cluster_id: ClusterId(5),
            nodes: BTreeMap::from(nodes),
            partitions: 1,
            replication: 1,
        };
        let found = Bytes::from(wire::encode(&found));
        let log = [(log_id(1, 1), None), (log_id(2, 2), Some(found)), (log_id(2, 3), None)];
        let blank = |at| vec![CommittedEntry { log_id: at, body: EntryBody::Blank }];
        // Its last entry is applied, or one of a later term, whose leader had no more of it than that.
        for (early, last) in [(log_id(2, 2), log_id(2, 3)), (log_id(1, 1), log_id(3, 2))] {
            let expected =
                expected_system(&*engine, log.to_vec()).expect("can be read").expect("is something");
            assert_eq!(expected.state.cluster_id, Some(ClusterId(5)));
            let expected = Arc::new(ArcSwapOption::from_pointee(expected));
            let published = watch::Sender::new(Arc::default());
            let worker = engine::Worker::inline(engine.clone());
            let machine =
                SystemMachine::load(worker, published.clone(), expected.clone()).await.expect("loads");
            let mut told = published.subscribe();
            machine.apply(blank(early)).await.expect("is applied");
            assert!(expected.load().is_some() && !told.has_changed().expect("is there"));
            machine.apply(blank(last)).await.expect("is applied");
            assert!(expected.load().is_none());
            assert!(told.has_changed().expect("is there"), "peers are looked for somewhere else now");
            told.mark_unchanged();
        }
        let nothing = expected_system(&*engine, Vec::new()).expect("can be read");
        assert!(nothing.is_none());
    }
}
