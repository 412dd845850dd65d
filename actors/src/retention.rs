//! Keeps the log short: a group that writes little would otherwise hold on to old segments for ever, since Raft
//! keeps some thousand entries for followers that lag, however old they are.
//!
//! Once a second the log is asked who keeps alive segments too far behind, which depends on how much live data the node
//! has (`cluster::log_bounds`). Such a group is checkpointed until the entries in those segments lie below its previous
//! checkpoint, and then they are purged. A follower that still wanted them gets a snapshot instead.
//!
//! # Caveats
//!
//! Entries that a group cannot commit (it has no majority) must stay, and their segments with them: this is warned
//! of. Moving them into a new segment would take a record that replaces an entry and keeps those after it.

use crate::context::NodeContext;
use crate::partition::{LocalPartition, PartitionMessage};
use crate::replica::SystemMachine;
use crate::wal::WalMessage;
use ractor::ActorRef;
use ractor::rpc::CallResult;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::PartitionId;
use trandb_cluster::log_bounds::LogBounds;
use trandb_runtime::config::StorageConfig;
use trandb_runtime::raft::{Raft, WatchReceiver};
use trandb_runtime::wal::Pinned;

/// How often the log is looked at.
const TICK: Duration = Duration::from_secs(1);

/// How long the log is waited for: it answers between two batches.
const LOG_DEADLINE: Duration = Duration::from_secs(10);

/// A group that is still pinning after so long is warned of, and again each time as long.
const WARN_AFTER: Duration = Duration::from_secs(60);

/// Segments behind the current one from which on they should go, with so many bytes of live data.
fn segments_behind(storage: &StorageConfig, live_bytes: u64) -> usize {
    let bounds = LogBounds { checkpoint_bytes_max: storage.checkpoint_log_bytes };
    bounds.segments_behind(live_bytes, storage.wal_segment_bytes)
}

/// Lets old segments go. Runs until the node stops.
pub(crate) async fn keep_log_short(
    context: Arc<NodeContext>,
    system: Arc<SystemMachine>,
    log: ActorRef<WalMessage>,
) {
    let mut since: BTreeMap<PartitionId, Instant> = BTreeMap::new();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let live_bytes = context.local.load().values().map(|replica| replica.live_bytes()).sum();
        let behind = segments_behind(&context.config.storage, live_bytes);
        // A log that is busy or gone is somebody else's trouble.
        let Ok(CallResult::Success(pinned)) =
            log.call(|reply| WalMessage::PinnedBy(behind, reply), Some(LOG_DEADLINE)).await
        else {
            continue;
        };
        since.retain(|id, _| pinned.iter().any(|pinned| pinned.group == *id));
        for Pinned { group, upto } in pinned {
            let from = since.entry(group).or_insert_with(Instant::now);
            if from.elapsed() >= WARN_AFTER {
                *from = Instant::now();
                tracing::warn!(partition = %group, upto, segments = behind,
                    "the group's entries cannot be purged and keep old log segments alive");
            }
            unpin(&context, &system, group, upto).await;
        }
    }
}

/// One step towards purging the group's entries up to `upto`. A group that is being restarted is tried again.
async fn unpin(context: &NodeContext, system: &SystemMachine, group: PartitionId, upto: u64) {
    let (raft, durable) = if group.is_system() {
        if system.purgeable() < Some(upto)
            && let Err(error) = system.checkpoint().await
        {
            tracing::error!(%error, "the system group's checkpoint failed; its log is kept");
            context.gauges.checkpoint_failed();
            return;
        }
        (context.system_raft(), system.purgeable())
    } else {
        let Some(replica) = context.local.load().get(&group).cloned() else { return };
        let durable = replica.purgeable();
        if durable < Some(upto)
            && let Some(actor) = replica.actor()
        {
            // An actor that has just died is asked again when its successor runs.
            let _ = actor.cast(PartitionMessage::Local(LocalPartition::Checkpoint));
        }
        (replica.raft(), durable)
    };
    if let (Some(raft), Some(durable)) = (raft, durable) {
        purge(&raft, upto.min(durable)).await;
    }
}

/// Has Raft purge its log, as far as it knows it to be in a checkpoint.
async fn purge(raft: &Raft, upto: u64) {
    // What Raft takes for the checkpoint after a start is what it found applied, so the caller's bound counts, too.
    let (known, purged) = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        (metrics.snapshot.as_ref().map(|id| id.index), metrics.purged.as_ref().map(|id| id.index))
    };
    // A Raft that has stopped is asked again after its restart.
    if known < Some(upto) {
        let _ = raft.trigger().snapshot().await;
    } else if purged < Some(upto) {
        let _ = raft.trigger().purge_log(upto).await;
    }
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
