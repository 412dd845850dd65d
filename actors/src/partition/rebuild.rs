//! Rebuilding this replica from another one while the node runs.
//!
//! The state is borrowed at some log index of the lender's, and this replica's own log leads on from there: Raft notices
//! nothing, and what it has seen applied stays applied.
//!
//! ```text
//! step down, if this replica leads
//! borrow the lender's state, at index i ──▶ wait until i is applied here, at index a
//!                                           └─▶ take it, apply i+1 to a again from the log
//!                                               └─▶ write it under a new generation ──durable──▶ alarm ends
//! ```
//!
//! A crash before it is durable finds the old checkpoint, which is checked when it is loaded, and the log. If writing
//! fails, the actor dies for the same reason.
//!
//! **Caveat:** entries between i and a are applied in one go, during which the replica applies nothing new.

use super::Partition;
use super::lend::{LendAnswer, LendCall, Opened};
use super::message::{LocalPartition, PartitionMessage};
use crate::context::NodeContext;
use ractor::ActorProcessingErr;
use ractor::rpc::CallResult;
use std::io;
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::partition::PartitionState;
use trandb_cluster::{NodeId, PartitionId};
use trandb_runtime::raft::{LocalRaft, LogId, RaftMessage, StoredMembership};

/// How long a lender may take for one answer.
const LENDER_MAX: Duration = Duration::from_secs(10);

/// How long handing leadership over may take.
const STEP_DOWN_MAX: Duration = Duration::from_secs(2);

/// From one rebuilding that succeeded to the next at least: should they not help, the node does other things, too.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// After a rebuilding, what was found before it is heard of within this time: a round and a call of the leader's.
const LATE_MAX: Duration = Duration::from_secs(6);

/// Where this replica's rebuilding stands.
#[derive(Debug, Default)]
pub(super) struct Rebuild {
    /// Tells attempts apart; a received snapshot overtakes one.
    run: u64,
    under_way: bool,
    /// Borrowed, and further than this replica.
    waiting: Option<Box<Borrowed>>,
    /// When the last one succeeded, and the index that this replica had applied then.
    done: Option<(Instant, u64)>,
}

/// Another replica's state.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "part of the mailbox, which is public")]
pub struct Borrowed {
    from: NodeId,
    last: LogId,
    membership: StoredMembership,
    state: PartitionState,
}

impl Rebuild {
    /// Whether what was found at `index` is news, and nothing is done about it yet. What was found before the last
    /// rebuilding may be heard of a little after it.
    pub(super) fn may_begin(&self, index: u64) -> bool {
        !self.under_way && self.done.is_none_or(|(at, to)| index > to || at.elapsed() >= LATE_MAX)
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way
    }

    /// The state was replaced otherwise.
    pub(super) fn overtaken(&mut self) {
        *self = Self { run: self.run + 1, done: self.done, ..Self::default() };
    }
}

impl Partition {
    /// Begins to rebuild this replica from one of the lenders.
    pub(super) fn rebuild(&mut self, lenders: Vec<NodeId>) {
        let rebuild = &mut self.audit.rebuild;
        rebuild.run += 1;
        rebuild.under_way = true;
        let run = rebuild.run;
        let earliest = rebuild.done.map(|(at, _)| at + AGAIN_AFTER);
        let (context, id, me) = (self.context.clone(), self.id, self.me.clone());
        tokio::spawn(async move {
            step_down(&context, id, &lenders).await;
            if let Some(earliest) = earliest {
                tokio::time::sleep_until(earliest).await;
            }
            let borrowed = borrow(&context, id, &lenders).await;
            // An actor that died meanwhile has loaded its state anew.
            let _ = me.cast(PartitionMessage::Local(LocalPartition::Borrowed(run, borrowed)));
        });
    }

    /// A lender's state is here, or is not to be had.
    pub(super) fn borrowed(
        &mut self,
        run: u64,
        borrowed: Result<Box<Borrowed>, String>,
    ) -> Result<(), ActorProcessingErr> {
        if run != self.audit.rebuild.run {
            return Ok(());
        }
        match borrowed {
            Ok(borrowed) => {
                self.audit.rebuild.waiting = Some(borrowed);
                self.take_borrowed()
            }
            Err(why) => {
                tracing::warn!(partition = %self.id, why, "a replica was not rebuilt; the next round tries again");
                self.audit.rebuild.under_way = false;
                Ok(())
            }
        }
    }

    /// Takes a borrowed state once this replica has come as far.
    pub(super) fn take_borrowed(&mut self) -> Result<(), ActorProcessingErr> {
        let applied = self.applied.map_or(0, |log_id| log_id.index);
        let Some(borrowed) = self.audit.rebuild.waiting.take_if(|borrowed| borrowed.last.index <= applied)
        else {
            return Ok(());
        };
        let next = borrowed.last.index + 1;
        if next <= applied && self.replica.log.read(next, next + 1, 1)?.is_empty() {
            tracing::warn!(partition = %self.id, next, "a replica was not rebuilt: its log begins later");
            self.audit.rebuild.under_way = false;
            return Ok(());
        }
        let Borrowed { from, last, membership, state } = *borrowed;
        self.state = state;
        self.applied = Some(last);
        self.membership = membership;
        self.forget_loans();
        self.replay(applied + 1)?;
        self.replica.covered().set(self.state.last_timestamp());
        self.is_right_again();
        self.audit.rebuild.done = Some((Instant::now(), applied));
        tracing::info!(partition = %self.id, %from, index = last.index, applied, "replica rebuilt");
        let run = self.audit.rebuild.run;
        self.write_replacing(move |me, written| {
            // An actor that died meanwhile has loaded what is durable.
            let _ = me.cast(PartitionMessage::Local(LocalPartition::Rebuilt(run, written)));
        });
        Ok(())
    }

    /// The new state is durable, or cannot be made so.
    pub(super) fn rebuilt(&mut self, run: u64, written: io::Result<()>) -> Result<(), ActorProcessingErr> {
        if run != self.audit.rebuild.run {
            return Ok(());
        }
        written.map_err(|error| format!("{}: the rebuilt state was not written: {error}", self.id))?;
        self.audit.rebuild.under_way = false;
        self.end_own_alarm();
        self.context.gauges.rebuilt(self.id);
        tracing::info!(partition = %self.id, "the rebuilt replica is durable");
        Ok(())
    }
}

/// Has one of the lenders lead, if this replica does.
async fn step_down(context: &NodeContext, id: PartitionId, lenders: &[NodeId]) {
    for &to in lenders.iter().filter(|&&to| to != context.node) {
        if !context.raft(id).is_some_and(|raft| raft.is_leader()) {
            return;
        }
        let Some(group) = context.group(id) else { return };
        let transfer = |reply| RaftMessage::Local(LocalRaft::TransferTo(to, reply));
        match group.call(transfer, Some(STEP_DOWN_MAX)).await {
            Ok(CallResult::Success(Ok(()))) => return,
            Ok(CallResult::Success(Err(why))) => {
                tracing::warn!(partition = %id, %to, why, "a wrong replica still leads");
            }
            _ => tracing::warn!(partition = %id, %to, "a wrong replica still leads"),
        }
    }
}

async fn borrow(context: &NodeContext, id: PartitionId, lenders: &[NodeId]) -> Result<Box<Borrowed>, String> {
    let mut last = "there is no lender".to_owned();
    for &from in lenders.iter().filter(|&&from| from != context.node) {
        match borrow_from(context, id, from).await {
            Ok(borrowed) => return Ok(Box::new(borrowed)),
            Err(why) => last = format!("{from}: {why}"),
        }
    }
    Err(last)
}

async fn borrow_from(context: &NodeContext, id: PartitionId, from: NodeId) -> Result<Borrowed, String> {
    let LendAnswer::Opened(opened) = ask(context, id, from, LendCall::Open).await? else {
        return Err("an unexpected answer".into());
    };
    let Opened { loan, header, last, membership } = *opened;
    let mut restore = PartitionState::restore_from_snapshot(header);
    let mut after = None;
    let received = loop {
        match ask(context, id, from, LendCall::Chunk { loan, after: after.take() }).await {
            Ok(LendAnswer::Chunk(versions, resume)) => {
                versions.into_iter().for_each(|version| restore.add(version));
                match resume {
                    None => break Ok(()),
                    resume => after = resume,
                }
            }
            Ok(_) => break Err("an unexpected answer".to_owned()),
            Err(why) => break Err(why),
        }
    };
    // A loan that is not closed ends by itself.
    let _ = ask(context, id, from, LendCall::Close { loan }).await;
    received?;
    let state = restore.finish().map_err(|error| error.to_string())?;
    Ok(Borrowed { from, last, membership, state })
}

async fn ask(
    context: &NodeContext,
    id: PartitionId,
    from: NodeId,
    call: LendCall,
) -> Result<LendAnswer, String> {
    let make = |reply| PartitionMessage::Lend(call, reply);
    let answer = context.hub.call(from, &id.to_string(), LENDER_MAX, 256, make).await;
    answer.map_err(|error| error.to_string())?
}
