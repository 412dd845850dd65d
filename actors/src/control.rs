//! A node's door for other nodes: what is asked of the node as a whole rather than of a partition.

use crate::context::NodeContext;
use ractor::rpc::CallResult;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use trandb_cluster::system::{SystemApplied, SystemCommand};
use trandb_cluster::{Epoch, NodeId, PartitionId, wire};
use trandb_runtime::raft::{LocalRaft, LogApplied, Proposal, RaftMessage};
use trandb_runtime::rpc::Reply;

/// How long a membership change or a transfer may take before whoever asked asks again.
pub const CONTROL_DEADLINE: Duration = Duration::from_secs(70);

/// What a node's door is sent.
#[derive(Debug)]
pub enum ControlMessage {
    /// Do this.
    Control(ControlCall, Reply<Result<ControlAnswer, String>>),
}

trandb_runtime::wire_message! {
    ControlMessage {
        call Control(ControlCall);
    }
}

/// What one node asks of another.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ControlCall {
    /// Of the system leader: put this into the system log.
    Propose(SystemCommand),
    /// Of a group's leader: make its members these.
    Reconfigure {
        /// The group.
        group: PartitionId,
        /// Which map wants that.
        map: Epoch,
        /// Voters, exactly.
        voters: Vec<NodeId>,
        /// Members that only follow.
        learners: Vec<NodeId>,
    },
    /// Of a node with a replica: write a checkpoint now.
    Checkpoint {
        /// Of which partition.
        group: PartitionId,
        /// How long that may take.
        within_ms: u64,
    },
    /// Of a group's leader: hand leadership to this node.
    Transfer {
        /// The group.
        group: PartitionId,
        /// Who should lead.
        to: NodeId,
    },
}

/// What came of a [`ControlCall`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ControlAnswer {
    /// Done.
    Done,
    /// What applying the system command answered.
    Applied(SystemApplied),
    /// The log index that a durable checkpoint reaches to.
    Checkpointed(u64),
}

/// The actor. See the module.
pub struct NodeControl;

impl Actor for NodeControl {
    type Msg = ControlMessage;
    type State = Arc<NodeContext>;
    type Arguments = Arc<NodeContext>;

    async fn pre_start(
        &self,
        _me: ActorRef<ControlMessage>,
        context: Arc<NodeContext>,
    ) -> Result<Arc<NodeContext>, ActorProcessingErr> {
        Ok(context)
    }

    async fn handle(
        &self,
        _me: ActorRef<ControlMessage>,
        message: ControlMessage,
        context: &mut Arc<NodeContext>,
    ) -> Result<(), ActorProcessingErr> {
        let ControlMessage::Control(call, reply) = message;
        let context = context.clone();
        // Each may take long; they must not wait for each other. Peers' budgets bound how many there are.
        tokio::spawn(async move { reply.send(serve(&context, call).await) });
        Ok(())
    }
}

async fn serve(context: &NodeContext, call: ControlCall) -> Result<ControlAnswer, String> {
    match call {
        ControlCall::Propose(command) => propose(context, command).await.map(ControlAnswer::Applied),
        ControlCall::Reconfigure { group, map, voters, learners } => {
            ask_group(context, group, |reply| LocalRaft::Reconfigure { map, voters, learners, reply }).await
        }
        ControlCall::Checkpoint { group, within_ms } => {
            let within = Duration::from_millis(within_ms);
            crate::partition::checkpoint_now(context, group, within).await.map(ControlAnswer::Checkpointed)
        }
        ControlCall::Transfer { group, to } => {
            ask_group(context, group, |reply| LocalRaft::TransferTo(to, reply)).await
        }
    }
}

async fn ask_group(
    context: &NodeContext,
    group: PartitionId,
    make: impl FnOnce(ractor::RpcReplyPort<Result<(), String>>) -> LocalRaft,
) -> Result<ControlAnswer, String> {
    let actor = context.group(group).ok_or_else(|| format!("no replica of {group} here"))?;
    match actor.call(|reply| RaftMessage::Local(make(reply)), Some(CONTROL_DEADLINE)).await {
        Ok(CallResult::Success(result)) => result.map(|()| ControlAnswer::Done),
        _ => Err(format!("the replica of {group} gave no answer")),
    }
}

/// Puts a command into the system log, if this node leads it.
pub(crate) async fn propose(context: &NodeContext, command: SystemCommand) -> Result<SystemApplied, String> {
    let raft = context.system_raft().ok_or("the system group does not run here")?;
    let proposal = Proposal(wire::encode(&command).into());
    match raft.client_write(proposal).await {
        Ok(response) => match response.data {
            LogApplied::System(SystemApplied::Refused(why)) => Err(why),
            LogApplied::System(applied) => Ok(applied),
            other => Err(format!("a system command was answered with {other:?}")),
        },
        Err(error) => Err(error.to_string()),
    }
}

/// Puts a command into the system log, through its leader, wherever that is.
pub(crate) async fn propose_anywhere(
    context: &NodeContext,
    command: SystemCommand,
    deadline: Duration,
) -> Result<SystemApplied, String> {
    let leader = context.leader(PartitionId::SYSTEM).ok_or("the system group has no leader")?;
    if leader == context.node {
        return tokio::time::timeout(deadline, propose(context, command))
            .await
            .map_err(|_| "the system group did not answer in time".to_owned())?;
    }
    let make = |reply| ControlMessage::Control(ControlCall::Propose(command), reply);
    match context.hub.call(leader, "control", deadline, 1024, make).await {
        Ok(Ok(ControlAnswer::Applied(applied))) => Ok(applied),
        Ok(Ok(ControlAnswer::Done | ControlAnswer::Checkpointed(_))) => Err("an unexpected answer".into()),
        Ok(Err(refusal)) => Err(refusal),
        Err(error) => Err(format!("{leader}: {error}")),
    }
}
