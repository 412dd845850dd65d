//! One group's log: an index over the node's shared write-ahead log, with the recent entries in memory.
//!
//! What Raft reads most, the entries that it replicates next, was appended a moment ago and is still cached;
//! older entries are read back from their segment. Entries leave the cache oldest first, once they are
//! written, when the group's cache is full.
//!
//! The committed log id is no promise that anything rests on: it only spares a restarted group a round. It
//! rides along with the next append instead of paying for a sync of its own.

use super::codec::{decode_entry, encode_entry};
use super::types::{LogId, TypeConfig, Vote};
use super::witness;
use crate::planted::{Planted, is_planted};
use crate::wal::{Done, Location, Record, RecordKind, RecoveredGroup, WalReader};
use bytes::Bytes;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::type_config::alias::EntryOf;
use openraft::vote::RaftLeaderIdExt;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard};
use trandb_cluster::{PartitionId, wire};

/// Bytes of entries that a group keeps decoded. Followers that lag further read from disk.
const CACHE_BYTES_MAX: usize = 4 << 20;

/// Entries that stay decoded however large they are: they are about to be sent to followers and applied, and 4 MiB read
/// back from disk for each would cost more than all else that is done with them. As many as a leader has in flight.
const CACHE_ENTRIES_MIN: usize = 4;

/// Bytes of entries after which one replication message ends, though it always holds one entry: Raft counts
/// only entries, and 4 MiB values would make messages of gigabytes.
const READ_BYTES_MAX: usize = 1 << 20;

/// Where a group's records go: the actor that owns the write-ahead log. Records become durable in the order
/// of the calls.
pub trait LogSink: Send + Sync + 'static {
    /// Queues `records`; `done` is called exactly once.
    fn submit(&self, records: Vec<Record>, done: Done);
}

/// One group's log. Clones share it.
#[derive(Clone)]
pub struct GroupLog {
    group: PartitionId,
    sink: Arc<dyn LogSink>,
    reader: WalReader,
    lz4_from: usize,
    state: Arc<Mutex<State>>,
}

struct State {
    vote: Option<Vote>,
    committed: Option<LogId>,
    /// The committed id has moved since it was last written.
    committed_dirty: bool,
    purged: Option<LogId>,
    /// The index of `slots[0]`; meaningless while there are none.
    first: u64,
    slots: VecDeque<Slot>,
    cached_bytes: usize,
    /// Slots before this one (counted from `first`) are not cached any more.
    evicted: usize,
}

struct Slot {
    log_id: LogId,
    bytes: usize,
    entry: Option<EntryOf<TypeConfig>>,
    location: Option<Location>,
}

impl GroupLog {
    /// A group's log as recovery found it, or an empty one.
    ///
    /// # Errors
    /// `InvalidData` when the recovered hard state cannot be decoded or entries are not consecutive.
    pub fn new(
        group: PartitionId,
        sink: Arc<dyn LogSink>,
        reader: WalReader,
        recovered: Option<RecoveredGroup>,
    ) -> io::Result<Self> {
        let recovered = recovered.unwrap_or_default();
        let mut state = State {
            vote: recovered.hard_state.as_ref().map(|bytes| stored(bytes)).transpose()?,
            committed: recovered.committed.as_ref().map(|bytes| stored(bytes)).transpose()?,
            committed_dirty: false,
            purged: recovered.purged.as_ref().map(|(_, bytes)| stored(bytes)).transpose()?,
            first: 0,
            slots: VecDeque::with_capacity(recovered.entries.len()),
            cached_bytes: 0,
            evicted: 0,
        };
        for (index, (term, location)) in recovered.entries {
            let expected = state.slots.back().map(|slot| slot.log_id.index + 1);
            if expected.is_some_and(|expected| expected != index) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{group}: the log has entry {index} where {expected:?} should follow"),
                ));
            }
            if state.slots.is_empty() {
                state.first = index;
            }
            state.slots.push_back(Slot {
                log_id: log_id(term, index),
                bytes: location.bytes as usize,
                entry: None,
                location: Some(location),
            });
        }
        state.evicted = state.slots.len();
        Ok(Self { group, sink, reader, lz4_from: usize::MAX, state: Arc::new(Mutex::new(state)) })
    }

    /// Compresses commands of so many bytes and more from now on, and reads them however they were written; zero
    /// compresses none.
    #[must_use]
    pub fn with_lz4_from(mut self, bytes: u64) -> Self {
        self.lz4_from = if bytes == 0 { usize::MAX } else { usize::try_from(bytes).unwrap_or(usize::MAX) };
        self
    }

    /// Whether nothing was ever written to it: no vote, no entry.
    pub fn is_pristine(&self) -> bool {
        let state = self.state();
        state.vote.is_none() && state.slots.is_empty() && state.purged.is_none()
    }

    /// Entries that are in the log and not purged.
    pub fn len(&self) -> u64 {
        self.state().slots.len() as u64
    }

    /// Whether no entry is in the log.
    pub fn is_empty(&self) -> bool {
        self.state().slots.is_empty()
    }

    /// Entries from `start` to `end` (exclusive) as far as they exist, in order; stops after `bytes_max` but
    /// holds one entry if there is one.
    ///
    /// # Errors
    /// When a segment cannot be read or its record is corrupt.
    pub fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<EntryOf<TypeConfig>>> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for index in start..end {
            // One slot at a time: reading from disk must not hold the lock that appends need.
            let (log_id, location) = {
                let state = self.state();
                let Some(slot) = state.slot(index) else { break };
                if bytes > 0 && bytes + slot.bytes > bytes_max {
                    break;
                }
                bytes += slot.bytes;
                if let Some(entry) = &slot.entry {
                    entries.push(entry.clone());
                    continue;
                }
                (slot.log_id, slot.location.expect("only a written entry leaves the cache"))
            };
            let record = self.reader.read(location).map_err(io::Error::other)?;
            if (record.group, record.index, record.term) != (self.group, index, log_id.leader_id.term) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "{}: {location:?} holds entry {} of {}, not {log_id}",
                        self.group, record.index, record.group
                    ),
                ));
            }
            entries.push(decode_entry(log_id, &record.payload)?);
        }
        Ok(entries)
    }

    /// Forgets the group wholly: its replica left this node.
    pub async fn drop_group(&self) -> io::Result<()> {
        {
            let mut state = self.state();
            state.slots.clear();
            state.vote = None;
            state.committed = None;
            state.purged = None;
            state.cached_bytes = 0;
            state.evicted = 0;
        }
        self.write(vec![self.record(RecordKind::Dropped, 0, 0, Bytes::new())]).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    fn record(&self, kind: RecordKind, term: u64, index: u64, payload: Bytes) -> Record {
        Record { group: self.group, kind, term, index, payload }
    }

    /// Writes records and waits until they are durable.
    async fn write(&self, records: Vec<Record>) -> io::Result<()> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.sink.submit(
            records,
            Box::new(move |result| {
                // A receiver that is gone has stopped caring.
                let _ = sender.send(result.map(drop));
            }),
        );
        match receiver.await {
            Ok(result) => result.map_err(io::Error::other),
            Err(_) => Err(io::Error::other("the write-ahead log has stopped")),
        }
    }
}

impl State {
    fn slot(&self, index: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    fn last_log_id(&self) -> Option<LogId> {
        self.slots.back().map(|slot| slot.log_id).or(self.purged)
    }

    /// Drops decoded entries, oldest first, until the cache fits.
    fn evict(&mut self) {
        while self.cached_bytes > CACHE_BYTES_MAX && self.evicted + CACHE_ENTRIES_MIN < self.slots.len() {
            let slot = &mut self.slots[self.evicted];
            if slot.location.is_none() {
                break;
            }
            if slot.entry.take().is_some() {
                self.cached_bytes -= slot.bytes;
            }
            self.evicted += 1;
        }
    }

    fn forget_front(&mut self, upto: u64) {
        while self.slots.front().is_some_and(|slot| slot.log_id.index <= upto) {
            let slot = self.slots.pop_front().expect("just seen");
            if slot.entry.is_some() {
                self.cached_bytes -= slot.bytes;
            }
            self.first = slot.log_id.index + 1;
            self.evicted = self.evicted.saturating_sub(1);
        }
    }

    fn forget_back(&mut self, after: Option<u64>) {
        while self.slots.back().is_some_and(|slot| after.is_none_or(|after| slot.log_id.index > after)) {
            let slot = self.slots.pop_back().expect("just seen");
            if slot.entry.is_some() {
                self.cached_bytes -= slot.bytes;
            }
        }
        self.evicted = self.evicted.min(self.slots.len());
    }
}

/// The id of an entry of that term, as logs name it.
pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(openraft::impls::leader_id_std::LeaderId::<u64, u64>::new_committed(term, 0), index)
}

fn stored<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    wire::decode(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn to_store<T: Serialize>(value: &T) -> Bytes {
    wire::encode(value).into()
}

impl RaftLogReader<TypeConfig> for GroupLog {
    async fn try_get_log_entries<R>(&mut self, range: R) -> io::Result<Vec<EntryOf<TypeConfig>>>
    where
        R: RangeBounds<u64> + Clone + Debug + Send,
    {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let start = {
            let state = self.state();
            if state.slots.is_empty() {
                return Ok(Vec::new());
            }
            start.max(state.first)
        };
        self.read(start, end, usize::MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.state().vote)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> io::Result<Vec<EntryOf<TypeConfig>>> {
        self.read(start, end, READ_BYTES_MAX)
    }
}

impl RaftLogStorage<TypeConfig> for GroupLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.state();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last_log_id() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.state().vote = Some(*vote);
        if is_planted(Planted::ForgetVote) {
            return Ok(());
        }
        let term = vote.leader_id.term;
        self.write(vec![self.record(RecordKind::HardState, term, 0, to_store(vote))]).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let mut state = self.state();
        state.committed = committed;
        state.committed_dirty = true;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.state().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = EntryOf<TypeConfig>> + Send,
        I::IntoIter: Send,
    {
        let mut records = Vec::new();
        let mut indices = Vec::new();
        {
            let mut state = self.state();
            for entry in entries {
                let log_id = entry.log_id;
                let record = self.record(
                    RecordKind::Entry,
                    log_id.leader_id.term,
                    log_id.index,
                    encode_entry(&entry, self.lz4_from),
                );
                witness::appended(self.group, state.last_log_id(), &entry);
                let bytes = record.payload.len() + 64;
                if state.slots.is_empty() {
                    state.first = log_id.index;
                    state.evicted = 0;
                }
                state.slots.push_back(Slot { log_id, bytes, entry: Some(entry), location: None });
                state.cached_bytes += bytes;
                indices.push(log_id);
                records.push(record);
            }
            if std::mem::take(&mut state.committed_dirty)
                && let Some(committed) = &state.committed
            {
                let payload = to_store(committed);
                records.push(self.record(
                    RecordKind::Committed,
                    committed.leader_id.term,
                    committed.index,
                    payload,
                ));
            }
        }
        let shared = self.state.clone();
        self.sink.submit(
            records,
            Box::new(move |result| match result {
                Ok(locations) => {
                    let mut state = shared.lock().expect("no holder of the lock panics");
                    for (log_id, location) in indices.into_iter().zip(locations) {
                        let first = state.first;
                        // An entry that was truncated meanwhile has no slot, or another entry's.
                        if let Some(at) = log_id.index.checked_sub(first)
                            && let Some(slot) = state.slots.get_mut(at as usize)
                            && slot.log_id == log_id
                        {
                            slot.location = Some(location);
                        }
                    }
                    state.evict();
                    drop(state);
                    callback.io_completed(Ok(()));
                }
                Err(error) => callback.io_completed(Err(io::Error::other(error))),
            }),
        );
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.state().forget_back(last.map(|id| id.index));
        let (term, index) = last.map_or((0, 0), |id| (id.leader_id.term, id.index));
        self.write(vec![self.record(RecordKind::TruncateAfter, term, index, Bytes::new())]).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        {
            let mut state = self.state();
            state.purged = Some(upto);
            state.forget_front(upto.index);
        }
        let record = self.record(RecordKind::PurgedTo, upto.leader_id.term, upto.index, to_store(&upto));
        self.write(vec![record]).await
    }
}
