//! A node's memory: measured ten times a second, and what may be put until the next time.
//!
//! [`Budget`] decides; here is what carries it out. Leaders ask before they take values (`Memory::admit`); what cannot
//! be refused any more, since it is part of a commit under way, is counted all the same (`Memory::charge`). Followers
//! cannot refuse what their leader has put in the log, so a full node says so with its heartbeats, and then leaders put
//! nothing in partitions that it keeps.
//!
//! # Caveats
//!
//! What is on its way when a node becomes full still comes, and so does what others lead until they hear of it: an eighth
//! of the limit is kept for that.

use crate::context::NodeContext;
use crate::partition::{LocalPartition, PartitionMessage};
use crate::router::RouterMessage;
use metrics::{counter, gauge};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use trandb_cluster::memory::{Budget, Usage};
use trandb_cluster::{Error, PartitionId};
use trandb_runtime::memory::Meter;

/// Between two readings. In that time a busy node puts some 10 MB.
const READ: Duration = Duration::from_millis(100);

/// What a value costs beside its own bytes and its key's, whatever its size: its places in the state, in the log's buffers
/// and in what waits to be checkpointed.
const PUT_OVERHEAD_BYTES: usize = 256;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Memory {
    /// None where nothing is limited.
    limit: Option<u64>,
    full: AtomicBool,
    /// Bytes that may be put until the next reading.
    allowance: AtomicU64,
    allocated: AtomicU64,
    resident: AtomicU64,
}

impl Memory {
    /// With so many bytes; without a limit, nothing is refused. Nothing is before the first reading, either.
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self { limit, allowance: AtomicU64::new(u64::MAX), ..Self::default() }
    }

    /// Whether no value is put on this node.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Takes `count` values of so many bytes in all, if there is room.
    pub(crate) fn admit(&self, count: usize, bytes: usize) -> bool {
        if self.limit.is_none() {
            return true;
        }
        let cost = (bytes + count * PUT_OVERHEAD_BYTES) as u64;
        let take = |left: u64| left.checked_sub(cost);
        !self.is_full() && self.allowance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Counts values that are taken whether there is room or not.
    pub(crate) fn charge(&self, count: usize, bytes: usize) {
        let cost = (bytes + count * PUT_OVERHEAD_BYTES) as u64;
        let take = |left: u64| Some(left.saturating_sub(cost));
        let _ = self.allowance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
    }

    /// Takes a reading; whether the node has become full, or is so no more.
    fn read(&self, budget: &mut Budget, usage: Usage) -> bool {
        let reading = budget.read(usage);
        self.allocated.store(usage.allocated.unwrap_or(0), Ordering::Relaxed);
        self.resident.store(usage.resident, Ordering::Relaxed);
        self.allowance.store(reading.allowance, Ordering::Relaxed);
        self.full.swap(reading.full, Ordering::Relaxed) != reading.full
    }

    /// What a node says of its memory when it is full.
    fn described(&self) -> String {
        let mib = |bytes: u64| bytes >> 20;
        let of = |bytes: &AtomicU64| mib(bytes.load(Ordering::Relaxed));
        let limit = mib(self.limit.unwrap_or(0));
        format!(
            "{} MiB allocated and {} MiB resident of {limit} MiB",
            of(&self.allocated),
            of(&self.resident)
        )
    }
}

impl NodeContext {
    /// Why no value can be put on this node for lack of memory.
    pub(crate) fn no_memory(&self) -> Option<Error> {
        let why = || format!("{} takes no values: {}", self.node, self.memory.described());
        self.memory.is_full().then(|| Error::out_of_memory(why()))
    }

    /// Why no value may be put in a partition for lack of memory at another node that keeps it.
    fn no_memory_at(&self, partition: PartitionId) -> Option<Error> {
        let routes = self.routes.borrow().clone();
        if routes.full.is_empty() {
            return None;
        }
        let peers = self.hub.states().borrow().clone();
        // What a node said before it was lost is of the past.
        let full = |node| routes.full.contains(&node) && peers.get(&node).is_some_and(|peer| peer.is_up());
        let node = routes.voters(partition)?.iter().copied().find(|&node| full(node))?;
        Some(Error::out_of_memory(format!(
            "{partition} takes no values: {node}, which keeps it, has no memory left"
        )))
    }

    /// Takes `count` values of so many bytes in all for a partition.
    ///
    /// # Errors
    /// `overloaded` for lack of memory, here or at another node that keeps the partition.
    pub(crate) fn admit(&self, partition: PartitionId, count: usize, bytes: usize) -> Result<(), Error> {
        let refused = match self.no_memory_at(partition) {
            None if self.memory.admit(count, bytes) => return Ok(()),
            None => self.no_memory().unwrap_or_else(|| {
                let why = "takes no more values for the moment, its memory is nearly used up";
                Error::out_of_memory(format!("{} {why}: {}", self.node, self.memory.described()))
            }),
            Some(elsewhere) => elsewhere,
        };
        counter!("trandb_memory_refused_writes_total").increment(count as u64);
        Err(refused)
    }
}

/// Reads the meter again and again. Runs until the node stops; not at all where nothing is limited.
pub(crate) async fn watch(context: Arc<NodeContext>, meter: Arc<dyn Meter>) {
    let Some(limit) = context.memory.limit else { return };
    gauge!("trandb_memory_limit_bytes").set(limit as f64);
    gauge!("trandb_memory_full").set(0.0);
    counter!("trandb_memory_refused_writes_total").increment(0);
    let mut budget = Budget::new(limit);
    let mut tick = tokio::time::interval(READ);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(usage) = meter.usage() else { return };
        let changed = context.memory.read(&mut budget, usage);
        if let Some(allocated) = usage.allocated {
            gauge!("trandb_memory_allocated_bytes").set(allocated as f64);
        }
        gauge!("trandb_memory_resident_bytes").set(usage.resident as f64);
        if !changed {
            continue;
        }
        let full = context.memory.is_full();
        gauge!("trandb_memory_full").set(f64::from(u8::from(full)));
        let usage = context.memory.described();
        if full {
            tracing::warn!(usage, "memory is used up: no values are put until there is room");
            // Garbage goes only with checkpoints.
            let local = context.local.load();
            for actor in local.values().filter_map(|replica| replica.actor()) {
                // One that died meanwhile looks by itself when it runs again.
                let _ = actor.cast(PartitionMessage::Local(LocalPartition::Collect));
            }
        } else {
            tracing::info!(usage, "there is memory again: values are put");
        }
        context.tell_router(RouterMessage::Publish);
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
