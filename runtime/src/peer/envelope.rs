//! What travels over a session: every message goes to the one port actor of a node, with a head that says
//! for whom it is and on which link it came.
//!
//! The body is the target's own encoding and is not touched on the way; the head travels as ractor's
//! message metadata.

use super::hub::Hub;
use crate::rpc::RpcError;
use ractor::message::{BoxedDowncastErr, SerializedMessage};
use ractor::{Actor, ActorProcessingErr, ActorRef, Message};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use trandb_cluster::ids::NodeId;

/// Says what a message is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The sender.
    pub(super) from: NodeId,
    /// The link that it was sent on. One that arrives after its link has been replaced is dropped.
    pub(super) link: u64,
    /// What it is.
    pub(super) kind: Kind,
}

/// What a message is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// A request to an actor.
    Call {
        /// The sender's number for it, which the answer repeats.
        id: u64,
        /// The actor's short name, as registered with its hub.
        actor: String,
        /// The variant of the actor's message enum.
        variant: String,
        /// How long the sender waits; after that nobody needs the answer.
        deadline_ms: u64,
    },
    /// An answer; the body is empty unless it succeeded.
    Answer {
        /// The call's number.
        id: u64,
        /// Whether there is one.
        status: Status,
    },
    /// The sender is alive.
    Beat {
        /// Whether the body is fresh gossip; otherwise it is empty.
        gossip: bool,
        /// The last batch of the sender's log that is durable.
        batch: u64,
    },
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Status {
    /// The body is the answer.
    Answered,
    /// No such actor; not delivered.
    NoActor,
    /// Too many calls of this peer under way; not delivered.
    Overloaded,
    /// Delivered, but dropped without an answer.
    Dropped,
    /// Delivered, but the actor could not read it.
    Undecodable,
    /// Done, but the answer is too large to travel.
    TooLarge,
}

impl Status {
    /// As the caller sees it.
    pub(super) fn outcome(self, body: Vec<u8>) -> Result<Vec<u8>, RpcError> {
        match self {
            Self::Answered => Ok(body),
            Self::NoActor => Err(RpcError::Unreachable),
            Self::Overloaded => Err(RpcError::Overloaded),
            Self::Dropped => Err(RpcError::Lost),
            Self::Undecodable => Err(RpcError::Decode),
            Self::TooLarge => Err(RpcError::TooLarge),
        }
    }
}

/// The message of the port actor, the only type of a node that ractor_cluster advertises to peers.
#[derive(Debug)]
pub(super) struct Envelope {
    pub(super) head: Head,
    pub(super) body: Vec<u8>,
}

impl Envelope {
    /// As ractor_cluster carries it.
    pub(super) fn seal(self) -> Result<SerializedMessage, BoxedDowncastErr> {
        Ok(SerializedMessage::Cast {
            variant: String::new(),
            args: self.body,
            metadata: Some(rmp_serde::to_vec(&self.head).map_err(|_| BoxedDowncastErr)?),
        })
    }
}

impl Message for Envelope {
    fn serializable() -> bool {
        true
    }

    fn serialize(self) -> Result<SerializedMessage, BoxedDowncastErr> {
        self.seal()
    }

    fn deserialize(message: SerializedMessage) -> Result<Self, BoxedDowncastErr> {
        let SerializedMessage::Cast { args: body, metadata: Some(head), .. } = message else {
            return Err(BoxedDowncastErr);
        };
        let head = rmp_serde::from_slice(&head).map_err(|_| BoxedDowncastErr)?;
        Ok(Self { head, body })
    }
}

/// The actor that peers send everything to. It never waits: it hands calls to their actors, answers to
/// their callers, and notes heartbeats.
pub(super) struct Port {
    pub(super) hub: Arc<Hub>,
}

impl Actor for Port {
    type Msg = Envelope;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Envelope>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<Envelope>,
        message: Envelope,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        self.hub.received(message);
        Ok(())
    }
}

/// The name of a node's port actor. The boot number keeps apart what runs after a restart from what a
/// simulated crash may have left behind in ractor's process-wide tables.
pub(super) fn port_name(node: NodeId, boot: u64) -> String {
    format!("{node}/port/{boot:016x}")
}
