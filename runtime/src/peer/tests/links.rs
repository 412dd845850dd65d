//! Links: how they come, go, and come back.

use super::*;
use bytes::Bytes;
use tokio::time::Instant;

async fn memory_pair() -> (MemNet, TestNode, TestNode) {
    let net = MemNet::default();
    let [a, b] = fresh_ids();
    let (a, b) = (start(a, on(&net, "a")).await, start(b, on(&net, "b")).await);
    introduce(&[&a, &b]);
    a.sees(&b, PeerState::is_up).await;
    b.sees(&a, PeerState::is_up).await;
    (net, a, b)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_is_down_and_back_after_its_restart() {
    let [a, b, c] = fresh_ids();
    let nodes = [start(a, Setup::default()).await, start(b, Setup::default()).await];
    let third = start(c, Setup::default()).await;
    let [a, b] = &nodes;
    introduce(&[a, b, &third]);
    for (from, to) in [(a, b), (b, a), (a, &third), (&third, a), (b, &third), (&third, b)] {
        from.sees(to, PeerState::is_up).await;
    }
    // The middle one: it dials one of the others and is dialed by the other.
    for _ in 0..3 {
        let addr = b.addr.clone();
        b.stop().await;
        a.sees(b, |state| state == PeerState::Down).await;
        third.sees(b, |state| state == PeerState::Down).await;
        assert_eq!(a.call(b, Request::Echo(vec![1])).await, Err(RpcError::Unreachable));
        assert_eq!(a.call(&third, Request::Echo(vec![1])).await, Ok(Response::Bytes(vec![1])));

        let back = start(b.id, Setup { addr, ..Setup::default() }).await;
        introduce(&[a, &back, &third]);
        for other in [a, &third] {
            other.sees(&back, PeerState::is_up).await;
            back.sees(other, PeerState::is_up).await;
            let large = pattern(1 << 20);
            assert_eq!(back.call(other, Request::Echo(large.clone())).await, Ok(Response::Bytes(large)));
        }
        back.stop().await;
    }
    a.stop().await;
    third.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_frozen_peer_is_suspected_after_its_missed_heartbeats() {
    let (net, a, b) = memory_pair().await;
    // Idle links live on.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(a.hub.states().borrow()[&b.id].is_up());

    let frozen = Instant::now();
    net.freeze();
    let waiting = a.call(&b, Request::Hold);
    let large = a.call(&b, Request::Length(vec![0; 4 << 20]));
    let (waiting, large) = tokio::join!(waiting, large);
    assert_eq!(waiting, Err(RpcError::Lost), "its link was cut");
    assert_eq!(large, Err(RpcError::Unreachable), "it cannot have arrived whole");
    let took = frozen.elapsed();
    assert!((150..=200).contains(&took.as_millis()), "four beats of 50 ms after the last, took {took:?}");
    for (from, to) in [(&a, &b), (&b, &a)] {
        from.sees(to, |state| matches!(state, PeerState::Suspect { .. })).await;
    }

    let start = Instant::now();
    assert_eq!(a.call(&b, Request::Echo(vec![1])).await, Err(RpcError::Unreachable));
    assert_eq!(start.elapsed(), Duration::ZERO, "a suspected peer is not waited for");
    for (from, to) in [(&a, &b), (&b, &a)] {
        from.sees(to, |state| state == PeerState::Down).await;
    }

    net.thaw();
    for (from, to) in [(&a, &b), (&b, &a)] {
        from.sees(to, PeerState::is_up).await;
        assert_eq!(from.call(to, Request::Echo(vec![1])).await, Ok(Response::Bytes(vec![1])));
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_to_a_frozen_peer_does_not_pile_up() {
    let net = MemNet::default();
    let [a, b] = fresh_ids();
    let a = start(a, Setup { missed: 1000, calls: 100, ..on(&net, "a") }).await;
    let b = start(b, Setup { missed: 1000, ..on(&net, "b") }).await;
    introduce(&[&a, &b]);
    a.sees(&b, PeerState::is_up).await;
    net.freeze();
    let calls = (0..300).map(|_| a.call_within(&b, Duration::from_secs(1), Request::Echo(vec![0; 60_000])));
    let ended = futures_util::future::join_all(calls).await;
    let counted = |wanted| ended.iter().filter(|answer| **answer == Err(wanted)).count();
    assert_eq!((counted(RpcError::Timeout), counted(RpcError::Overloaded)), (100, 200));
    let stop = Instant::now();
    a.stop().await;
    assert!(
        stop.elapsed() < Duration::from_secs(1),
        "the kill switch frees a session that is stuck in a write"
    );
    b.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_redial_replaces_a_link_that_the_acceptor_still_holds() {
    let net = MemNet::default();
    let [a, b] = fresh_ids();
    let patient = |addr| Setup { missed: u32::MAX, ..on(&net, addr) };
    let b = start(b, patient("b")).await;
    for round in 0..5 {
        let a = start(a, patient("a")).await;
        introduce(&[&a, &b]);
        a.sees(&b, PeerState::is_up).await;
        assert_eq!(a.call(&b, Request::Echo(vec![1])).await, Ok(Response::Bytes(vec![1])), "round {round}");
        // Its streams freeze with it, so that the acceptor hears nothing of its end.
        net.freeze();
        a.stop().await;
        assert!(b.hub.states().borrow()[&a.id].is_up(), "the acceptor knows nothing yet");
        net.thaw();
    }
    b.stop().await;
}

#[tokio::test(start_paused = true)]
async fn gossip_is_heard_when_it_changes_and_again_on_a_new_link() {
    let (_, a, b) = memory_pair().await;
    a.hub.gossip().send_replace(Bytes::from_static(b"leads p1"));
    let mut heard = b.hub.heard();
    heard.wait_for(|heard| heard.get(&a.id).is_some_and(|said| said == "leads p1")).await.expect("runs");
    a.hub.gossip().send_replace(Bytes::from_static(b"leads p2"));
    heard.wait_for(|heard| heard.get(&a.id).is_some_and(|said| said == "leads p2")).await.expect("runs");

    // Leaves and comes back: what was heard is forgotten in between.
    b.hub.set_peers(BTreeMap::new());
    assert!(b.hub.heard().borrow().is_empty() && b.hub.states().borrow().is_empty());
    a.sees(&b, |state| !state.is_up()).await;
    introduce(&[&a, &b]);
    heard.wait_for(|heard| heard.get(&a.id).is_some_and(|said| said == "leads p2")).await.expect("runs");
    a.stop().await;
    b.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_gets_its_id_while_it_runs() {
    let net = MemNet::default();
    let [a, b] = fresh_ids();
    let a = start(a, on(&net, "a")).await;
    let setup = Setup { cluster: None, ..on(&net, "b") };
    let hub = PeerHub::start(options(None, listener(&net, "b").await, &setup)).await.expect("starts");
    let answer = hub.ask("a", Ask::Discover).await.expect("is answered");
    assert!(matches!(answer, Answer::Discovered { node: Some(node), .. } if node == a.id), "{answer:?}");
    assert!(a.hub.ask("b", Ask::Discover).await.is_ok(), "a node without an id answers too");

    let (worker, _) = Actor::spawn(None, Worker, ()).await.expect("starts");
    let b = TestNode { id: b, hub, addr: "b".into(), worker };
    introduce(&[&a, &b]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!a.hub.states().borrow()[&b.id].is_up(), "nobody is b yet");
    b.hub.identify(b.id).await.expect("has none yet");
    b.hub.identify(b.id).await.expect("has this one");
    assert!(b.hub.identify(a.id).await.is_err(), "has another one");
    a.sees(&b, PeerState::is_up).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(start_paused = true)]
async fn redials_back_off() {
    let net = MemNet::default();
    let [a, b] = fresh_ids();
    let a = start(a, on(&net, "a")).await;
    a.hub.set_peers(BTreeMap::from([(b, "nobody".to_owned())]));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let dialed = net.dialed.load(Ordering::Relaxed);
    assert!(
        (120..=250).contains(&dialed),
        "every 250 to 500 ms once backed off, not {dialed} times a minute"
    );
    a.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_counts_on_the_shortest_lease_that_anybody_promises() {
    let net = MemNet::default();
    let [a, b] = fresh_ids();
    let (short, long) = (Duration::from_millis(400), Duration::from_millis(1_500));
    let promises = |addr, lease: Duration| Setup { lease_ms: lease.as_millis() as u64, ..on(&net, addr) };
    let a = start(a, promises("a", long)).await;
    assert_eq!(a.hub.shortest_lease(), long, "nobody else is known");
    let before = start(b, promises("b", short)).await;
    introduce(&[&a, &before]);
    a.sees(&before, PeerState::is_up).await;
    before.sees(&a, PeerState::is_up).await;
    assert_eq!((a.hub.shortest_lease(), before.hub.shortest_lease()), (short, short));
    before.stop().await;
    a.sees(&before, |state| !state.is_up()).await;
    assert_eq!(a.hub.shortest_lease(), short, "it may be back as it was");

    let after = start(b, promises("b", long)).await;
    introduce(&[&a, &after]);
    a.sees(&after, PeerState::is_up).await;
    assert_eq!((a.hub.shortest_lease(), after.hub.shortest_lease()), (long, long));
    a.stop().await;
    after.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_links_to_an_older_copy_of_a_directory() {
    let net = MemNet::default();
    let [a, b] = fresh_ids();
    let log = |batch| {
        let durable = Durable::default();
        durable.reaches(batch);
        durable
    };
    let with = |addr, durable| Setup { durable, ..on(&net, addr) };
    for (stays, comes_back) in [(a, b), (b, a)] {
        let other = start(stays, with("stays", log(3))).await;
        let written = log(7);
        let before = start(comes_back, with("back", written.clone())).await;
        introduce(&[&other, &before]);
        other.sees(&before, PeerState::is_up).await;
        before.sees(&other, PeerState::is_up).await;
        written.reaches(10);
        tokio::time::sleep(Duration::from_secs(1)).await;
        before.stop().await;
        other.sees(&before, |state| !state.is_up()).await;

        let less = log(9);
        let older = start(comes_back, with("back", less.clone())).await;
        // What it writes from now on is something else.
        less.reaches(50);
        introduce(&[&other, &older]);
        let mut reverted = older.hub.reverted();
        let noticed = tokio::time::timeout(PATIENCE, reverted.wait_for(Option::is_some)).await;
        let noticed = *noticed.expect("hears of it").expect("the hub runs");
        assert_eq!(noticed, Some(Reverted { peer: stays, known: 10, has: 9 }));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!other.hub.states().borrow()[&comes_back].is_up(), "it has forgotten a batch");
        assert_eq!(*other.hub.reverted().borrow(), None, "who has all of its log is told nothing");
        older.stop().await;

        let same = start(comes_back, with("back", log(10))).await;
        introduce(&[&other, &same]);
        other.sees(&same, PeerState::is_up).await;
        assert_eq!(*same.hub.reverted().borrow(), None);
        same.stop().await;
        other.stop().await;
    }
}
