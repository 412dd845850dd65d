//! The database as the doors see it: any operation, from any node, done wherever its key lives.
//!
//! Operations are grouped by partition and sent to the partition's leader, here or on another node. What was
//! surely not done is tried again, while a new leader is awaited, for as long as `limits.leader_wait_ms`
//! and the deadline allow. A write that may have been done is never tried again: its outcome is `unknown`.

mod checkpoint;
mod scan;
mod txn;
mod verify;
mod view;

pub(crate) use scan::Range;
pub(crate) use txn::ended;

use crate::context::NodeContext;
use crate::gateway::LARGE_BYTES;
#[cfg(debug_assertions)]
use crate::partition::LocalPartition;
use crate::partition::{Answer, Execute, PartitionMessage};
use crate::router::Routes;
use futures_util::future::join_all;
use ractor::MessagingErr;
use ractor::rpc::CallResult;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use trandb_cluster::wire::{KeyOp, KeyResult, TraceContext};
use trandb_cluster::{ClusterId, EncodedKey, Error, KeyspaceId, NodeId, PartitionId, Timestamp};
use trandb_runtime::planted::{Planted, is_planted};
use trandb_runtime::rpc::{Reply, RpcError};

/// How long to wait before a misdirected operation is tried again when nothing new is heard meanwhile.
const RETRY: Duration = Duration::from_millis(15);

/// Operations of one call to a partition: bounds the size of its messages.
const OPS_PER_CALL_MAX: usize = 256;

/// Bytes of one call to a partition, though it always holds one operation.
const BYTES_PER_CALL_MAX: usize = 1 << 20;

/// What a request brings along.
#[derive(Debug, Clone, Copy)]
pub struct RequestContext {
    /// When nobody waits for the answer any more.
    pub deadline: Instant,
    /// The span that it is part of.
    pub trace: Option<TraceContext>,
}

/// What came of an operation.
#[derive(Debug, Clone, PartialEq)]
pub struct OpReply {
    /// The result, or why there is none.
    pub result: Result<KeyResult, Error>,
    /// It was done on another node.
    pub forwarded: bool,
}

/// Whether a node should be sent requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// It should.
    pub ready: bool,
    /// Why not; empty when ready.
    pub reasons: Vec<String>,
    /// What is wrong though it should: a part of what it is asked is refused.
    pub details: Vec<String>,
}

/// The database. Clones share it.
#[derive(Clone)]
pub struct Database {
    context: Arc<NodeContext>,
    routes: watch::Receiver<Arc<Routes>>,
}

/// Operations for one partition on their way, and which results they are.
struct Group {
    partition: PartitionId,
    ops: Arc<Vec<KeyOp>>,
    places: Vec<usize>,
    writes: bool,
}

impl Database {
    /// The database of a node.
    pub fn new(context: Arc<NodeContext>) -> Self {
        let routes = context.routes.subscribe();
        Self { context, routes }
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.context.node
    }

    /// Its cluster; none while it is forming.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.context.system().cluster_id
    }

    /// The keyspace of that name; none is `default`.
    ///
    /// # Errors
    /// `not_found` for one that does not exist, `unavailable` while the node does not know its cluster.
    pub fn keyspace(&self, name: Option<&str>) -> Result<KeyspaceId, Error> {
        self.routes.borrow().table.keyspace(name)
    }

    /// A keyspace's name, for a label.
    pub(crate) fn keyspace_name(&self, id: KeyspaceId) -> String {
        let routes = self.routes.borrow();
        let name = routes.table.keyspaces().find(|(_, known)| *known == id).map(|(name, _)| name.to_owned());
        name.unwrap_or_else(|| id.to_string())
    }

    /// Whether a value of so many bytes may be put: by this node, which holds it until it is committed, and where it is
    /// kept.
    ///
    /// # Errors
    /// `overloaded` for lack of memory at either.
    pub(crate) fn admit(&self, key: &EncodedKey, bytes: usize) -> Result<(), Error> {
        let partition = self.routes.borrow().table.partition_of(key.token());
        // Without a map nothing is committed, either; whoever commits is told so.
        let Some(partition) = partition else { return Ok(()) };
        self.context.admit(partition, 1, key.as_bytes().len() + bytes)
    }

    /// Makes this node's actor of a partition panic, to see its supervisor at work. Debug builds only.
    ///
    /// # Errors
    /// `not_found` when it has none.
    #[cfg(debug_assertions)]
    pub fn panic_partition(&self, partition: PartitionId) -> Result<(), Error> {
        let actor = self.context.partition(partition);
        actor
            .and_then(|actor| actor.cast(PartitionMessage::Local(LocalPartition::Panic)).ok())
            .ok_or_else(|| Error::not_found(format!("no actor of {partition} runs here")))
    }

    /// Changes one byte of a key's value in the memory of this node's replica, and its digest or not. Debug builds only.
    ///
    /// # Errors
    /// `not_found` when there is no replica here, or no value to change.
    #[cfg(debug_assertions)]
    pub async fn flip_byte(&self, key: EncodedKey, with_digest: bool) -> Result<(), Error> {
        let partition = self.routes.borrow().table.partition_of(key.token());
        let actor = partition.and_then(|partition| self.context.partition(partition));
        let actor = actor.ok_or_else(|| Error::not_found("no replica of the key's partition runs here"))?;
        let flip = |reply| PartitionMessage::Local(LocalPartition::Flip(key, with_digest, reply));
        match actor.call(flip, Some(Duration::from_secs(5))).await {
            Ok(CallResult::Success(true)) => Ok(()),
            Ok(CallResult::Success(false)) => Err(Error::not_found("the key has no value with a byte in it")),
            _ => Err(Error::unavailable("the partition's actor gave no answer")),
        }
    }

    /// Does operations on keys; results come in the same order. They may be done in any order.
    pub async fn execute(&self, ops: Vec<KeyOp>, context: &RequestContext) -> Vec<OpReply> {
        if let Err(error) = self.check_past(&ops, context).await {
            return ops.iter().map(|_| OpReply { result: Err(error.clone()), forwarded: false }).collect();
        }
        self.execute_settled(ops, context).await
    }

    /// Does operations none of which reads the future.
    pub(crate) async fn execute_settled(&self, ops: Vec<KeyOp>, context: &RequestContext) -> Vec<OpReply> {
        let total = ops.len();
        let groups = match self.group(ops) {
            Ok(groups) => groups,
            Err((total, error)) => {
                return (0..total)
                    .map(|_| OpReply { result: Err(error.clone()), forwarded: false })
                    .collect();
            }
        };
        let mut replies: Vec<Option<OpReply>> = vec![None; total];
        let runs = groups.into_iter().map(|group| async move {
            let done = self.run(&group, context).await;
            (group.places, done)
        });
        for (places, done) in join_all(runs).await {
            match done {
                Ok((results, forwarded)) => {
                    for (place, result) in places.into_iter().zip(results) {
                        replies[place] = Some(OpReply { result, forwarded });
                    }
                }
                Err(error) => {
                    for place in places {
                        replies[place] = Some(OpReply { result: Err(error.clone()), forwarded: false });
                    }
                }
            }
        }
        let missing = || Error::internal("a partition answered fewer results than it was asked for");
        replies
            .into_iter()
            .map(|reply| reply.unwrap_or_else(|| OpReply { result: Err(missing()), forwarded: false }))
            .collect()
    }

    /// Parts operations by partition, and reads from writes: the two are answered at different times.
    fn group(&self, ops: Vec<KeyOp>) -> Result<Vec<Group>, (usize, Error)> {
        /// Operations, which results they are, and their bytes.
        type Part = (Vec<KeyOp>, Vec<usize>, usize);
        let routes = self.routes.borrow().clone();
        let total = ops.len();
        let mut parts: BTreeMap<(PartitionId, bool), Part> = BTreeMap::new();
        let mut full: Vec<Group> = Vec::new();
        for (place, op) in ops.into_iter().enumerate() {
            let Some(partition) = routes.table.partition_of(op.key().token()) else {
                return Err((total, Error::unavailable("the partition map is not known yet")));
            };
            let writes = op.is_write();
            let (ops, places, bytes) = parts.entry((partition, writes)).or_default();
            let weight = op.weight();
            if !ops.is_empty() && (ops.len() >= OPS_PER_CALL_MAX || *bytes + weight > BYTES_PER_CALL_MAX) {
                let (ops, places) = (std::mem::take(ops), std::mem::take(places));
                *bytes = 0;
                full.push(Group { partition, ops: Arc::new(ops), places, writes });
            }
            ops.push(op);
            places.push(place);
            *bytes += weight;
        }
        full.extend(parts.into_iter().map(|((partition, writes), (ops, places, _))| Group {
            partition,
            ops: Arc::new(ops),
            places,
            writes,
        }));
        Ok(full)
    }

    async fn run(
        &self,
        group: &Group,
        context: &RequestContext,
    ) -> Result<(Vec<Result<KeyResult, Error>>, bool), Error> {
        if let Some(results) = self.keys_here(group.partition, &group.ops, context).await {
            return Ok((results, false));
        }
        let weight = group.ops.iter().map(KeyOp::weight).sum();
        let large = group.ops.iter().map(KeyOp::weight).filter(|&weight| weight > LARGE_BYTES).sum();
        let _turn = if group.writes && weight > LARGE_BYTES {
            Some(self.context.large_writes.turn(large, context.deadline).await?)
        } else {
            None
        };
        let call = Call { partition: group.partition, writes: group.writes, weight };
        self.at_leader(&call, context, |reply| {
            PartitionMessage::Execute(Execute { ops: group.ops.clone(), trace: context.trace }, reply)
        })
        .await
    }

    /// Sends a message to a partition's leader, wherever it is, again if it was surely not done.
    async fn at_leader<T>(
        &self,
        call: &Call,
        context: &RequestContext,
        make: impl Fn(Reply<Answer<T>>) -> PartitionMessage,
    ) -> Result<(T, bool), Error>
    where
        T: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
    {
        let wait_until = context
            .deadline
            .min(Instant::now() + Duration::from_millis(self.context.config.limits.leader_wait_ms));
        let partition = call.partition;
        let mut routes = self.routes.clone();
        let mut hint = None;
        loop {
            let leader = hint.take().or_else(|| routes.borrow_and_update().leader(partition));
            let why = match leader {
                None => Error::unavailable(format!("{partition} has no leader")),
                Some(leader) => match self.call(leader, call, context.deadline, &make).await {
                    Ok(Answer::Done(value)) => return Ok((value, leader != self.context.node)),
                    Ok(Answer::NotLeader { leader: other }) => {
                        hint = other.filter(|&other| other != leader);
                        Error::unavailable(format!("{leader} does not lead {partition}"))
                    }
                    // This node has lost touch with the others, so it will not hear of another leader either.
                    Ok(Answer::CutOff(error)) if leader == self.context.node => return Err(error),
                    Ok(Answer::CutOff(error)) => error,
                    Ok(Answer::Failed(error)) if error.is_retryable() => error,
                    Ok(Answer::Failed(error)) => return Err(error),
                    Err(error) => self.judge(error, leader, call)?,
                },
            };
            if Instant::now() + RETRY >= wait_until {
                return Err(why);
            }
            // Wakes for news of any leader, which costs a look; else tries again after a while.
            let _ = tokio::time::timeout(RETRY, routes.changed()).await;
        }
    }

    /// Whether a failed call may be tried again (the reason, should that fail, too) or is over.
    fn judge(&self, error: RpcError, leader: NodeId, call: &Call) -> Result<Error, Error> {
        let partition = call.partition;
        match error {
            RpcError::Unreachable => {
                Ok(Error::unavailable(format!("{leader}, which leads {partition}, is not reachable")))
            }
            RpcError::Overloaded => Err(Error::overloaded(format!("too much is under way to {leader}"))),
            RpcError::TooLarge => Err(Error::too_large(format!("a message to {leader} is over the limit"))),
            RpcError::Decode => {
                Err(Error::internal(format!("{leader} and this node do not understand each other")))
            }
            RpcError::Timeout | RpcError::Lost if !call.writes || is_planted(Planted::RetryUnknown) => {
                Ok(Error::unavailable(format!("{leader}, which leads {partition}, gave no answer")))
            }
            RpcError::Timeout | RpcError::Lost => Err(Error::unknown(format!(
                "{leader}, which leads {partition}, gave no answer: the write may or may not have been done"
            ))),
        }
    }

    async fn call<T>(
        &self,
        leader: NodeId,
        call: &Call,
        deadline: Instant,
        make: &impl Fn(Reply<Answer<T>>) -> PartitionMessage,
    ) -> Result<Answer<T>, RpcError>
    where
        T: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
    {
        let timeout = deadline.saturating_duration_since(Instant::now());
        if leader != self.context.node {
            let name = call.partition.to_string();
            return self.context.hub.call(leader, &name, timeout, call.weight, make).await;
        }
        let actor = self.context.partition(call.partition).ok_or(RpcError::Unreachable)?;
        match actor.call(|port| make(Reply::Local(port)), Some(timeout)).await {
            Ok(CallResult::Success(answer)) => Ok(answer),
            Ok(CallResult::Timeout) => Err(RpcError::Timeout),
            // A partition that dies drops only what it has not proposed; a proposal answers for itself.
            Ok(CallResult::SenderError) => Err(RpcError::Unreachable),
            Err(MessagingErr::SendErr(_) | MessagingErr::ChannelClosed | MessagingErr::InvalidActorType) => {
                Err(RpcError::Unreachable)
            }
        }
    }

    /// A timestamp from now on: above every version that anyone was told of before this call.
    pub(crate) async fn timestamp(&self, context: &RequestContext) -> Result<Timestamp, Error> {
        self.timestamps(1, context).await
    }

    /// The first of `count` timestamps in a row, which nobody else gets, each as of [`Self::timestamp`].
    pub(crate) async fn timestamps(&self, count: u64, context: &RequestContext) -> Result<Timestamp, Error> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.context.oracle(crate::oracle::OracleMessage::want(
            count,
            Box::new(move |grant| {
                // Whoever asked has stopped waiting.
                let _ = sender.send(grant);
            }),
        ))?;
        match tokio::time::timeout_at(context.deadline, receiver).await {
            Ok(Ok(grant)) => grant,
            Ok(Err(_)) => Err(Error::unavailable("the node's oracle has stopped")),
            Err(_) => Err(Error::unavailable("no timestamp within the deadline")),
        }
    }
}

/// What is known of a call without looking into it.
struct Call {
    partition: PartitionId,
    writes: bool,
    weight: usize,
}
