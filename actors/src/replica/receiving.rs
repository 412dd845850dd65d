//! Snapshots that come in: parts are put together in the group's mailbox, and the whole is handed to Raft.

use super::group::Group;
use crate::partition::SnapshotChunk;
use trandb_cluster::partition::{PartitionRestore, PartitionState};
use trandb_cluster::wire;
use trandb_runtime::raft::{SnapshotData, SnapshotPart};
use trandb_runtime::rpc::Reply;

/// A snapshot of which more is to come.
pub(super) struct Receiving {
    transfer: u64,
    next: u64,
    restore: Restore,
}

enum Restore {
    Nothing,
    Data(Box<PartitionRestore>),
    System(Vec<u8>),
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
                self.receiving = None;
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

    fn add_part(&mut self, part: SnapshotPart) -> Result<(), String> {
        if part.sequence == 0 {
            self.receiving = Some(Receiving { transfer: part.transfer, next: 0, restore: Restore::Nothing });
        }
        let Some(receiving) = &mut self.receiving else { return Err("no snapshot is under way".into()) };
        if (receiving.transfer, receiving.next) != (part.transfer, part.sequence) {
            return Err(format!("part {} came where {} was due", part.sequence, receiving.next));
        }
        receiving.next += 1;
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
