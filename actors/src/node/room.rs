//! What a node does while its disk has no room, and when there is some again.
//!
//! The log waits by itself ([`trandb_runtime::wal`]) and loses nothing. Meanwhile the node acknowledges nothing, refuses
//! writes with the reason, gives leadership away to whoever has room, and answers reads. A storage engine that
//! met the full disk is good for nothing until it is opened anew, which takes a new start of the node: so that is
//! asked for once there is room. Until then the log is kept.
//!
//! # Caveats
//!
//! A snapshot read waits for the writes that were under way when the log began to wait, and so does not
//! come back before there is room.

use super::Fatal;
use super::handover::keep_handing_over;
use crate::context::NodeContext;
use crate::partition::{LocalPartition, PartitionMessage};
use crate::router::RouterMessage;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use trandb_cluster::PartitionId;
use trandb_runtime::disk::has_room;
use trandb_runtime::engine::EngineError;

/// How often the storage engine is looked at: often enough for a log that grows meanwhile.
const ENGINE_TICK: Duration = Duration::from_secs(10);

/// What an engine should find when it is opened again, in bytes: some checkpoints of small partitions. It only keeps a
/// node from being started again to no use.
pub(super) const ENGINE_ROOM: u64 = 64 << 20;

/// Runs until the node stops.
pub(super) async fn watch_log(context: Arc<NodeContext>) {
    let mut full = context.log_full.clone();
    while full.wait_for(Option::is_some).await.is_ok() {
        context.tell_router(RouterMessage::Publish);
        let local: Vec<PartitionId> = context.local.load().keys().copied().collect();
        for actor in local.into_iter().filter_map(|id| context.partition(id)) {
            // One that died meanwhile has dropped whoever waited.
            let _ = actor.cast(PartitionMessage::Local(LocalPartition::CutOff));
        }
        let has_room = tokio::select! {
            waited = full.wait_for(Option::is_none) => waited.is_ok(),
            // It goes on by itself for as long as it is waited for.
            () = keep_handing_over(&context) => true,
        };
        if !has_room {
            return;
        }
        context.tell_router(RouterMessage::Publish);
    }
}

/// Runs until the node stops, or has to.
pub(super) async fn watch_engine(context: Arc<NodeContext>, directory: PathBuf) {
    loop {
        tokio::time::sleep(ENGINE_TICK).await;
        let directory = directory.clone();
        let look = move |engine: &dyn trandb_runtime::engine::Engine| -> Result<bool, EngineError> {
            Ok(engine.has_failed() && has_room(&directory, ENGINE_ROOM))
        };
        // An engine whose thread has gone has gone with the node.
        if context.engine.run(look).await.is_ok_and(|mend| mend) {
            tracing::error!("the storage engine has failed; the node has to start again from its disk");
            context.give_up(Fatal::engine());
            return;
        }
    }
}
