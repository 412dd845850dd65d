//! What two nodes say before they trust each other.
//!
//! ```text
//!   dialer                                        acceptor
//!     | "TRANDB" version, Hello{who, purpose, nonce} -> |
//!     | <- Challenge{who, nonce}                        |
//!     | Proof{HMAC(secret, "dialer" hello challenge)} ->|   checks proof, then who and purpose
//!     | <- Verdict: Accepted{HMAC(secret, "acceptor" …)}|   or Refused{why}
//! ```
//!
//! Both prove that they know the peer secret over both nonces and everything said before, so nothing of it
//! can be replayed, altered, or reflected. The dialer proves first, and only to a proven dialer does the
//! acceptor say anything about cluster or membership. All frames are at most [`FRAME_BYTES_MAX`], and the
//! whole takes at most [`HANDSHAKE_MAX`].
//!
//! **Caveat**: this authenticates the start of a connection; it does not encrypt or sign what follows.
//! Networks where others can inject into a TCP stream need TLS beneath, at [`crate::net`].

use super::frame;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use trandb_cluster::ids::{ClusterId, InstanceId, NodeId};
use trandb_cluster::known_logs::LogExtent;

/// Largest frame of a handshake: identities and nonces take some hundred bytes, so this is ample and still
/// nothing that strangers could exhaust memory with. At the limit: refused.
pub const FRAME_BYTES_MAX: usize = 16 << 10;

/// Longest that a handshake may take, so that slow senders do not hold its slot for longer.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// First bytes of every peer connection: the name, then the protocol version.
const MAGIC: [u8; 6] = *b"TRANDB";

/// Counts incompatible changes of this handshake and of what follows it.
pub(super) const VERSION: u16 = 4;

/// What a node says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// None until the node has been given one.
    pub(super) node: Option<NodeId>,
    /// None until the node knows of a cluster.
    pub(super) cluster: Option<ClusterId>,
    /// The data directory.
    pub(super) instance: InstanceId,
    /// A random number per start; part of the name under which its port actor is found.
    pub(super) boot: u64,
    /// For how long after it heard from a leader it votes for nobody else, in milliseconds.
    pub(super) lease_ms: u64,
    /// The last batch that its log had when it started.
    pub(super) batch: u64,
}

impl Identity {
    /// What its log was when it started.
    pub(super) fn log(&self) -> LogExtent {
        LogExtent { instance: self.instance, boot: self.boot, batch: self.batch }
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Purpose {
    /// A ractor_cluster session.
    Link {
        /// The dialer's random name for it.
        link: u64,
    },
    /// The bulk lane beside a link.
    Bulk {
        /// The link that it belongs to.
        link: u64,
    },
    /// One question, one answer.
    Ask,
}

/// The dialer's first frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// What for.
    pub(super) purpose: Purpose,
    /// Who dials.
    pub(super) me: Identity,
    /// Whom the dialer means to reach; None takes whoever answers.
    pub(super) to: Option<NodeId>,
    /// What the dialer knows of that one's log.
    pub(super) knows: Option<LogExtent>,
    nonce: [u8; 32],
}

impl Hello {
    pub(super) fn new(purpose: Purpose, me: Identity, to: Option<NodeId>, nonce: [u8; 32]) -> Self {
        Self { purpose, me, to, knows: None, nonce }
    }

    /// Says what is known of whom it means to reach.
    pub(super) fn knowing(self, knows: Option<LogExtent>) -> Self {
        Self { knows, ..self }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Challenge {
    me: Identity,
    nonce: [u8; 32],
}

#[derive(Debug, Serialize, Deserialize)]
enum Verdict {
    Accepted { mac: [u8; 32] },
    Refused(Refusal),
}

/// Why an acceptor turns a dialer away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The dialer does not know the peer secret.
    #[error("wrong peer secret")]
    WrongSecret,
    /// The two belong to different clusters.
    #[error("member of another cluster")]
    OtherCluster,
    /// The dialer means another node than the one at this address.
    #[error("another node lives at this address")]
    OtherNode,
    /// The acceptor does not (yet) know the dialer as a member, or is not a member itself.
    #[error("not known as a member")]
    NotMember,
    /// The node with the larger id dials, or a node dials itself.
    #[error("the node with the smaller id has to dial")]
    WrongDirection,
    /// A bulk lane for a link that is not (or no longer) there.
    #[error("no such link")]
    NoLink,
    /// The member of that number has another data directory: this one has lost it, and with it votes and entries that others
    /// count on.
    #[error("the member of that number has another data directory")]
    OtherInstance,
    /// The dialer's log ended, when it started, before a batch that was durable once: its data directory was an older copy.
    #[error("its log had reached batch {0} before it started, and did not any more then")]
    OlderCopy(u64),
    /// The acceptor's did.
    #[error("it has an older copy of its data directory")]
    HasOlderCopy,
}

/// Why a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The network.
    #[error("i/o error: {0}")]
    Io(io::ErrorKind),
    /// Too slow.
    #[error("handshake not finished within {} s", HANDSHAKE_MAX.as_secs())]
    Timeout,
    /// The other side hung up in the middle.
    #[error("closed during the handshake")]
    Closed,
    /// The first bytes are not ours.
    #[error("not a trandb peer: wrong first bytes")]
    NotAPeer,
    /// Another protocol version.
    #[error("peer protocol version {0}, expected {VERSION}")]
    Version(u16),
    /// A frame above [`FRAME_BYTES_MAX`].
    #[error("handshake frame claims {bytes} bytes")]
    FrameTooLarge {
        /// As claimed.
        bytes: u32,
    },
    /// A frame that cannot be read.
    #[error("malformed handshake frame")]
    Malformed,
    /// We turned the other side away.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The other side turned us away.
    #[error("refused by the peer: {0}")]
    RefusedByPeer(Refusal),
}

impl HandshakeError {
    /// A short name, the same whatever the values: for metric labels and for telling reasons apart.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Io(_) => "io",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::NotAPeer => "not_a_peer",
            Self::Version(_) => "version",
            Self::FrameTooLarge { .. } => "frame_too_large",
            Self::Malformed => "malformed",
            Self::Refused(refusal) | Self::RefusedByPeer(refusal) => match refusal {
                Refusal::WrongSecret => "wrong_secret",
                Refusal::OtherCluster => "other_cluster",
                Refusal::OtherNode => "other_node",
                Refusal::NotMember => "not_member",
                Refusal::WrongDirection => "wrong_direction",
                Refusal::NoLink => "no_link",
                Refusal::OtherInstance => "other_instance",
                Refusal::OlderCopy(_) | Refusal::HasOlderCopy => "older_copy",
            },
        }
    }
}

/// Dials: proves ourselves and checks the acceptor. Answers who it is; the stream stands right behind the
/// handshake then.
pub(super) async fn dial<S>(stream: &mut S, secret: &[u8], hello: &Hello) -> Result<Identity, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let said = frame::encode(hello);
    let mut opening = Vec::with_capacity(12 + said.len());
    opening.extend_from_slice(&MAGIC);
    opening.extend_from_slice(&VERSION.to_be_bytes());
    opening.extend_from_slice(&(said.len() as u32).to_be_bytes());
    opening.extend_from_slice(&said);
    stream.write_all(&opening).await.map_err(frame::closed)?;
    stream.flush().await.map_err(frame::closed)?;

    let heard = frame::read(stream, FRAME_BYTES_MAX).await?;
    let challenge: Challenge = frame::decode(&heard)?;
    let proof = mac(secret, b"dialer", &said, &heard).finalize().into_bytes();
    frame::write(stream, &proof).await?;

    match frame::decode(&frame::read(stream, FRAME_BYTES_MAX).await?)? {
        Verdict::Accepted { mac: theirs } => mac(secret, b"acceptor", &said, &heard)
            .verify_slice(&theirs)
            .map_err(|_| HandshakeError::Refused(Refusal::WrongSecret))?,
        Verdict::Refused(refusal) => return Err(HandshakeError::RefusedByPeer(refusal)),
    }
    if clusters_differ(hello.me.cluster, challenge.me.cluster) {
        return Err(HandshakeError::Refused(Refusal::OtherCluster));
    }
    if hello.to.is_some() && hello.to != challenge.me.node {
        return Err(HandshakeError::Refused(Refusal::OtherNode));
    }
    Ok(challenge.me)
}

/// Reads the first bytes and the hello of a dialer; nothing in it is proven yet.
pub(super) async fn greet<S>(stream: &mut S) -> Result<Greeting, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut magic = [0; 6];
    stream.read_exact(&mut magic).await.map_err(frame::closed)?;
    if magic != MAGIC {
        return Err(HandshakeError::NotAPeer);
    }
    let version = stream.read_u16().await.map_err(frame::closed)?;
    if version != VERSION {
        return Err(HandshakeError::Version(version));
    }
    let heard = frame::read(stream, FRAME_BYTES_MAX).await?;
    let hello = frame::decode(&heard)?;
    Ok(Greeting { hello, heard })
}

/// What a dialer claims.
pub(super) struct Greeting {
    /// Its hello, unproven.
    pub(super) hello: Hello,
    heard: Vec<u8>,
}

impl Greeting {
    /// Accepts: has the dialer prove itself, asks `admit` whether we want it, and proves ourselves.
    pub(super) async fn accept<S>(
        self,
        stream: &mut S,
        secret: &[u8],
        me: Identity,
        nonce: [u8; 32],
        admit: impl FnOnce(&Hello) -> Result<(), Refusal>,
    ) -> Result<Hello, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let said = frame::encode(&Challenge { me, nonce });
        frame::write(stream, &said).await?;
        let proof = frame::read(stream, FRAME_BYTES_MAX).await?;
        let verdict = match mac(secret, b"dialer", &self.heard, &said).verify_slice(&proof) {
            Err(_) => Err(Refusal::WrongSecret),
            Ok(()) if clusters_differ(me.cluster, self.hello.me.cluster) => Err(Refusal::OtherCluster),
            Ok(()) if self.hello.to.is_some() && self.hello.to != me.node => Err(Refusal::OtherNode),
            Ok(()) => admit(&self.hello),
        };
        if let Err(refusal) = verdict {
            frame::write(stream, &frame::encode(&Verdict::Refused(refusal))).await?;
            return Err(HandshakeError::Refused(refusal));
        }
        let proof = mac(secret, b"acceptor", &self.heard, &said).finalize().into_bytes().into();
        frame::write(stream, &frame::encode(&Verdict::Accepted { mac: proof })).await?;
        Ok(self.hello)
    }
}

/// The cookie that ractor_cluster's own handshake compares: derived, so that its weaker challenge
/// never works on the secret itself.
pub(super) fn session_cookie(secret: &[u8]) -> String {
    let digest = mac(secret, b"session cookie", &[], &[]).finalize().into_bytes();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One that knows of no cluster yet may talk to any: that is how it comes to know one.
fn clusters_differ(ours: Option<ClusterId>, theirs: Option<ClusterId>) -> bool {
    matches!((ours, theirs), (Some(ours), Some(theirs)) if ours != theirs)
}

fn mac(secret: &[u8], role: &[u8], hello: &[u8], challenge: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    for part in [role, hello, challenge] {
        mac.update(&(part.len() as u32).to_be_bytes());
        mac.update(part);
    }
    mac
}
