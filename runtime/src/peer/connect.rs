//! Dialing and listening: how connections come to be and are told apart.

use super::ask::{ASK_BYTES_MAX, Answer, Ask};
use super::bulk::Lane;
use super::frame;
use super::handshake::{self, HANDSHAKE_MAX, HandshakeError, Hello, Purpose, Refusal};
use super::hub::{Hub, lost};
use super::link::{Link, Peer};
use super::metrics::handshake_failed;
use super::options::{PeerError, PeerState};
use crate::net::{BoxedStream, Listener};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use trandb_cluster::ids::NodeId;

/// Strangers being talked to at a time. At the limit: new connections wait in the kernel's queue until one
/// is done, which takes at most [`HANDSHAKE_MAX`].
const HANDSHAKES_MAX: usize = 128;

/// Longest that one attempt to dial may take, handshake included. Well below what a kernel would wait, so
/// that a peer whose packets were dropped for a while is found soon after.
const DIAL_MAX: Duration = Duration::from_secs(2);

/// First and longest wait between two attempts; the real one is drawn from its upper half.
const BACKOFF_MS: (u64, u64) = (50, 500);

/// Rest after a failed accept, which mostly means too many open files: trying at once would only spin.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Accepts connections until the hub stops.
pub(super) async fn listen(hub: Arc<Hub>, listener: Box<dyn Listener>) {
    let slots = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let accepted = tokio::select! {
            biased;
            () = hub.stop.cancelled() => return,
            accepted = async {
                let slot = slots.clone().acquire_owned().await.expect("nobody closes it");
                (slot, listener.accept().await)
            } => accepted,
        };
        match accepted {
            (slot, Ok((stream, from))) => {
                tokio::spawn(answer_stranger(hub.clone(), slot, stream, from));
            }
            (slot, Err(error)) => {
                drop(slot);
                if hub.complaints.is_news("listener", "accept") {
                    tracing::error!(%error, "cannot accept peer connections");
                }
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// Finds out who connects and what for, and complains once if that leads nowhere.
async fn answer_stranger(
    hub: Arc<Hub>,
    slot: OwnedSemaphorePermit,
    mut stream: BoxedStream,
    from: SocketAddr,
) {
    let mut claimed = None;
    let done = timeout(HANDSHAKE_MAX, async {
        let greeting = handshake::greet(&mut stream).await?;
        claimed = greeting.hello.me.node;
        let me = hub.me();
        let admit = |hello: &Hello| admit(&hub, hello).map(drop);
        greeting.accept(&mut stream, &hub.secret, me, hub.nonce(), admit).await
    });
    let done = tokio::select! {
        biased;
        () = hub.stop.cancelled() => return,
        done = done => done.unwrap_or(Err(HandshakeError::Timeout)),
    };
    let source = source(from, claimed);
    match done {
        Ok(hello) => {
            hub.complaints.settled(&source);
            welcome(&hub, slot, stream, &hello).await;
        }
        Err(error) => {
            handshake_failed(error.kind());
            if hub.complaints.is_news(&source, error.kind()) {
                let claimed = claimed.map(tracing::field::display);
                tracing::warn!(from = %from.ip(), claimed, reason = %error, "peer connection refused");
            }
        }
    }
}

/// Who complains are remembered by: the port changes with every try.
fn source(from: SocketAddr, claimed: Option<NodeId>) -> String {
    match claimed {
        Some(node) => format!("{} {node}", from.ip()),
        None => from.ip().to_string(),
    }
}

/// Whether we want what a proven dialer wants, and with which peer.
fn admit(hub: &Hub, hello: &Hello) -> Result<Option<Arc<Peer>>, Refusal> {
    if hello.purpose == Purpose::Ask {
        return Ok(None);
    }
    let (Some(us), Some(them)) = (hub.node(), hello.me.node) else { return Err(Refusal::NotMember) };
    if them >= us {
        return Err(Refusal::WrongDirection);
    }
    let peer = hub.peer(them).ok_or(Refusal::NotMember)?;
    if !hub.may_be(them, hello.me.instance) {
        return Err(Refusal::OtherInstance);
    }
    if let Some(batch) = hub.lost_by(them, hello.me.log()) {
        return Err(Refusal::OlderCopy(batch));
    }
    if let Some(batch) = lost(hub.me().log(), hello.knows) {
        hub.has_reverted(them, batch);
    }
    // Be it that this one knows of nothing: it has forgotten that, too.
    if hub.reverted.borrow().is_some() {
        return Err(Refusal::HasOlderCopy);
    }
    if let Purpose::Bulk { link: wanted } = hello.purpose {
        let there = peer.link().is_some_and(|link| link.id == wanted && link.them.boot == hello.me.boot);
        if !there {
            return Err(Refusal::NoLink);
        }
    }
    Ok(Some(peer))
}

/// Does what a proven dialer wants.
async fn welcome(hub: &Arc<Hub>, slot: OwnedSemaphorePermit, mut stream: BoxedStream, hello: &Hello) {
    match (hello.purpose, admit(hub, hello)) {
        (Purpose::Ask, _) => {
            let _ = timeout(HANDSHAKE_MAX, async {
                let ask = frame::decode(&frame::read(&mut stream, ASK_BYTES_MAX).await?)?;
                let answer = (hub.ask)(ask).await;
                frame::write(&mut stream, &frame::encode(&answer)).await
            })
            .await;
            drop(slot);
        }
        (Purpose::Link { link }, Ok(Some(peer))) => {
            drop(slot);
            hub.attach(Link::new(peer, link, hello.me, false), stream).await;
        }
        (Purpose::Bulk { link: wanted }, Ok(Some(peer))) => {
            drop(slot);
            if let Some(link) = peer.link().filter(|link| link.id == wanted) {
                link.set_lane(Some(Lane::start(hub.clone(), &link, stream)));
            }
        }
        // It was admitted a moment ago; the peer or the link has just gone.
        _ => {}
    }
}

/// Keeps one link to a peer, as the one that dials.
pub(super) async fn keep_linked(hub: Arc<Hub>, peer: Arc<Peer>) {
    let mut backoff_ms = BACKOFF_MS.0;
    loop {
        let (id, addr) = (hub.random.next_u64(), peer.addr());
        let dialed = tokio::select! {
            biased;
            () = peer.gone.cancelled() => return,
            dialed = dial(&hub, &addr, Some(peer.id), Purpose::Link { link: id }) => dialed,
        };
        match dialed {
            Ok((stream, them)) => {
                let link = Link::new(peer.clone(), id, them, true);
                hub.attach(link.clone(), stream).await;
                link.closed.cancelled().await;
                if link.opened.is_cancelled() {
                    backoff_ms = BACKOFF_MS.0;
                }
            }
            Err(error) => {
                hub.change_state(peer.id, |_| PeerState::Down);
                complain(&hub, &peer, &error);
            }
        }
        let wait = Duration::from_millis(hub.random.between(backoff_ms / 2, backoff_ms));
        backoff_ms = (backoff_ms * 2).min(BACKOFF_MS.1);
        tokio::select! {
            biased;
            () = peer.gone.cancelled() => return,
            () = tokio::time::sleep(wait) => peer.metrics.redialed(),
        }
        metrics::counter!("trandb_peer_redials_total", "peer" => peer.id.to_string()).increment(1);
    }
}

/// Keeps one bulk lane beside a link, as the one that dials, until the link ends.
pub(super) async fn keep_lane(hub: Arc<Hub>, link: Arc<Link>) {
    let peer = link.peer.clone();
    let mut backoff_ms = BACKOFF_MS.0;
    loop {
        let (addr, purpose) = (peer.addr(), Purpose::Bulk { link: link.id });
        let dialed = tokio::select! {
            biased;
            () = link.kill.cancelled() => return,
            dialed = dial(&hub, &addr, Some(peer.id), purpose) => dialed,
        };
        match dialed {
            Ok((stream, _)) => {
                let lane = Lane::start(hub.clone(), &link, stream);
                link.set_lane(Some(lane.clone()));
                lane.closed.cancelled().await;
            }
            Err(error) => complain(&hub, &peer, &error),
        }
        let wait = Duration::from_millis(hub.random.between(backoff_ms / 2, backoff_ms));
        backoff_ms = (backoff_ms * 2).min(BACKOFF_MS.1);
        tokio::select! {
            biased;
            () = link.kill.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn complain(hub: &Hub, peer: &Peer, error: &PeerError) {
    let kind = match error {
        PeerError::Handshake { reason, .. } => reason.kind(),
        _ => "dial",
    };
    handshake_failed(kind);
    if hub.complaints.is_news(&peer.id.to_string(), kind) {
        tracing::warn!(peer = %peer.id, %error, "peer cannot be reached");
    }
}

/// Asks whoever lives at `addr`.
pub(super) async fn ask(hub: &Hub, addr: &str, ask: &Ask) -> Result<Answer, PeerError> {
    let (mut stream, _) = dial(hub, addr, None, Purpose::Ask).await?;
    let asked = timeout(HANDSHAKE_MAX, async {
        frame::write(&mut stream, &frame::encode(ask)).await?;
        frame::decode(&frame::read(&mut stream, ASK_BYTES_MAX).await?)
    });
    asked
        .await
        .unwrap_or(Err(HandshakeError::Timeout))
        .map_err(|reason| PeerError::Handshake { addr: addr.to_owned(), reason })
}

async fn dial(
    hub: &Hub,
    addr: &str,
    to: Option<NodeId>,
    purpose: Purpose,
) -> Result<(BoxedStream, handshake::Identity), PeerError> {
    let failed = |kind| PeerError::Dial { addr: addr.to_owned(), kind };
    let dialed = timeout(DIAL_MAX, async {
        let mut stream = hub.net.dial(addr).await.map_err(|error| failed(error.kind()))?;
        let knows = to.and_then(|to| hub.knows_of(to));
        let hello = Hello::new(purpose, hub.me(), to, hub.nonce()).knowing(knows);
        let them = handshake::dial(&mut stream, &hub.secret, &hello).await.and_then(|them| match to {
            Some(to) if !hub.may_be(to, them.instance) => {
                Err(HandshakeError::Refused(Refusal::OtherInstance))
            }
            _ => Ok(them),
        });
        if let (Some(to), Err(HandshakeError::RefusedByPeer(Refusal::OlderCopy(known)))) = (to, &them) {
            hub.has_reverted(to, *known);
        }
        match them {
            Ok(them) => Ok((stream, them)),
            Err(reason) => Err(PeerError::Handshake { addr: addr.to_owned(), reason }),
        }
    });
    dialed.await.unwrap_or_else(|_| Err(failed(std::io::ErrorKind::TimedOut)))
}
