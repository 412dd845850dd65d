//! Heartbeats: each node beats on each of its links at its own pace, and counts how many of its own beats
//! went by since it heard anything on that link.
//!
//! Counting beats instead of time means that a node which was itself frozen or starved does not suspect
//! everybody when it wakes: it wakes to one more beat, and to what its peers have sent meanwhile.

use super::envelope::{Head, Kind};
use super::handshake::HANDSHAKE_MAX;
use super::hub::Hub;
use super::options::PeerState;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::{Instant, MissedTickBehavior};
use trandb_cluster::ids::NodeId;

/// Largest gossip: it travels whole with a heartbeat and must not delay the next. At the limit: not sent,
/// and logged.
pub const GOSSIP_BYTES_MAX: usize = 16 << 10;

/// How long a peer is suspected before it counts as down: what a frozen one that comes back would need to
/// get through a handshake that was under way.
const SUSPECT_MAX: std::time::Duration = HANDSHAKE_MAX;

/// Beats until the hub stops.
pub(super) async fn run(hub: Arc<Hub>) {
    let mut every = tokio::time::interval(hub.heartbeat);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut gossips = hub.gossip.subscribe();
    let mut gossip = Gossip { version: 0, body: Bytes::new() };
    loop {
        tokio::select! {
            biased;
            () = hub.stop.cancelled() => return,
            _ = every.tick() => {}
        }
        gossip.refresh(&gossips.borrow_and_update());
        if let Some(me) = hub.node() {
            beat_all(&hub, me, &gossip);
        }
    }
}

/// What to send, and how often that has changed.
struct Gossip {
    version: u64,
    body: Bytes,
}

impl Gossip {
    fn refresh(&mut self, latest: &Bytes) {
        if *latest == self.body {
            return;
        }
        if latest.len() > GOSSIP_BYTES_MAX {
            tracing::error!(
                bytes = latest.len(),
                bytes_max = GOSSIP_BYTES_MAX,
                "gossip is too large to send"
            );
        }
        self.body = latest.clone();
        self.version += 1;
    }
}

fn beat_all(hub: &Hub, me: NodeId, gossip: &Gossip) {
    let batch = hub.durable.batch();
    for peer in hub.peers() {
        let Some(link) = peer.open_link() else {
            hub.change_state(peer.id, |state| match state {
                PeerState::Suspect { since } if since.elapsed() >= SUSPECT_MAX => PeerState::Down,
                other => other,
            });
            continue;
        };
        if link.silent.fetch_add(1, Ordering::Relaxed) >= hub.heartbeats_missed {
            tracing::warn!(peer = %peer.id, missed = hub.heartbeats_missed, "peer missed its heartbeats");
            peer.metrics.up(false);
            hub.change_state(peer.id, |_| PeerState::Suspect { since: Instant::now() });
            link.cut();
            continue;
        }
        let fresh = link.gossip_sent.swap(gossip.version, Ordering::Relaxed) != gossip.version
            && gossip.body.len() <= GOSSIP_BYTES_MAX;
        let body = if fresh { gossip.body.to_vec() } else { Vec::new() };
        let head = Head { from: me, link: link.id, kind: Kind::Beat { gossip: fresh, batch } };
        // A link that has just died is noticed by its end.
        let _ = link.send(head, body);
    }
}
