//! Calls between actors that look the same whether the other one is here or on another node.
//!
//! A message enum that can travel is declared with [`wire_message!`](crate::wire_message): variants named
//! there hold a request and a [`Reply`] and are encoded with MessagePack when (and only when) they leave
//! the node; all other variants stay local and are refused at the door. Every message that travels has an
//! answer. A one-way message is a call that answers `()`: only so can the caller's budget count what is
//! still under way.
//!
//! The enum does *not* declare itself serializable to ractor: actors that did would be advertised to every
//! peer, each of which would keep a proxy of about 10 kB for it. One actor per node is advertised instead
//! (see [`crate::peer`]), which hands messages to the actors registered with it.

use ractor::RpcReplyPort;
use ractor::message::BoxedDowncastErr;
use serde::Serialize;
use serde::de::DeserializeOwned;
use trandb_cluster::shared::decode_sharing;

/// Why a call has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// No link to the node, or no such actor there. Surely not delivered.
    #[error("not reachable")]
    Unreachable,
    /// No answer within the deadline. May have been done.
    #[error("no answer in time")]
    Timeout,
    /// Sent, but the link broke or the receiver dropped it without an answer. May have been done.
    #[error("sent, but no answer will come")]
    Lost,
    /// A budget is full, here or there. Surely not delivered.
    #[error("too many calls or bytes in flight")]
    Overloaded,
    /// Above [`crate::peer::MESSAGE_BYTES_MAX`]: the request (surely not delivered) or its answer (done).
    #[error("message too large")]
    TooLarge,
    /// One side cannot read what the other one wrote, or the message is not one that may travel.
    #[error("message cannot be encoded or decoded")]
    Decode,
}

impl RpcError {
    /// A short name for metric labels.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Lost => "lost",
            Self::Overloaded => "overloaded",
            Self::TooLarge => "too_large",
            Self::Decode => "decode",
        }
    }

    /// Whether the request was surely not delivered, so that sending it again cannot do it twice.
    pub fn is_undelivered(self) -> bool {
        matches!(self, Self::Unreachable | Self::Overloaded)
    }
}

/// Where an answer goes: as it is to a caller on this node, encoded to one elsewhere. Dropped unsent, the
/// caller sees [`RpcError::Lost`] at once, wherever it is.
#[derive(Debug)]
pub enum Reply<T> {
    /// The caller is on this node.
    Local(RpcReplyPort<T>),
    /// The caller is on another node. An empty vector says that the request could not be decoded; no
    /// MessagePack value is empty.
    Wire(RpcReplyPort<Vec<u8>>),
}

impl<T: Serialize> Reply<T> {
    /// Answers. A caller that has gone meanwhile is no error.
    pub fn send(self, value: T) {
        match self {
            Self::Local(port) => drop(port.send(value)),
            Self::Wire(port) => match rmp_serde::to_vec_named(&value) {
                Ok(bytes) => drop(port.send(bytes)),
                Err(error) => tracing::error!(%error, "an answer cannot be encoded"),
            },
        }
    }
}

impl<T> Reply<T> {
    /// Whether nobody waits for the answer any more.
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Local(port) => port.is_closed(),
            Self::Wire(port) => port.is_closed(),
        }
    }

    /// The wire form; a local reply has none.
    #[doc(hidden)]
    pub fn into_wire(self) -> Result<RpcReplyPort<Vec<u8>>, BoxedDowncastErr> {
        match self {
            Self::Wire(port) => Ok(port),
            Self::Local(_) => Err(BoxedDowncastErr),
        }
    }
}

/// Encodes one message body.
#[doc(hidden)]
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, BoxedDowncastErr> {
    rmp_serde::to_vec_named(value).map_err(|_| BoxedDowncastErr)
}

/// Decodes one message body; when it cannot, says so to the caller.
#[doc(hidden)]
pub fn decode<T: DeserializeOwned, R>(
    bytes: Vec<u8>,
    reply: RpcReplyPort<Vec<u8>>,
) -> Result<(T, Reply<R>), BoxedDowncastErr> {
    match decode_sharing(&bytes.into()) {
        Ok(value) => Ok((value, Reply::Wire(reply))),
        Err(_) => {
            drop(reply.send(Vec::new()));
            Err(BoxedDowncastErr)
        }
    }
}

/// Gives a message enum its [`ractor::Message`]: `wire_message! { Message { call Read(ReadRequest); } }`
/// lets the variant `Message::Read(ReadRequest, Reply<…>)` travel. The request must be `Serialize` and
/// `DeserializeOwned`, the answer too.
#[macro_export]
macro_rules! wire_message {
    ($message:ident { $(call $variant:ident($request:ty);)* }) => {
        impl ::ractor::Message for $message {
            fn serialize(
                self,
            ) -> Result<::ractor::message::SerializedMessage, ::ractor::message::BoxedDowncastErr> {
                #[allow(unreachable_patterns, reason = "an enum may have no local-only variant")]
                match self {
                    $(Self::$variant(request, reply) => Ok(::ractor::message::SerializedMessage::Call {
                        variant: stringify!($variant).to_owned(),
                        args: $crate::rpc::encode(&request)?,
                        reply: reply.into_wire()?,
                        metadata: None,
                    }),)*
                    _ => Err(::ractor::message::BoxedDowncastErr),
                }
            }

            fn deserialize(
                message: ::ractor::message::SerializedMessage,
            ) -> Result<Self, ::ractor::message::BoxedDowncastErr> {
                let ::ractor::message::SerializedMessage::Call { variant, args, reply, .. } = message else {
                    return Err(::ractor::message::BoxedDowncastErr);
                };
                match variant.as_str() {
                    $(stringify!($variant) => {
                        let (request, reply) = $crate::rpc::decode::<$request, _>(args, reply)?;
                        Ok(Self::$variant(request, reply))
                    })*
                    _ => {
                        drop(reply.send(Vec::new()));
                        Err(::ractor::message::BoxedDowncastErr)
                    }
                }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use ractor::Message;
    use ractor::message::SerializedMessage;

    #[derive(Debug)]
    enum Sample {
        Double(u32, Reply<u64>),
        Local,
    }

    wire_message! { Sample { call Double(u32); } }

    fn wire() -> (RpcReplyPort<Vec<u8>>, ractor::concurrency::OneshotReceiver<Vec<u8>>) {
        let (port, answer) = ractor::concurrency::oneshot();
        (port.into(), answer)
    }

    #[test]
    fn a_call_travels_and_a_local_variant_does_not() {
        let (port, mut answer) = wire();
        let sent = Sample::Double(21, Reply::Wire(port)).serialize().expect("may travel");
        let Sample::Double(request, reply) = Sample::deserialize(sent).expect("is its own encoding") else {
            panic!("another variant");
        };
        reply.send(u64::from(request) * 2);
        let bytes = answer.try_recv().expect("was answered");
        assert_eq!(rmp_serde::from_slice::<u64>(&bytes).expect("is a number"), 42);
        assert!(Sample::Local.serialize().is_err());
    }

    #[test]
    fn what_cannot_be_read_is_answered_as_such() {
        for (variant, args) in [("Double", vec![0xc1]), ("Treble", vec![7])] {
            let (reply, mut answer) = wire();
            let call = SerializedMessage::Call { variant: variant.into(), args, reply, metadata: None };
            assert!(Sample::deserialize(call).is_err());
            assert_eq!(answer.try_recv().expect("was answered"), Vec::<u8>::new());
        }
    }
}
