//! What a hub needs to start, and what can go wrong with it.

use super::ask::AskHandler;
use super::handshake::HandshakeError;
use crate::net::{Listener, Net};
use crate::random::Random;
use crate::wal::Durable;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::time::Instant;
use trandb_cluster::ids::{ClusterId, InstanceId, NodeId};

/// What a [`super::PeerHub`] needs to start.
pub struct PeerOptions {
    /// Dials peers.
    pub net: Arc<dyn Net>,
    /// Where peers connect to.
    pub listener: Box<dyn Listener>,
    /// Nonces, link names, and the jitter of redials.
    pub random: Random,
    /// This node's id, where it has one already; else [`super::PeerHub::identify`] brings it. Until then
    /// the hub only asks and answers.
    pub node: Option<NodeId>,
    /// The cluster, where known already; else [`super::PeerHub::set_cluster`].
    pub cluster: Option<ClusterId>,
    /// This node's data directory.
    pub instance: InstanceId,
    /// How far its log is durable; nothing may be written before the hub has started.
    pub durable: Durable,
    /// The peer secret; the same on all nodes.
    pub secret: Vec<u8>,
    /// Where ractor_cluster parks the listener that it insists on opening: an address of the loopback, since nothing is to
    /// connect to it. Port 0 takes any; a simulation needs a fixed one to repeat itself.
    pub park: SocketAddr,
    /// For how long after it heard from a leader this node votes for nobody else, in milliseconds: leaders count on no more.
    pub lease_ms: u64,
    /// Time between two heartbeats, in each direction of each link.
    pub heartbeat_ms: u64,
    /// Heartbeats missed in a row after which a peer is suspected and its link cut.
    pub heartbeats_missed: u32,
    /// Calls to one peer under way at a time; one more is `Overloaded`.
    pub calls_in_flight: usize,
    /// Bytes of requests to one peer under way at a time; above that `Overloaded`.
    pub bytes_in_flight: usize,
    /// Answers what others ask.
    pub ask: AskHandler,
}

/// How a peer is, as seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// There is a link, and the peer is heard on it.
    Up,
    /// It missed its heartbeats and the link was cut. It may be frozen, cut off, or dead.
    Suspect {
        /// When that was noticed.
        since: Instant,
    },
    /// No link: never had one, closed by the peer, or suspected for long.
    Down,
}

impl PeerState {
    /// Whether calls can reach it.
    pub fn is_up(self) -> bool {
        self == Self::Up
    }

    /// A word for people and programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Suspect { .. } => "suspect",
            Self::Down => "down",
        }
    }
}

/// This node has less of its log than another one knows it to have had: it has forgotten what others count on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{peer} has seen this node's log reach batch {known}, and it ended at {has} when it started: this is an older copy of the data \
    directory, or the disk has lost what it had kept"
)]
pub struct Reverted {
    /// Who knows.
    pub peer: NodeId,
    /// The batch that the log has reached.
    pub known: u64,
    /// Its last one when this node started.
    pub has: u64,
}

/// Why a hub cannot start, take an id, or ask.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The address cannot be connected to.
    #[error("cannot connect to {addr}: {kind}")]
    Dial {
        /// Where to.
        addr: String,
        /// What happened.
        kind: io::ErrorKind,
    },
    /// Connected, but not agreed.
    #[error("no understanding with {addr}: {reason}")]
    Handshake {
        /// With whom.
        addr: String,
        /// What happened.
        reason: HandshakeError,
    },
    /// An actor did not start, for example because the parking port is taken.
    #[error("cannot start the peer actors: {0}")]
    Start(String),
    /// The node has another id already, which it cannot change while it runs.
    #[error("this node is {0} already")]
    Identified(NodeId),
}
