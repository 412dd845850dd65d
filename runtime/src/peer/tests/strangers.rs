//! Connections that lead nowhere.

use super::super::handshake::{
    Greeting, HandshakeError, Hello, Identity, Purpose, Refusal, VERSION, dial, greet,
};
use super::super::{HANDSHAKE_MAX, PeerError};
use super::*;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tracing_subscriber::layer::{Context, SubscriberExt};

/// Keeps what is logged at warn and above.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Logged {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Fields(String);
        impl tracing::field::Visit for Fields {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{field}={value:?} "));
            }
        }
        if *event.metadata().level() <= tracing::Level::WARN {
            let mut fields = Fields(String::new());
            event.record(&mut fields);
            self.0.lock().expect("no test panics in here").push(fields.0);
        }
    }
}

impl Logged {
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let logged = Self::default();
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(logged.clone()));
        (logged, guard)
    }

    fn with(&self, part: &str) -> Vec<String> {
        let lines = self.0.lock().expect("no test panics in here");
        lines.iter().filter(|line| line.contains(part)).cloned().collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_secret_is_refused_and_logged_once_on_each_side() {
    let (logged, _guard) = Logged::start();
    let net = MemNet::default();
    let [a, b] = fresh_ids();
    let a = start(a, Setup { secret: "guess", ..on(&net, "a") }).await;
    let b = start(b, on(&net, "b")).await;
    introduce(&[&a, &b]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(net.dialed.load(Ordering::Relaxed) > 100, "it keeps trying");
    assert_eq!(logged.with("peer connection refused").len(), 1, "{:?}", logged.with(""));
    assert_eq!(logged.with("peer cannot be reached").len(), 1, "{:?}", logged.with(""));
    assert!(logged.with("refused").iter().all(|line| line.contains("wrong peer secret")));
    assert!(!a.hub.states().borrow()[&b.id].is_up());
    let asked = a.hub.ask("b", Ask::Discover).await;
    let refusal = HandshakeError::RefusedByPeer(Refusal::WrongSecret);
    assert!(matches!(asked, Err(PeerError::Handshake { reason, .. }) if reason == refusal));

    // Set right, then wrong again: that is news.
    a.stop().await;
    let a = start(a.id, on(&net, "a")).await;
    introduce(&[&a, &b]);
    b.sees(&a, PeerState::is_up).await;
    a.stop().await;
    let a = start(a.id, Setup { secret: "guess", ..on(&net, "a") }).await;
    introduce(&[&a, &b]);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(logged.with("peer connection refused").len(), 2, "{:?}", logged.with(""));
    a.stop().await;
    b.stop().await;
}

#[tokio::test(start_paused = true)]
async fn members_of_other_clusters_and_wrong_nodes_are_refused() {
    let (logged, _guard) = Logged::start();
    let net = MemNet::default();
    let [a, b, c] = fresh_ids();
    let a = start(a, Setup { cluster: Some(ClusterId(2)), ..on(&net, "a") }).await;
    let b = start(b, on(&net, "b")).await;
    introduce(&[&a, &b]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(logged.with("member of another cluster").len(), 2, "{:?}", logged.with(""));
    a.stop().await;

    // The address of b, but c is meant.
    let a = start(a.id, on(&net, "a")).await;
    a.hub.set_peers(BTreeMap::from([(c, "b".to_owned())]));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(logged.with("another node lives at this address").len(), 2, "{:?}", logged.with(""));
    a.stop().await;

    // One that b does not know.
    let z = start(fresh_ids::<1>()[0], on(&net, "z")).await;
    b.hub.set_peers(BTreeMap::from([(z.id, "z".to_owned())]));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(logged.with("not known as a member").len(), 2, "{:?}", logged.with(""));
    z.stop().await;
    b.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_has_another_data_directory_than_that_member_is_refused() {
    let (logged, _guard) = Logged::start();
    let net = MemNet::default();
    let [a, b] = fresh_ids();
    let (a, b) = (start(a, on(&net, "a")).await, start(b, on(&net, "b")).await);
    // Each data directory has its node's number in these tests, until somebody knows better.
    b.hub.set_instances(BTreeMap::from([(a.id, InstanceId(77))]));
    introduce(&[&a, &b]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(logged.with("has another data directory").len(), 2, "the dialer: {:?}", logged.with(""));
    assert_eq!(b.hub.states().borrow().get(&a.id), Some(&PeerState::Down));

    b.hub.set_instances(BTreeMap::from([(a.id, InstanceId(a.id.0))]));
    a.sees(&b, PeerState::is_up).await;
    a.stop().await;

    let a = start(a.id, on(&net, "a")).await;
    a.hub.set_instances(BTreeMap::from([(b.id, InstanceId(77))]));
    introduce(&[&a, &b]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(logged.with("has another data directory").len(), 3, "who is dialed: {:?}", logged.with(""));
    assert_eq!(a.hub.states().borrow().get(&b.id), Some(&PeerState::Down));
    a.stop().await;
    b.stop().await;
}

/// Sends `bytes`, then waits until the other side hangs up.
async fn say(addr: &str, bytes: &[u8], hang_up: bool) {
    let mut stream = TcpStream::connect(addr).await.expect("listens");
    // The other side may hang up before everything is written.
    let _ = stream.write_all(bytes).await;
    if hang_up {
        let _ = stream.shutdown().await;
    }
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("hangs up");
}

#[tokio::test]
async fn garbage_ends_its_own_connection_with_a_logged_reason() {
    let (logged, _guard) = Logged::start();
    let [a, b] = fresh_ids();
    let (a, b) = (start(a, Setup::default()).await, start(b, Setup::default()).await);
    introduce(&[&a, &b]);
    b.sees(&a, PeerState::is_up).await;
    let claim = |bytes: u32| [b"TRANDB".as_slice(), &VERSION.to_be_bytes(), &bytes.to_be_bytes()].concat();
    let cases = [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), false, "wrong first bytes"),
        (b"TRANDB\x00\x63".to_vec(), false, "peer protocol version 99"),
        (claim(u32::MAX), false, "claims 4294967295 bytes"),
        ([claim(100), vec![7; 20]].concat(), true, "closed during the handshake"),
        ([claim(3), vec![0xc1; 3]].concat(), false, "malformed"),
    ];
    for (bytes, hang_up, reason) in cases {
        say(&b.addr, &bytes, hang_up).await;
        say(&b.addr, &bytes, hang_up).await;
        let lines = logged.with(reason);
        assert_eq!(lines.len(), 1, "for {reason}: {:?}", logged.with(""));
        assert_eq!(a.call(&b, Request::Echo(vec![1])).await, Ok(Response::Bytes(vec![1])));
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test(start_paused = true)]
async fn slow_senders_hold_their_slot_for_a_while_only() {
    let (logged, _guard) = Logged::start();
    let net = MemNet::default();
    let [a, b] = fresh_ids();
    let b = start(b, on(&net, "b")).await;
    let mut slow = Vec::new();
    for _ in 0..1000 {
        let mut stream = net.dial("b").await.expect("listens");
        stream.write_all(b"TRAN").await.expect("is read");
        slow.push(stream);
    }
    let start_at = Instant::now();
    let mut byte = [0];
    assert_eq!(slow[0].read(&mut byte).await.expect("is closed, not broken"), 0);
    assert_eq!(start_at.elapsed().as_secs(), HANDSHAKE_MAX.as_secs());
    assert_eq!(logged.with("handshake not finished").len(), 1, "{:?}", logged.with(""));
    drop(slow);
    let a = start(a, on(&net, "a")).await;
    introduce(&[&a, &b]);
    b.sees(&a, PeerState::is_up).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_bulk_lane_that_breaks_the_rules_is_closed_and_replaced() {
    let (logged, _guard) = Logged::start();
    let net = MemNet::default();
    let [a, b] = fresh_ids();
    let (a, b) = (start(a, on(&net, "a")).await, start(b, on(&net, "b")).await);
    introduce(&[&a, &b]);
    b.sees(&a, PeerState::is_up).await;
    let large = pattern(1 << 20);
    assert_eq!(a.call(&b, Request::Echo(large.clone())).await, Ok(Response::Bytes(large.clone())));

    let link = b.hub.hub.peer(a.id).and_then(|peer| peer.link()).expect("is up");
    let frames: [(&[u8], &str); 4] = [
        (b"\xff\xff\xff\xff", "frame size too big"),
        (b"\x00\x00\x00\x01\x01", "without kind"),
        (b"\x00\x00\x00\x09\x63\0\0\0\0\0\0\0\x01", "unknown kind"),
        (b"\x00\x00\x00\x0e\x01\0\0\0\0\0\0\0\x01\x00\x01\0\0\xc1", "without a head"),
    ];
    for (frame, reason) in frames {
        let mut stream = net.dial("b").await.expect("listens");
        let hello = Hello::new(Purpose::Bulk { link: link.id }, link.them, Some(b.id), [3; 32]);
        dial(&mut stream, b"secret", &hello).await.expect("knows the secret");
        stream.write_all(frame).await.expect("is read");
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "{reason}: the lane is still open");
        assert_eq!(logged.with(reason).len(), 1, "{reason}: {:?}", logged.with(""));
        tokio::time::sleep(Duration::from_secs(1)).await;
        for (from, to) in [(&a, &b), (&b, &a)] {
            let echoed = from.call(to, Request::Echo(large.clone())).await;
            assert_eq!(echoed, Ok(Response::Bytes(large.clone())), "after {reason}");
        }
    }
    assert!(!link.closed.is_cancelled(), "the link itself lived on");
    a.stop().await;
    b.stop().await;
}

fn identity(node: u64) -> Identity {
    Identity {
        node: Some(NodeId(node)),
        cluster: None,
        instance: InstanceId(node),
        boot: node,
        lease_ms: 500,
        batch: 0,
    }
}

#[tokio::test]
async fn a_proof_is_worth_nothing_elsewhere() {
    // Records what a true dialer says to one acceptor, and says it to another one.
    let hello = Hello::new(Purpose::Ask, identity(1), None, [1; 32]);
    let (mut near, mut far) = duplex(4096);
    let dialer = async { dial(&mut near, b"secret", &hello).await };
    let acceptor = async {
        let greeting: Greeting = greet(&mut far).await?;
        greeting.accept(&mut far, b"secret", identity(2), [2; 32], |_| Ok(())).await
    };
    let (dialed, accepted) = tokio::join!(dialer, acceptor);
    assert_eq!((dialed, accepted), (Ok(identity(2)), Ok(hello.clone())));

    // The thief knows hello and proof of the first round, and relays the second acceptor's frames nowhere.
    let (mut near, mut far) = duplex(4096);
    let (mut stolen, mut victim) = duplex(4096);
    let victim = async { dial(&mut victim, b"secret", &hello).await };
    let first = async {
        let greeting = greet(&mut stolen).await?;
        greeting.accept(&mut stolen, b"other", identity(2), [2; 32], |_| Ok(())).await
    };
    let (victim, first) = tokio::join!(victim, first);
    assert_eq!(victim, Err(HandshakeError::RefusedByPeer(Refusal::WrongSecret)));
    assert_eq!(first, Err(HandshakeError::Refused(Refusal::WrongSecret)));

    // An acceptor that does not know the secret cannot pose as one that accepts.
    let impostor = async {
        let greeting = greet(&mut far).await?;
        greeting.accept(&mut far, b"", identity(2), [2; 32], |_| Ok(())).await
    };
    let dialer = async { dial(&mut near, b"secret", &hello).await };
    let (dialed, _) = tokio::join!(dialer, impostor);
    assert!(dialed.is_err());
}
