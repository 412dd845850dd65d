//! Entries of the log become the state.

use super::Partition;
use super::stepped::Steps;
use ractor::ActorProcessingErr;
use std::sync::Arc;
use trandb_cluster::command::Command;
use trandb_cluster::shared::decode_sharing;
use trandb_runtime::raft::{CommittedEntry, EntryBody, EntryPayload, LogApplied, StoredMembership, witness};

impl Partition {
    pub(super) fn apply(
        &mut self,
        entries: Arc<Vec<CommittedEntry>>,
        reply: ractor::RpcReplyPort<Vec<LogApplied>>,
    ) -> Result<(), ActorProcessingErr> {
        let mut results = Vec::with_capacity(entries.len());
        for entry in entries.iter() {
            results.push(self.apply_entry(entry.clone())?);
        }
        self.replica.covered().set(self.state.last_timestamp());
        let _ = reply.send(results);
        self.wake_released();
        self.take_borrowed()
    }

    pub(super) fn apply_entry(&mut self, entry: CommittedEntry) -> Result<LogApplied, ActorProcessingErr> {
        let index = entry.log_id.index;
        let result = match entry.body {
            EntryBody::Blank => {
                self.skip(index);
                LogApplied::Nothing
            }
            EntryBody::Membership(membership) => {
                self.skip(index);
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                LogApplied::Nothing
            }
            EntryBody::Command(bytes) => {
                self.checkpoint.logged(bytes.len());
                let command: Command = decode_sharing(&bytes)
                    .map_err(|error| format!("{}: log entry {index} cannot be decoded: {error}", self.id))?;
                let steps = Steps::of(&command);
                let applied = self.state.apply(index, command);
                steps.tell(self.id, entry.log_id, &self.state, &applied);
                LogApplied::Data(applied)
            }
        };
        witness::applied(self.id, entry.log_id);
        self.applied = Some(entry.log_id);
        Ok(result)
    }

    /// An entry that does not change the state. A group's first entry, its founding membership, has index zero,
    /// which is where a state begins.
    pub(super) fn skip(&mut self, index: u64) {
        if index > 0 {
            self.state.skip(index);
        }
    }

    /// Applies again, from the log, what comes after the state and before `end`: what Raft has seen applied since the
    /// checkpoint, or since what another replica lent.
    pub(super) fn replay(&mut self, end: u64) -> Result<(), ActorProcessingErr> {
        loop {
            let next = self.applied.map_or(0, |log_id| log_id.index + 1);
            if next >= end {
                return Ok(());
            }
            let entries = self.replica.log.read(next, end, 4 << 20)?;
            if entries.is_empty() {
                return Err(format!("{}: the log lacks entry {next} that was applied before", self.id).into());
            }
            for entry in entries {
                let body = match entry.payload {
                    EntryPayload::Blank => EntryBody::Blank,
                    EntryPayload::Normal(proposal) => EntryBody::Command(proposal.0),
                    EntryPayload::Membership(membership) => EntryBody::Membership(membership),
                };
                self.apply_entry(CommittedEntry { log_id: entry.log_id, body })?;
            }
        }
    }
}
