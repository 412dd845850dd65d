//! The coordinator of one open transaction: does its operations one after the other, and ends it.

use super::left::{Idle, Over};
use super::trace::phase;
use super::{Handle, commit};
use crate::context::NodeContext;
use crate::database::{Database, RequestContext};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use std::sync::Arc;
use std::time::Duration;
use trandb_cluster::limits::TXN_LIFE_MS_MAX;
use trandb_cluster::txn::{Coordinator, Isolation, TxnOp, TxnOutcome, TxnResponse};
use trandb_cluster::{Error, ErrorCode, Timestamp, TxnId};

/// What a coordinator is sent.
#[derive(Debug)]
pub(crate) enum SessionMessage {
    /// Do an operation.
    Op(Box<TxnOp>, RequestContext, RpcReplyPort<Result<TxnResponse, Error>>),
    /// Commit.
    Commit(RequestContext, RpcReplyPort<Result<TxnOutcome, Error>>),
    /// Abort.
    Abort(RpcReplyPort<TxnOutcome>),
    /// Abort if nothing was asked of it for too long.
    Idle,
}

impl ractor::Message for SessionMessage {}

pub(super) struct SessionActor;

pub(super) struct Session {
    context: Arc<NodeContext>,
    database: Database,
    core: Coordinator,
    idle: Arc<Idle>,
    began_ms: u64,
}

/// Begins a transaction on this node.
///
/// # Errors
/// `overloaded` when too many are open, `unavailable` without a timestamp.
pub(crate) async fn begin(
    context: &Arc<NodeContext>,
    isolation: Isolation,
    read_only: bool,
    at: Option<Timestamp>,
    idle_timeout: Duration,
    request: &RequestContext,
) -> Result<(TxnId, Timestamp), Error> {
    let database = Database::new(context.clone());
    context.transactions.reserve(context.config.txn.open_max as usize)?;
    let begun = start(context, &database, isolation, read_only, at, idle_timeout, request).await;
    match begun {
        Ok((txn, read_at, handle)) => {
            context.transactions.begun(Some((txn, handle)));
            Ok((txn, read_at))
        }
        Err(error) => {
            context.transactions.begun(None);
            Err(error)
        }
    }
}

async fn start(
    context: &Arc<NodeContext>,
    database: &Database,
    isolation: Isolation,
    read_only: bool,
    at: Option<Timestamp>,
    idle_timeout: Duration,
    request: &RequestContext,
) -> Result<(TxnId, Timestamp, Handle), Error> {
    let (span, inner) = phase("txn begin", context.node, None, request);
    let begin = database.timestamp(&inner).await?;
    let read_at = at.unwrap_or(begin);
    if read_at > begin {
        return Err(Error::invalid(format!("{read_at} is in the future, it is {begin} now")));
    }
    let txn = TxnId { begin, node: context.node };
    span.record("txn", tracing::field::display(txn));
    let core = Coordinator::new(txn, isolation, read_only, read_at);
    let stopped = || Error::unavailable("the node's coordinators are not running");
    let supervisor = context.coordinators.load().as_ref().as_ref().ok_or_else(stopped)?.get_cell();
    let idle = Arc::new(Idle::new(idle_timeout, context.uptime_ms()));
    let arguments = (context.clone(), core, idle.clone());
    let (actor, _task) =
        Actor::spawn_linked(None, SessionActor, arguments, supervisor).await.map_err(|_| stopped())?;
    Ok((txn, read_at, Handle { actor, idle }))
}

impl Actor for SessionActor {
    type Msg = SessionMessage;
    type State = Session;
    type Arguments = (Arc<NodeContext>, Coordinator, Arc<Idle>);

    async fn pre_start(
        &self,
        _me: ActorRef<SessionMessage>,
        (context, core, idle): Self::Arguments,
    ) -> Result<Session, ActorProcessingErr> {
        let database = Database::new(context.clone());
        let began_ms = context.uptime_ms();
        Ok(Session { context, database, core, idle, began_ms })
    }

    async fn handle(
        &self,
        me: ActorRef<SessionMessage>,
        message: SessionMessage,
        session: &mut Session,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SessionMessage::Op(op, request, reply) => {
                session.idle.asked(session.context.uptime_ms());
                // Nobody waits for it any more: to do it all the same could surprise whoever asked again.
                if reply.is_closed() {
                    return Ok(());
                }
                let result = super::ops::run(&session.database, &mut session.core, *op, &request).await;
                session.idle.answered(session.context.uptime_ms());
                // It gave way in a deadlock: those that wait for what it holds go on.
                if let Err(error) = &result
                    && error.code == ErrorCode::Conflict
                {
                    metrics::counter!("trandb_txn_aborts_total", "cause" => "deadlock").increment(1);
                    session.end(&me, Some(TxnOutcome::Aborted(error.message.clone())));
                }
                let _ = reply.send(result);
            }
            SessionMessage::Commit(request, reply) => {
                let result = commit::commit(&session.database, &session.core, false, &request).await;
                let outcome = match &result {
                    Ok(at) => Some(TxnOutcome::Committed(*at)),
                    Err(failed) => failed.aborted.clone().map(TxnOutcome::Aborted),
                };
                session.end(&me, outcome);
                let _ = reply.send(result.map(TxnOutcome::Committed).map_err(|failed| failed.error));
            }
            SessionMessage::Abort(reply) => {
                let outcome = TxnOutcome::Aborted("its client aborted it".into());
                session.end(&me, Some(outcome.clone()));
                metrics::counter!("trandb_txn_aborts_total", "cause" => "client").increment(1);
                let _ = reply.send(outcome);
            }
            SessionMessage::Idle => session.give_up_if_idle(&me),
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _me: ActorRef<SessionMessage>,
        session: &mut Session,
    ) -> Result<(), ActorProcessingErr> {
        // Stopped from outside, with the node: nothing was committed.
        session.context.transactions.end(session.core.txn(), None);
        session.database.release_locks(session.core.txn());
        Ok(())
    }
}

impl Session {
    fn end(&self, me: &ActorRef<SessionMessage>, outcome: Option<TxnOutcome>) {
        self.context.transactions.end(self.core.txn(), outcome);
        self.database.release_locks(self.core.txn());
        me.stop(None);
    }

    fn give_up_if_idle(&self, me: &ActorRef<SessionMessage>) {
        let now_ms = self.context.uptime_ms();
        let (cause, why) = if now_ms.saturating_sub(self.began_ms) > TXN_LIFE_MS_MAX {
            ("too_old", format!("it was open for longer than {} s", TXN_LIFE_MS_MAX / 1000))
        } else {
            match self.idle.over(now_ms) {
                None => return,
                Some(Over::Idle(limit)) => {
                    ("idle", format!("nothing was asked of it for longer than {limit:?}"))
                }
                Some(Over::Left(limit)) => (
                    "left",
                    format!("its client's connection ended, and nothing was asked of it for {limit:?}"),
                ),
            }
        };
        metrics::counter!("trandb_txn_aborts_total", "cause" => cause).increment(1);
        self.end(me, Some(TxnOutcome::Aborted(why)));
    }
}
