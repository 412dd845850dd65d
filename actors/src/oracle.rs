//! The node's oracle: timestamps for everyone on this node, and on the system group's leader for all nodes.
//!
//! Requests that come while an answer is on its way are gathered into the next one. The leader issues only
//! while its lease is valid: a deposed one that does not know it yet could otherwise stamp a write with a
//! timestamp below one that its successor has already issued.

use crate::context::NodeContext;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::oracle::{GRANT_MAX, Grant, Oracle};
use trandb_cluster::system::{SystemApplied, SystemCommand};
use trandb_cluster::{Error, NodeId, PartitionId, Timestamp, wire};
use trandb_runtime::pace::{pace, reach};
use trandb_runtime::planted::{Planted, is_planted};
use trandb_runtime::raft::{ClientWriteError, RaftError, WatchReceiver};
use trandb_runtime::raft::{LogApplied, Proposal, Raft, lease_valid};
use trandb_runtime::rpc::Reply;

/// How far ahead timestamps are reserved. A new leader begins after the window, so this is how far the
/// timestamps of a cluster may run ahead of its clocks after a failover.
const WINDOW_MS: u64 = 3_000;

/// See [`Planted::ReuseWindow`]: more than any window.
const REUSED_MS: u64 = 60_000;

/// Requests that may wait at once; beyond it `overloaded`.
const WAITING_MAX: usize = 65_536;

/// How long the system leader is given to answer.
const REMOTE_DEADLINE: Duration = Duration::from_millis(500);

/// How long a request may wait for a system leader before it is refused.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// How long after a failed attempt the next one is made.
const RETRY: Duration = Duration::from_millis(10);

/// Called with the first of the timestamps asked for.
pub type GrantSink = Box<dyn FnOnce(Result<Timestamp, Error>) + Send>;

/// What an oracle is sent. The first may come from a peer.
pub enum OracleMessage {
    /// Another node's oracle wants timestamps.
    Grant(GrantCall, Reply<GrantAnswer>),
    /// From this node only.
    Local(LocalOracle),
}

trandb_runtime::wire_message! {
    OracleMessage {
        call Grant(GrantCall);
    }
}

/// Asks for consecutive timestamps.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct GrantCall {
    /// How many.
    pub count: u64,
}

/// The first timestamp, or why there is none.
pub type GrantAnswer = Result<Timestamp, String>;

/// What a node asks of its own oracle.
pub enum LocalOracle {
    /// Someone here wants timestamps.
    Want {
        /// How many.
        count: u64,
        /// Who.
        sink: GrantSink,
    },
    /// The system leader has answered, or could not be reached.
    Answered(u64, Result<Timestamp, String>),
    /// A window was reserved, or was not.
    Reserved(Result<(Timestamp, Timestamp), String>),
    /// Try again what had no leader.
    Retry,
    /// Issue nothing until [`LocalOracle::Resume`]: leadership is being handed over.
    Pause,
    /// Go on.
    Resume,
}

impl fmt::Debug for OracleMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grant(call, _) => write!(f, "{call:?}"),
            Self::Local(_) => f.write_str("Local"),
        }
    }
}

impl OracleMessage {
    /// Asks for `count` timestamps.
    pub fn want(count: u64, sink: GrantSink) -> Self {
        Self::Local(LocalOracle::Want { count, sink })
    }
}

struct Waiter {
    count: u64,
    since: Instant,
    sink: GrantSink,
}

/// The actor. See the module.
pub struct OracleActor;

/// What the actor owns.
pub struct OracleState {
    context: Arc<NodeContext>,
    me: ActorRef<OracleMessage>,
    core: Oracle,
    /// The term in which the core was told that this node leads.
    leading: Option<u64>,
    waiting: VecDeque<Waiter>,
    /// Waiters whose timestamps the system leader was asked for.
    asked: Vec<Waiter>,
    reserving: bool,
    retrying: bool,
    paused: bool,
}

impl Actor for OracleActor {
    type Msg = OracleMessage;
    type State = OracleState;
    type Arguments = Arc<NodeContext>;

    async fn pre_start(
        &self,
        me: ActorRef<OracleMessage>,
        context: Arc<NodeContext>,
    ) -> Result<OracleState, ActorProcessingErr> {
        Ok(OracleState {
            context,
            me,
            core: Oracle::new(WINDOW_MS),
            leading: None,
            waiting: VecDeque::new(),
            asked: Vec::new(),
            reserving: false,
            retrying: false,
            paused: false,
        })
    }

    async fn handle(
        &self,
        _me: ActorRef<OracleMessage>,
        message: OracleMessage,
        oracle: &mut OracleState,
    ) -> Result<(), ActorProcessingErr> {
        pace(oracle.context.node, "oracle").await;
        match message {
            OracleMessage::Grant(call, reply) => {
                let sink: GrantSink = Box::new(move |grant| {
                    reach("granted");
                    reply.send(grant.map_err(|error| error.message));
                });
                // Only the leader answers a peer; anyone else would lead it in circles.
                match oracle.leader_raft() {
                    Some(_) if (1..=GRANT_MAX).contains(&call.count) => {
                        reach("grant");
                        oracle.want(call.count, sink);
                    }
                    Some(_) => {
                        sink(Err(Error::invalid(format!(
                            "{} timestamps at once, the limit is {GRANT_MAX}",
                            call.count
                        ))));
                    }
                    None => sink(Err(Error::unavailable("this node does not lead the system group"))),
                }
            }
            OracleMessage::Local(LocalOracle::Want { count, sink }) => oracle.want(count, sink),
            OracleMessage::Local(LocalOracle::Answered(count, answer)) => oracle.answered(count, answer),
            OracleMessage::Local(LocalOracle::Reserved(result)) => {
                oracle.reserving = false;
                reach("reserved");
                match result {
                    Ok((_, until)) if is_planted(Planted::ReuseWindow) => {
                        oracle.core.reserved(Timestamp(0), until);
                    }
                    Ok((from, until)) => oracle.core.reserved(from, until),
                    Err(error) => {
                        tracing::debug!(error, "no timestamp window was reserved");
                        // A leader that is handing over refuses at once, for as long as its lease lasts: to try again
                        // at once would keep this node busy with nothing else.
                        oracle.retry_later();
                        return Ok(());
                    }
                }
                oracle.work();
            }
            OracleMessage::Local(LocalOracle::Retry) => {
                oracle.retrying = false;
                oracle.work();
            }
            OracleMessage::Local(LocalOracle::Pause) => oracle.paused = true,
            OracleMessage::Local(LocalOracle::Resume) => {
                oracle.paused = false;
                oracle.work();
            }
        }
        Ok(())
    }
}

impl OracleState {
    fn want(&mut self, count: u64, sink: GrantSink) {
        if self.waiting.len() >= WAITING_MAX {
            sink(Err(Error::overloaded(format!("{WAITING_MAX} requests wait for timestamps, the limit"))));
            return;
        }
        self.waiting.push_back(Waiter { count, since: Instant::now(), sink });
        self.work();
    }

    /// The system group's Raft, if this node leads it under a valid lease.
    fn leader_raft(&mut self) -> Option<Raft> {
        let raft = self.context.system_raft()?;
        let lease = self.context.granted_lease();
        let term = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            let applied_own_term =
                metrics.last_applied.is_some_and(|applied| applied.leader_id.term == metrics.current_term);
            let leased = lease_valid(&metrics, lease, &self.context.system_given_away);
            (applied_own_term && leased).then_some(metrics.current_term)
        };
        match term {
            Some(term) => {
                if self.leading != Some(term) {
                    self.leading = Some(term);
                    let window = self.context.system().timestamp_window;
                    let reused = if is_planted(Planted::ReuseWindow) { REUSED_MS } else { 0 };
                    self.core.lead(window.minus_millis(reused));
                }
                Some(raft)
            }
            None => {
                if self.leading.take().is_some() {
                    self.core.retire();
                }
                None
            }
        }
    }

    /// Serves who waits: from the window, or by asking the leader.
    fn work(&mut self) {
        if self.waiting.is_empty() || self.paused {
            return;
        }
        match self.leader_raft() {
            Some(raft) => self.issue(&raft),
            None => self.ask_leader(),
        }
    }

    fn issue(&mut self, raft: &Raft) {
        // The clock would be ahead of most that was issued before.
        let now_ms = if is_planted(Planted::ReuseWindow) { 0 } else { self.context.clock.now_ms() };
        while let Some(waiter) = self.waiting.pop_front() {
            match self.core.grant(now_ms, waiter.count) {
                Grant::Ready { first } => (waiter.sink)(Ok(first)),
                Grant::Reserve { until } => {
                    self.waiting.push_front(waiter);
                    self.reserve(raft, until);
                    return;
                }
                Grant::NotLeader => {
                    self.waiting.push_front(waiter);
                    self.retry_later();
                    return;
                }
            }
        }
        if let Some(until) = self.core.wants_more(now_ms) {
            self.reserve(raft, until);
        }
    }

    fn reserve(&mut self, raft: &Raft, until: Timestamp) {
        if std::mem::replace(&mut self.reserving, true) {
            return;
        }
        reach("reserving");
        let (raft, me) = (raft.clone(), self.me.clone());
        tokio::spawn(async move {
            let command = SystemCommand::ReserveTimestamps { until };
            let result = match raft.client_write(Proposal(wire::encode(&command).into())).await {
                Ok(response) => match response.data {
                    LogApplied::System(SystemApplied::Reserved { from, until }) => Ok((from, until)),
                    other => Err(format!("a reservation was answered with {other:?}")),
                },
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
                    Err("not the leader".into())
                }
                Err(error) => Err(error.to_string()),
            };
            let _ = me.cast(OracleMessage::Local(LocalOracle::Reserved(result)));
        });
    }

    fn ask_leader(&mut self) {
        if !self.asked.is_empty() {
            return;
        }
        let leader = self.context.leader(PartitionId::SYSTEM).filter(|&leader| leader != self.context.node);
        let Some(leader) = leader else {
            self.retry_later();
            return;
        };
        // As many as may be asked for at once; the rest goes with the next question.
        let mut room = GRANT_MAX;
        while let Some(waiter) = self.waiting.front()
            && (waiter.count <= room || self.asked.is_empty())
        {
            room = room.saturating_sub(waiter.count);
            self.asked.extend(self.waiting.pop_front());
        }
        let count = self.asked.iter().map(|waiter| waiter.count).sum();
        let (hub, me) = (self.context.hub.clone(), self.me.clone());
        tokio::spawn(async move {
            let answer = ask(&hub, leader, count).await;
            let _ = me.cast(OracleMessage::Local(LocalOracle::Answered(count, answer)));
        });
    }

    fn answered(&mut self, count: u64, answer: Result<Timestamp, String>) {
        let asked = std::mem::take(&mut self.asked);
        match answer {
            Ok(first) => {
                let mut next = first;
                for waiter in asked {
                    (waiter.sink)(Ok(next));
                    next = next.plus(waiter.count);
                }
                debug_assert_eq!(next, first.plus(count));
                self.work();
            }
            Err(error) => {
                tracing::debug!(error, "the system leader gave no timestamps");
                for waiter in asked.into_iter().rev() {
                    self.waiting.push_front(waiter);
                }
                self.retry_later();
            }
        }
    }

    /// Refuses who has waited too long and tries again soon for the others.
    fn retry_later(&mut self) {
        while self.waiting.front().is_some_and(|waiter| waiter.since.elapsed() > WAIT_MAX) {
            let waiter = self.waiting.pop_front().expect("just seen");
            (waiter.sink)(Err(Error::unavailable("the system group has no leader to give timestamps")));
        }
        if !self.waiting.is_empty() && !std::mem::replace(&mut self.retrying, true) {
            self.me.send_after(RETRY, || OracleMessage::Local(LocalOracle::Retry));
        }
    }
}

async fn ask(hub: &trandb_runtime::peer::PeerHub, leader: NodeId, count: u64) -> Result<Timestamp, String> {
    let make = |reply| OracleMessage::Grant(GrantCall { count }, reply);
    match hub.call(leader, "oracle", REMOTE_DEADLINE, 64, make).await {
        Ok(answer) => answer,
        Err(error) => Err(format!("{leader}: {error}")),
    }
}
