//! The hub's state and the life of its links.

use super::ask::AskHandler;
use super::complaints::Complaints;
use super::envelope::{Envelope, Port, port_name};
use super::handshake::{Identity, session_cookie};
use super::link::{Link, Peer, lock};
use super::options::{PeerError, PeerOptions, PeerState, Reverted};
use super::stream::LinkStream;
use super::{beat, connect};
use crate::net::{BoxedStream, Net};
use crate::planted::{Planted, is_planted};
use crate::random::Random;
use crate::wal::Durable;
use bytes::Bytes;
use ractor::{Actor, ActorCell, ActorRef, ActorStatus};
use ractor_cluster::node::{NodeConnectionMode, NodeServerSessionInformation};
use ractor_cluster::{NodeEventSubscription, NodeServer, NodeServerMessage};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trandb_cluster::ids::{ClusterId, InstanceId, NodeId};
use trandb_cluster::known_logs::{KnownLogs, LogExtent};

/// Largest frame that a session accepts: one chunk and its head are well below, and announcements of actors
/// too. At the limit: the session is closed.
const SESSION_FRAME_BYTES_MAX: u64 = 1 << 20;

/// How long a session may take from its handshake to being ready, and how long a cut one may take to go.
const SESSION_STEP_MAX: Duration = Duration::from_secs(2);

/// What a running node has beyond a mere hub.
struct Member {
    node: NodeId,
    server: ActorRef<NodeServerMessage>,
    port: ActorRef<Envelope>,
}

/// What all tasks of a hub share.
pub(super) struct Hub {
    pub(super) net: Arc<dyn Net>,
    pub(super) random: Random,
    pub(super) secret: Vec<u8>,
    pub(super) ask: AskHandler,
    pub(super) heartbeat: Duration,
    pub(super) heartbeats_missed: u32,
    pub(super) complaints: Complaints,
    /// Everything ends when this is cancelled.
    pub(super) stop: CancellationToken,
    pub(super) states: watch::Sender<BTreeMap<NodeId, PeerState>>,
    pub(super) gossip: watch::Sender<Bytes>,
    pub(super) heard: watch::Sender<BTreeMap<NodeId, Bytes>>,
    /// Actors of this node by short name.
    pub(super) actors: watch::Sender<BTreeMap<String, ActorCell>>,
    /// How far this node's log is durable.
    pub(super) durable: Durable,
    /// How far it was when the hub started, before anything was written.
    began: u64,
    /// Set once another node knows of more than this one's log has.
    pub(super) reverted: watch::Sender<Option<Reverted>>,
    instance: InstanceId,
    boot: u64,
    park: SocketAddr,
    calls_in_flight: usize,
    bytes_in_flight: usize,
    cluster: Mutex<Option<ClusterId>>,
    member: OnceLock<Member>,
    /// Held while the node takes its id, so that it takes one only.
    identifying: tokio::sync::Mutex<()>,
    peers: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
    /// As last told; applied once the node has an id.
    wanted: Mutex<BTreeMap<NodeId, String>>,
    /// The members' data directories, as far as they are known.
    instances: Mutex<BTreeMap<NodeId, InstanceId>>,
    /// How far the peers' logs reach.
    logs: Mutex<KnownLogs>,
    lease_ms: u64,
    /// What the nodes that there was a link to since the start promise: before any of them is heard on it.
    leases_ms: Mutex<BTreeMap<NodeId, u64>>,
    /// The shortest of these and of this node's own.
    shortest_lease_ms: AtomicU64,
    /// Links whose session is not gone yet, by label.
    links: Mutex<BTreeMap<String, Arc<Link>>>,
}

impl Hub {
    /// Starts listening; as a member at once, where the options name the node.
    pub(super) async fn start(options: PeerOptions) -> Result<Arc<Self>, PeerError> {
        let hub = Arc::new(Self {
            net: options.net,
            boot: options.random.next_u64(),
            random: options.random,
            secret: options.secret,
            ask: options.ask,
            heartbeat: Duration::from_millis(options.heartbeat_ms.max(1)),
            heartbeats_missed: options.heartbeats_missed.max(1),
            complaints: Complaints::default(),
            stop: CancellationToken::new(),
            states: watch::Sender::default(),
            gossip: watch::Sender::default(),
            heard: watch::Sender::default(),
            actors: watch::Sender::default(),
            began: options.durable.batch(),
            durable: options.durable,
            reverted: watch::Sender::default(),
            instance: options.instance,
            park: options.park,
            calls_in_flight: options.calls_in_flight,
            bytes_in_flight: options.bytes_in_flight,
            cluster: Mutex::new(options.cluster),
            member: OnceLock::new(),
            identifying: tokio::sync::Mutex::default(),
            peers: Mutex::default(),
            wanted: Mutex::default(),
            instances: Mutex::default(),
            logs: Mutex::default(),
            lease_ms: options.lease_ms,
            leases_ms: Mutex::default(),
            shortest_lease_ms: AtomicU64::new(options.lease_ms),
            links: Mutex::default(),
        });
        if let Some(node) = options.node {
            hub.identify(node).await?;
        }
        tokio::spawn(connect::listen(hub.clone(), options.listener));
        tokio::spawn(beat::run(hub.clone()));
        Ok(hub)
    }

    /// Takes the node's id and becomes ready for links.
    pub(super) async fn identify(self: &Arc<Self>, node: NodeId) -> Result<(), PeerError> {
        let _one_at_a_time = self.identifying.lock().await;
        if let Some(taken) = self.node() {
            return if taken == node { Ok(()) } else { Err(PeerError::Identified(taken)) };
        }
        let failed = |error: ractor::SpawnErr| PeerError::Start(error.to_string());
        let name = port_name(node, self.boot);
        let (port, _) = Actor::spawn(Some(name), Port { hub: self.clone() }, ()).await.map_err(failed)?;
        let server = NodeServer::new(
            self.park.port(),
            session_cookie(&self.secret),
            node.to_string(),
            node.to_string(),
            None,
            Some(NodeConnectionMode::Isolated),
        )
        .with_listen_addr(self.park.ip())
        .with_max_inbound_frame_size(SESSION_FRAME_BYTES_MAX);
        let server = match Actor::spawn(None, server, ()).await {
            Ok((server, _)) => server,
            Err(error) => {
                port.stop(None);
                return Err(failed(error));
            }
        };
        let events = Box::new(SessionEvents { hub: self.clone() });
        let subscribe = NodeServerMessage::SubscribeToEvents { id: "hub".into(), subscription: events };
        server.cast(subscribe).map_err(|error| PeerError::Start(error.to_string()))?;
        let member = Member { node, server, port };
        if self.member.set(member).is_err() {
            unreachable!("only the holder of `identifying` sets it");
        }
        self.reconcile();
        Ok(())
    }

    pub(super) fn node(&self) -> Option<NodeId> {
        self.member.get().map(|member| member.node)
    }

    pub(super) fn set_cluster(&self, cluster: ClusterId) {
        *lock(&self.cluster) = Some(cluster);
    }

    /// What this node says of itself in handshakes.
    pub(super) fn me(&self) -> Identity {
        Identity {
            node: self.node(),
            cluster: *lock(&self.cluster),
            instance: self.instance,
            boot: self.boot,
            lease_ms: self.lease_ms,
            batch: self.began,
        }
    }

    pub(super) fn nonce(&self) -> [u8; 32] {
        let mut nonce = [0; 32];
        self.random.fill(&mut nonce);
        nonce
    }

    pub(super) fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        lock(&self.peers).get(&node).cloned()
    }

    pub(super) fn peers(&self) -> Vec<Arc<Peer>> {
        lock(&self.peers).values().cloned().collect()
    }

    pub(super) fn set_peers(self: &Arc<Self>, peers: BTreeMap<NodeId, String>) {
        *lock(&self.wanted) = peers;
        self.reconcile();
    }

    pub(super) fn set_instances(&self, instances: BTreeMap<NodeId, InstanceId>) {
        *lock(&self.instances) = instances;
    }

    /// Whether the data directory can be that node's.
    pub(super) fn may_be(&self, node: NodeId, instance: InstanceId) -> bool {
        lock(&self.instances).get(&node).is_none_or(|known| *known == instance)
    }

    /// A peer says how far its log is durable.
    pub(super) fn hear_log(&self, node: NodeId, says: LogExtent) {
        lock(&self.logs).hear(node, says);
    }

    /// What is known of a peer's log.
    pub(super) fn knows_of(&self, node: NodeId) -> Option<LogExtent> {
        lock(&self.logs).of(node)
    }

    /// The batch that a peer's log had reached, if it has started with less.
    pub(super) fn lost_by(&self, node: NodeId, began: LogExtent) -> Option<u64> {
        lost(began, self.knows_of(node))
    }

    /// A peer knows this node's log to have reached that batch, which it had not when it started.
    pub(super) fn has_reverted(&self, peer: NodeId, known: u64) {
        self.reverted.send_if_modified(|reverted| {
            let news = reverted.is_none();
            reverted.get_or_insert(Reverted { peer, known, has: self.began });
            news
        });
    }

    pub(super) fn shortest_lease(&self) -> Duration {
        Duration::from_millis(self.shortest_lease_ms.load(Ordering::SeqCst))
    }

    fn count_on(&self, node: NodeId, lease_ms: u64) {
        let mut leases = lock(&self.leases_ms);
        if leases.insert(node, lease_ms).is_none() && lease_ms != self.lease_ms {
            tracing::warn!(peer = %node, theirs = lease_ms, ours = self.lease_ms, "raft.election_max_ms differs: leases last as long \
                as the shorter one");
        }
        let shortest = leases.values().copied().fold(self.lease_ms, u64::min);
        self.shortest_lease_ms.store(shortest, Ordering::SeqCst);
    }

    pub(super) fn wanted(&self) -> BTreeMap<NodeId, String> {
        lock(&self.wanted).clone()
    }

    /// Brings the peers in line with what is wanted.
    fn reconcile(self: &Arc<Self>) {
        let Some(me) = self.node() else { return };
        let mut peers = lock(&self.peers);
        let wanted = lock(&self.wanted).clone();
        lock(&self.logs).retain(|node| wanted.contains_key(&node));
        peers.retain(|node, peer| {
            let stays = wanted.contains_key(node);
            if !stays {
                peer.gone.cancel();
                if let Some(link) = peer.link() {
                    link.cut();
                }
                peer.metrics.up(false);
            }
            stays
        });
        let mut to_dial = Vec::new();
        for (node, addr) in wanted {
            if node == me {
                continue;
            }
            if let Some(peer) = peers.get(&node) {
                peer.set_addr(addr);
                continue;
            }
            let gone = self.stop.child_token();
            let peer = Peer::new(node, addr, self.calls_in_flight, self.bytes_in_flight, gone);
            peer.metrics.up(false);
            peers.insert(node, peer.clone());
            if me < node {
                to_dial.push(peer);
            }
        }
        self.states.send_if_modified(|states| {
            let before = states.len();
            states.retain(|node, _| peers.contains_key(node));
            let mut changed = states.len() != before;
            for node in peers.keys() {
                states.entry(*node).or_insert_with(|| {
                    changed = true;
                    PeerState::Down
                });
            }
            changed
        });
        self.heard.send_if_modified(|heard| {
            let before = heard.len();
            heard.retain(|node, _| peers.contains_key(node));
            heard.len() != before
        });
        // Only now, since a link may be up before this function returns, and its state needs its place.
        for peer in to_dial {
            tokio::spawn(connect::keep_linked(self.clone(), peer));
        }
    }

    /// Publishes what `change` makes of a peer's state.
    pub(super) fn change_state(&self, node: NodeId, change: impl FnOnce(PeerState) -> PeerState) {
        self.states.send_if_modified(|states| {
            let Some(state) = states.get_mut(&node) else { return false };
            let next = change(*state);
            let changed = *state != next;
            *state = next;
            changed
        });
    }

    /// Hands an authenticated stream to ractor_cluster as the one link to its peer. A link that is still
    /// there is cut and waited for: of two sessions with one peer, ractor_cluster would keep either.
    pub(super) async fn attach(self: &Arc<Self>, link: Arc<Link>, stream: BoxedStream) {
        let Some(member) = self.member.get() else { return };
        while let Err(other) = link.peer.occupy(&link) {
            other.cut();
            if tokio::time::timeout(SESSION_STEP_MAX, other.closed.cancelled()).await.is_err() {
                self.ended(&other);
            }
        }
        self.count_on(link.peer.id, link.them.lease_ms);
        self.hear_log(link.peer.id, link.them.log());
        let label = link.label();
        lock(&self.links).insert(label.clone(), link.clone());
        if link.peer.gone.is_cancelled() {
            return self.ended(&link);
        }
        let stream = Box::new(LinkStream { stream, label, kill: link.kill.clone() });
        let opened = NodeServerMessage::ConnectionOpenedExternal { stream, is_server: !link.dialer };
        if member.server.cast(opened).is_err() {
            return self.ended(&link);
        }
        tokio::spawn(watch_session(self.clone(), link));
    }

    /// A session is ready.
    fn opened(self: &Arc<Self>, label: &str, session: &ActorCell) {
        let Some(link) = lock(&self.links).get(label).cloned() else { return };
        let name = port_name(link.peer.id, link.them.boot);
        let port = session.get_children().into_iter().find(|child| {
            !child.get_id().is_local()
                && child.get_status() < ActorStatus::Draining
                && child.get_name().as_deref() == Some(name.as_str())
        });
        let Some(port) = port else {
            tracing::warn!(peer = %link.peer.id, "peer shows no port actor, link cut");
            return link.cut();
        };
        link.open(port);
        link.heard();
        self.complaints.settled(&link.peer.id.to_string());
        link.peer.metrics.up(true);
        self.change_state(link.peer.id, |_| PeerState::Up);
        tracing::info!(peer = %link.peer.id, "peer link up");
        if link.dialer {
            tokio::spawn(connect::keep_lane(self.clone(), link));
        }
    }

    /// A link's session is gone, or is given up.
    fn ended(&self, link: &Arc<Link>) {
        lock(&self.links).remove(&link.label());
        link.cut();
        link.set_lane(None);
        if link.peer.vacate(link) {
            link.peer.metrics.up(false);
            self.change_state(link.peer.id, |state| match state {
                PeerState::Up => PeerState::Down,
                other => other,
            });
            if link.opened.is_cancelled() {
                tracing::warn!(peer = %link.peer.id, "peer link lost");
            }
        }
        link.closed.cancel();
    }

    /// Ends everything. Links are cut, not drained: what must not be lost has been handed over before.
    pub(super) async fn shutdown(&self) {
        self.stop.cancel();
        let links: Vec<_> = lock(&self.links).values().cloned().collect();
        for link in links {
            link.cut();
            let _ = tokio::time::timeout(SESSION_STEP_MAX, link.closed.cancelled()).await;
        }
        if let Some(member) = self.member.get() {
            // A server or port that has stopped by itself is as good.
            let _ = member.server.stop_and_wait(None, Some(SESSION_STEP_MAX)).await;
            let _ = member.port.stop_and_wait(None, Some(SESSION_STEP_MAX)).await;
        }
    }
}

/// Cuts a link whose session does not get ready, and clears away one whose session does not go.
async fn watch_session(hub: Arc<Hub>, link: Arc<Link>) {
    tokio::select! {
        biased;
        () = link.closed.cancelled() => return,
        () = link.opened.cancelled() => {}
        () = tokio::time::sleep(SESSION_STEP_MAX) => {
            tracing::warn!(peer = %link.peer.id, "peer session did not get ready in time");
            link.cut();
        }
    }
    tokio::select! {
        biased;
        () = link.closed.cancelled() => return,
        () = link.kill.cancelled() => {}
    }
    if tokio::time::timeout(SESSION_STEP_MAX, link.closed.cancelled()).await.is_err() {
        hub.ended(&link);
    }
}

/// Session events, told apart by the label that each stream was given.
struct SessionEvents {
    hub: Arc<Hub>,
}

impl NodeEventSubscription for SessionEvents {
    fn node_session_opened(&self, _: NodeServerSessionInformation) {}

    fn node_session_authenticated(&self, _: NodeServerSessionInformation) {}

    fn node_session_ready(&self, session: NodeServerSessionInformation) {
        self.hub.opened(&session.peer_addr, &session.actor.get_cell());
    }

    fn node_session_disconnected(&self, session: NodeServerSessionInformation) {
        let link = lock(&self.hub.links).get(&session.peer_addr).cloned();
        if let Some(link) = link {
            self.hub.ended(&link);
        }
    }
}

/// The batch that a log is known to have reached, if it lacks some of that.
pub(super) fn lost(log: LogExtent, known: Option<LogExtent>) -> Option<u64> {
    let known = known.filter(|known| log.lacks(known))?;
    (!is_planted(Planted::OlderCopyUnnoticed)).then_some(known.batch)
}
