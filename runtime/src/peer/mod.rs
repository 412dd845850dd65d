//! Peers: links to the other nodes of the cluster, who of them is alive, and calls to their actors.
//!
//! ```text
//!   PeerHub ── one per node
//!   ├── listener            answers strangers: handshake, then ask | link | bulk lane
//!   ├── heartbeat           beats on every link, suspects the silent
//!   ├── Port (actor)        the one actor of a node that its peers see
//!   └── Peer ── one per other member: budgets, metrics
//!       └── Link ── at most one at a time, dialed by the node with the smaller id
//!           ├── session     ractor_cluster over our stream, with a kill switch: calls, answers, heartbeats
//!           └── bulk lane   a second connection: whatever is above one chunk
//! ```
//!
//! **Life of a link.** The dialer connects, both prove that they know the peer secret
//! ([`Refusal`] lists what can go wrong), and the stream goes to ractor_cluster on both sides. Once the session
//! is ready and shows the peer's port actor, the peer is `Up`. It goes `Down` at once when the session ends,
//! and `Suspect` when heartbeats are missed; then the kill switch is thrown, which frees the session's writer
//! even if the peer is frozen, and calls under way fail at once. The dialer redials with jittered backoff. An
//! acceptor that still holds the link before cuts it first, so a redial never loses to a zombie.
//!
//! **Life of a call.** [`PeerHub::call`] takes from the peer's budget of calls and bytes or answers
//! `Overloaded`; encodes; and casts the request to the peer's port actor, with the target's name in the head.
//! The port there puts it into the target's mailbox, waits for the answer, and casts it back. A request that no
//! actor takes, cannot be read, or is dropped unanswered is answered as such, so no caller has to wait for its
//! deadline to learn it. One-way messages do not exist: only what is answered can be counted.
//!
//! # Why calls go through one port actor
//!
//! ractor_cluster can call any remotable actor directly. Three reasons against: its reply goes out as one frame,
//! with no place to turn a large one aside, so a 4 MiB answer would stand in front of heartbeats; it shows every
//! remotable actor to every peer, which keeps a 10 kB proxy for each and learns of a restarted one only some time
//! later; and a dropped, undecodable or unroutable request is silent. Its call also spawns a task on the
//! answering side, as we do, so nothing is lost in speed.
//!
//! # Why a second connection for large messages
//!
//! ractor_cluster keeps one session per pair of nodes and writes frames in order, so pieces of large messages
//! would share its queues and socket buffers with heartbeats and small calls. A connection of its own costs one
//! more handshake and has its own flow control (see the `bulk` module). Measured in one process on two shared
//! and busy cores, 100 B calls over loopback TCP: alone p50 37 µs, p99 73 µs, 78,000 calls/s with 256 in flight;
//! beside eight callers that move 4 MiB messages both ways without pause (800 MiB/s, both cores full) p50 27 µs,
//! p99 4.8 ms, the tail being copies and page faults that hold a core. Whole 4 MiB frames on the session made
//! small calls wait 7 to 27 ms at the median. The test `small_calls_beside_large_ones` measures it again.
//!
//! **Caveats.** Authentication covers the start of a connection and not what follows (TLS would). An authenticated
//! peer is trusted to name itself correctly in message heads. A message in a mailbox whose actor dies is `Lost`,
//! although it was not done: its caller cannot know.

mod ask;
mod beat;
mod bulk;
mod calls;
mod complaints;
mod connect;
mod envelope;
mod frame;
mod handshake;
mod hub;
mod link;
mod metrics;
mod options;
mod reassembly;
mod stream;
#[cfg(test)]
mod tests;

pub use ask::{Answer, Ask, AskHandler};
pub use beat::GOSSIP_BYTES_MAX;
pub use handshake::{FRAME_BYTES_MAX, HANDSHAKE_MAX, HandshakeError, Refusal};
pub use options::{PeerError, PeerOptions, PeerState, Reverted};
pub use reassembly::MESSAGE_BYTES_MAX;

use crate::rpc::{Reply, RpcError};
use bytes::Bytes;
use hub::Hub;
use ractor::{ActorCell, Message};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use trandb_cluster::ids::{ClusterId, InstanceId, NodeId};

/// A node's end of all its peer links. Clones share it; it runs until [`PeerHub::shutdown`].
#[derive(Clone)]
pub struct PeerHub {
    hub: Arc<Hub>,
}

impl PeerHub {
    /// Starts answering on the listener, and links once the node has an id and peers.
    ///
    /// Errors: the parking port is taken.
    pub async fn start(options: PeerOptions) -> Result<Self, PeerError> {
        Ok(Self { hub: Hub::start(options).await? })
    }

    /// Takes the node's id, which a fresh node learns only by asking. The same one again changes nothing.
    ///
    /// Errors: it has another one; the parking port is taken.
    pub async fn identify(&self, node: NodeId) -> Result<(), PeerError> {
        self.hub.identify(node).await
    }

    /// This node's id, once it has one.
    pub fn node(&self) -> Option<NodeId> {
        self.hub.node()
    }

    /// Takes the cluster's name. From then on members of other clusters are refused; links that exist stay.
    pub fn set_cluster(&self, cluster: ClusterId) {
        self.hub.set_cluster(cluster);
    }

    /// Keeps links to exactly these nodes (this one excepted), by their peer addresses. A changed address counts
    /// from the next dial on.
    pub fn set_peers(&self, peers: BTreeMap<NodeId, String>) {
        self.hub.set_peers(peers);
    }

    /// Says which data directories are known to be whose. From then on no other one is linked to under these numbers; links that
    /// exist stay.
    pub fn set_instances(&self, instances: BTreeMap<NodeId, InstanceId>) {
        self.hub.set_instances(instances);
    }

    /// The nodes that links are kept to, as [`PeerHub::set_peers`] said last.
    pub fn peers(&self) -> BTreeMap<NodeId, String> {
        self.hub.wanted()
    }

    /// The shortest time for which this node, or one that it has had a link to since its start, promises leaders to vote for nobody
    /// else. A leader that counts on no more is never deposed by who has other settings.
    pub fn shortest_lease(&self) -> Duration {
        self.hub.shortest_lease()
    }

    /// Lets calls reach an actor of this node by its short name, such as `p3/raft`. An actor of that name from
    /// before is replaced, as after a restart.
    pub fn register(&self, name: &str, cell: ActorCell) {
        self.hub.actors.send_modify(|actors| drop(actors.insert(name.to_owned(), cell)));
    }

    /// Undoes [`PeerHub::register`].
    pub fn unregister(&self, name: &str) {
        self.hub.actors.send_modify(|actors| drop(actors.remove(name)));
    }

    /// Calls an actor of a node, this one included. `make` puts the reply into the message; `weight_bytes` is
    /// about how large the message is, and counts against the peer's budget (if it turns out larger, the rest does
    /// too). An actor that is not there yet is waited for up to 200 ms.
    ///
    /// Errors: see [`RpcError`]; with [`RpcError::is_undelivered`] it may be sent again.
    pub async fn call<M: Message, T: DeserializeOwned + Send + 'static>(
        &self,
        node: NodeId,
        actor: &str,
        deadline: Duration,
        weight_bytes: usize,
        make: impl FnOnce(Reply<T>) -> M,
    ) -> Result<T, RpcError> {
        self.hub.call(node, actor, deadline, weight_bytes, make).await
    }

    /// How each peer is; published at every change.
    pub fn states(&self) -> watch::Receiver<BTreeMap<NodeId, PeerState>> {
        self.hub.states.subscribe()
    }

    /// Whether another node knows more of this one's log than there was when it started. From then on no link to it is accepted here,
    /// while those that are there, and those that this one dials, go on until the node ends, which it is to do at once.
    pub fn reverted(&self) -> watch::Receiver<Option<Reverted>> {
        self.hub.reverted.subscribe()
    }

    /// Asks whoever lives at `addr`, over a connection of its own. Takes at most 7 s.
    ///
    /// Errors: cannot be reached, wrong secret or cluster, too slow.
    pub async fn ask(&self, addr: &str, ask: Ask) -> Result<Answer, PeerError> {
        connect::ask(&self.hub, addr, &ask).await
    }

    /// What peers hear from this node with the next heartbeat, and again on every new link: at most
    /// [`GOSSIP_BYTES_MAX`].
    pub fn gossip(&self) -> watch::Sender<Bytes> {
        self.hub.gossip.clone()
    }

    /// What each peer said last, be it up or not.
    pub fn heard(&self) -> watch::Receiver<BTreeMap<NodeId, Bytes>> {
        self.hub.heard.subscribe()
    }

    /// Stops listening, cuts all links, and waits for the hub's actors to end.
    pub async fn shutdown(&self) {
        self.hub.shutdown().await;
    }
}
