//! Snapshots that come in: parts are put together in the group's mailbox, and the whole is handed to Raft.

use super::group::Group;
use crate::context::NodeContext;
use crate::partition::SnapshotChunk;
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::partition::{PartitionRestore, PartitionState};
use trandb_cluster::wire;
use trandb_runtime::engine::{Engine, EngineError};
use trandb_runtime::raft::{SNAPSHOT_RESUME_MAX, SnapshotData, SnapshotPart, Vote};
use trandb_runtime::rpc::Reply;

/// How long a snapshot that broke off is held on to: longer than its sender tries to go on with it.
const IDLE_MAX: Duration = SNAPSHOT_RESUME_MAX.saturating_mul(2);

/// A snapshot of which more is to come.
pub(super) struct Receiving {
    order: Order,
    restore: Restore,
    touched: Instant,
}

impl Receiving {
    fn new(transfer: (Vote, u64)) -> Self {
        Self { order: Order { transfer, next: 0 }, restore: Restore::Nothing, touched: Instant::now() }
    }

    /// Whether nobody goes on with it.
    fn is_idle(&self) -> bool {
        self.touched.elapsed() > IDLE_MAX
    }
}

/// Which part is due.
#[derive(Debug, PartialEq, Eq)]
struct Order {
    /// Who sends, and which of its transfers.
    transfer: (Vote, u64),
    next: u64,
}

impl Order {
    /// Whether this part is the next one, rather than one that was taken before: its sender had no answer to it.
    fn take(&mut self, transfer: (Vote, u64), sequence: u64) -> Result<bool, String> {
        if self.transfer != transfer {
            return Err("another snapshot is under way".into());
        }
        if sequence > self.next {
            return Err(format!("part {sequence} came where {} was due", self.next));
        }
        let is_next = sequence == self.next;
        self.next += u64::from(is_next);
        Ok(is_next)
    }
}

enum Restore {
    Nothing,
    Data(Box<PartitionRestore>),
    System(Vec<u8>),
}

/// Whether the state that was received can be written. A replica that fails to do so has to be started anew, its node with it,
/// while one that waits for room serves on.
///
/// # Errors
/// Why not.
async fn may_install(context: &NodeContext) -> Result<(), String> {
    if let Some(full) = context.no_room() {
        return Err(full.message);
    }
    let has_failed = |engine: &dyn Engine| Ok::<_, EngineError>(engine.has_failed());
    match context.engine.run(has_failed).await {
        Ok(false) => Ok(()),
        Ok(true) => Err("the storage engine has failed, and is opened anew when its disk has room".into()),
        Err(error) => Err(error.to_string()),
    }
}

impl Group {
    /// Takes a part; the last one is answered when the state has been replaced.
    pub(super) fn receive(
        &mut self,
        part: SnapshotPart,
        reply: Reply<
            Result<Option<trandb_runtime::raft::SnapshotResponse<trandb_runtime::raft::TypeConfig>>, String>,
        >,
    ) {
        let last = part.last;
        let (vote, log_id, membership) = (part.vote, part.last_log_id, part.membership.clone());
        let received = match self.add_part(part) {
            Err(refusal) => {
                reply.send(Err(refusal));
                return;
            }
            Ok(()) if !last => {
                reply.send(Ok(None));
                return;
            }
            Ok(()) => self.receiving.take().expect("a part was just added").restore,
        };
        let raft = self.raft.clone();
        let id = self.id;
        let context = self.context.clone();
        tokio::spawn(async move {
            if let Err(why) = may_install(&context).await {
                reply.send(Err(why));
                return;
            }
            let data: Box<dyn std::any::Any + Send> = match received {
                Restore::Nothing => {
                    reply.send(Err("the snapshot was empty".into()));
                    return;
                }
                Restore::Data(restore) => match restore.finish() {
                    Ok(state) => Box::<PartitionState>::new(state),
                    Err(error) => {
                        reply.send(Err(error.to_string()));
                        return;
                    }
                },
                Restore::System(bytes) => Box::new(bytes),
            };
            let snapshot = trandb_runtime::raft::Snapshot {
                meta: trandb_runtime::raft::SnapshotMeta { last_log_id: log_id, last_membership: membership },
                snapshot: SnapshotData::Received(data),
            };
            let result = raft.install_full_snapshot(vote, snapshot).await;
            if result.is_ok() {
                tracing::info!(partition = %id, index = log_id.map_or(0, |id| id.index), "snapshot installed");
                context.gauges.snapshot_installed(id);
            }
            reply.send(result.map(Some).map_err(|error| error.to_string()));
        });
    }

    /// Forgets a snapshot that nobody goes on with.
    pub(super) fn forget_idle(&mut self) {
        if self.receiving.take_if(|receiving| receiving.is_idle()).is_some() {
            tracing::info!(partition = %self.id, "a snapshot that broke off was not gone on with");
        }
    }

    fn add_part(&mut self, part: SnapshotPart) -> Result<(), String> {
        if part.sequence == 0
            && let Some(full) = self.context.no_room()
        {
            return Err(full.message);
        }
        let transfer = (part.vote, part.transfer);
        let is_new = match &self.receiving {
            Some(receiving) if receiving.order.transfer.0 > part.vote => {
                return Err("a later leader sends a snapshot".into());
            }
            Some(receiving) => receiving.order.transfer != transfer,
            None => true,
        };
        if part.sequence == 0 && is_new {
            self.receiving = Some(Receiving::new(transfer));
        }
        let Some(receiving) = &mut self.receiving else { return Err("no snapshot is under way".into()) };
        if !receiving.order.take(transfer, part.sequence)? {
            return Ok(());
        }
        receiving.touched = Instant::now();
        if self.id.is_system() {
            receiving.restore = Restore::System(part.data.to_vec());
            return Ok(());
        }
        let chunk: SnapshotChunk = wire::decode(&part.data).map_err(|error| error.message)?;
        if let Some(header) = chunk.header {
            receiving.restore = Restore::Data(Box::new(PartitionState::restore_from_snapshot(header)));
        }
        let Restore::Data(restore) = &mut receiving.restore else {
            return Err("the first part has no header".into());
        };
        for version in chunk.versions {
            restore.add(version);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_comes_again_is_taken_once() {
        let (one, other) = ((Vote::new(3, 1), 7), (Vote::new(4, 2), 7));
        let mut order = Order { transfer: one, next: 0 };
        assert_eq!(order.take(one, 0), Ok(true));
        assert_eq!(order.take(one, 0), Ok(false));
        assert_eq!(order.take(one, 1), Ok(true));
        assert_eq!(order.take(one, 0), Ok(false), "later still");
        assert_eq!(order.take(one, 3), Err("part 3 came where 2 was due".into()));
        assert_eq!(order.take(other, 2), Err("another snapshot is under way".into()), "of another leader");
        assert_eq!(order, Order { transfer: one, next: 2 });
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_received_waits_for_longer_than_its_sender_tries() {
        let receiving = Receiving::new((Vote::new(3, 1), 7));
        tokio::time::advance(IDLE_MAX).await;
        assert!(!receiving.is_idle());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(receiving.is_idle());
        assert!(
            IDLE_MAX >= SNAPSHOT_RESUME_MAX + Duration::from_secs(30),
            "the last try itself may take some seconds"
        );
    }
}
