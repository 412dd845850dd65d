//! The client against nodes that fail in every way a network knows.

mod coordinator;
mod fake;
mod txn;

use fake::{Net, Reaction, echo, garbage, script, well};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use trandb_client::{
    Builder, Client, Condition, Epoch, Error, ErrorCode, NodeId, PartitionId, Request, Response, ScanRequest,
    Timestamp, Token, Topology,
};

fn builder(net: &Net) -> Builder {
    Client::builder().dialer(net.clone()).seed(1).timeout(Duration::from_secs(5))
}

fn is_data(request: &Request) -> bool {
    !matches!(request, Request::Topology | Request::Ping)
}

/// A script that does `first` to the first request other than for the map, and is well afterwards.
fn once(first: impl Fn() -> Reaction + Send + Sync + 'static) -> fake::Script {
    let count = AtomicUsize::new(0);
    script(move |request| match is_data(request) && count.fetch_add(1, Ordering::Relaxed) == 0 {
        true => first(),
        false => Reaction::Answer(Ok(echo(request))),
    })
}

#[tokio::test(start_paused = true)]
async fn nobody_there_is_unavailable() {
    let error = builder(&Net::default()).connect("a,b").await.err().expect("nobody listens");
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert!(error.message.contains("nothing listens"), "{error}");
    assert_eq!(Client::connect("").await.err().expect("no address").code, ErrorCode::Invalid);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_refuses_is_passed_over() {
    let net = Net::default();
    net.set("a", 1, Arc::new(|_| Reaction::Refuse(Error::overloaded("10000 connections are open"))));
    let error = builder(&net).connect("a").await.err().expect("refused");
    assert_eq!(error.message, "a refused the connection: overloaded: 10000 connections are open");
    net.set("b", 2, well());
    let client = builder(&net).connect("a,b").await.expect("the other one lets it in");
    for _ in 0..10 {
        client.put("k", "v").await.expect("done by the other");
    }
    assert_eq!(net.asked(is_data), [2; 10]);
}

#[tokio::test(start_paused = true)]
async fn a_denied_client_is_told_at_once() {
    let net = Net::default();
    net.set("a", 1, Arc::new(|_| Reaction::Refuse(Error::denied("who are you?"))));
    let client = builder(&net).build("a").expect("an address");
    let start = Instant::now();
    assert_eq!(client.get("k").await.expect_err("denied").code, ErrorCode::Denied);
    assert!(start.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_write_cut_off_after_sending_is_unknown_and_not_repeated() {
    let net = Net::default();
    net.set("a", 1, once(|| Reaction::Close));
    let client = builder(&net).connect("a").await.expect("lets it in");
    let error = client.put("k", "v").await.expect_err("cut off");
    assert_eq!(error.code, ErrorCode::Unknown);
    assert_eq!(net.asked(is_data).len(), 1);
    client.put("k", "v").await.expect("a new connection");
}

#[tokio::test(start_paused = true)]
async fn a_read_cut_off_after_sending_is_repeated() {
    let net = Net::default();
    net.set("a", 1, once(|| Reaction::Close));
    let client = builder(&net).connect("a").await.expect("lets it in");
    assert_eq!(client.get("k").await.expect("asked again").expect("echoed").value, "k");
    assert_eq!(net.asked(is_data).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn garbage_and_giant_frames_end_the_connection_only() {
    for bytes in [garbage(), vec![0xff, 0xff, 0xff, 0xff, 1, 2, 3], vec![0, 0, 0, 0]] {
        let net = Net::default();
        let raw = bytes.clone();
        net.set("a", 1, once(move || Reaction::Raw(raw.clone())));
        let client = builder(&net).connect("a").await.expect("lets it in");
        assert_eq!(client.put("k", "v").await.expect_err("garbled").code, ErrorCode::Unknown);
        client.put("k", "v").await.expect("a new connection");

        net.set("a", 1, Arc::new(move |_| Reaction::Raw(bytes.clone())));
        let error = builder(&net).connect("a").await.err().expect("garbled welcome");
        assert_eq!(error.code, ErrorCode::Unavailable);
        assert!(error.message.contains("does not speak the protocol"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_welcome_ends_in_time() {
    let net = Net::default();
    net.set("a", 1, Arc::new(|_| Reaction::Silence));
    let start = Instant::now();
    let error = builder(&net).connect("a").await.err().expect("no welcome");
    assert_eq!(error.message, "connection to a failed: no welcome within 2000 ms");
    assert_eq!(start.elapsed().as_millis(), 2000);
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_costs_a_write_its_deadline_and_a_read_one_attempt() {
    let net = Net::default();
    net.set(
        "a",
        1,
        script(|request| match is_data(request) {
            true => Reaction::Silence,
            false => Reaction::Answer(Ok(echo(request))),
        }),
    );
    let client = builder(&net).leader_hints(false).connect("a,b").await.expect("lets it in");
    let start = Instant::now();
    let error = client.with_timeout(Duration::from_secs(1)).put("k", "v").await.expect_err("silence");
    assert_eq!((error.code, start.elapsed().as_millis()), (ErrorCode::Unknown, 1000));

    // One read waits in vain, moves on, and finds the other node; the next ones go there directly.
    net.set("b", 2, well());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let start = Instant::now();
    let both = [client.get("x").await, client.get("y").await];
    assert!(both.iter().all(Result::is_ok), "{both:?}");
    assert!(start.elapsed() < Duration::from_millis(2500), "{:?}", start.elapsed());
    let start = Instant::now();
    for _ in 0..20 {
        client.get("k").await.expect("the other node");
    }
    assert!(start.elapsed() < Duration::from_millis(10), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn unavailable_is_retried_until_it_is_not() {
    let net = Net::default();
    let start = Instant::now();
    net.set(
        "a",
        1,
        script(move |request| match is_data(request) && start.elapsed().as_millis() < 800 {
            true => Reaction::Answer(Err(Error::unavailable("no leader"))),
            false => Reaction::Answer(Ok(echo(request))),
        }),
    );
    let client = builder(&net).connect("a").await.expect("lets it in");
    client.put("k", "v").await.expect("the leader is there at last");
    let waited_ms = start.elapsed().as_millis();
    assert!((800..1200).contains(&waited_ms), "{waited_ms} ms");

    let error = client.with_timeout(Duration::from_millis(300));
    net.set("a", 1, script(|_| Reaction::Answer(Err(Error::unavailable("no leader")))));
    let error = error.put("k", "v").await.expect_err("in vain");
    assert_eq!(error, Error::unavailable("no leader"));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_refused_does_not_end_as_unknown_for_want_of_time() {
    for seed in 1..20 {
        let net = Net::default();
        let start = Instant::now();
        // Near the deadline nothing comes back in time.
        net.set(
            "a",
            1,
            script(move |request| match is_data(request) && start.elapsed().as_millis() < 260 {
                true => Reaction::Answer(Err(Error::unavailable("no leader"))),
                false => Reaction::Silence,
            }),
        );
        let client =
            builder(&net).seed(seed).timeout(Duration::from_millis(300)).build("a").expect("an address");
        let error = client.put("k", "v").await.expect_err("in vain");
        assert_eq!(error, Error::unavailable("no leader"), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn errors_that_retries_cannot_mend_are_returned_at_once() {
    for code in [ErrorCode::Invalid, ErrorCode::ConditionFailed, ErrorCode::Unknown, ErrorCode::Internal] {
        let net = Net::default();
        net.set("a", 1, once(move || Reaction::Answer(Err(Error { code, ..Error::internal("") }))));
        let client = builder(&net).connect("a").await.expect("lets it in");
        assert_eq!(client.put("k", "v").await.expect_err("as answered").code, code);
        assert_eq!(net.asked(is_data).len(), 1, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn bad_keys_and_values_are_refused_before_they_are_sent() {
    let net = Net::default();
    net.set("a", 1, well());
    let client = builder(&net).connect("a").await.expect("lets it in");
    assert_eq!(client.get("").await.expect_err("empty").code, ErrorCode::Invalid);
    assert_eq!(client.get(vec![b'k'; 1025]).await.expect_err("long").code, ErrorCode::Invalid);
    assert_eq!(client.get([0xff]).await.expect_err("not UTF-8").code, ErrorCode::Invalid);
    let value = vec![0; (4 << 20) + 1];
    assert_eq!(client.put("k", value).await.expect_err("large").code, ErrorCode::TooLarge);
    assert!(net.asked(is_data).is_empty());
    client.put("k", vec![0; 4 << 20]).await.expect("just fits");
    client.put(vec![b'k'; 1024], "v").await.expect("just fits");
}

#[tokio::test(start_paused = true)]
async fn requests_share_a_connection_and_answers_find_their_callers() {
    let net = Net::default();
    let count = AtomicUsize::new(0);
    net.set(
        "a",
        1,
        script(move |request| match request {
            Request::Get { .. } if count.fetch_add(1, Ordering::Relaxed) < 49 => Reaction::Hold,
            Request::Get { .. } => Reaction::Release,
            _ => Reaction::Answer(Ok(echo(request))),
        }),
    );
    let client = builder(&net).connections_per_node(1).connect("a").await.expect("lets it in");
    let gets = (0..50).map(|i| {
        let client = client.clone();
        async move { (i, client.get(format!("k{i}")).await) }
    });
    for (i, value) in futures_util::future::join_all(gets).await {
        assert_eq!(value.expect("released").expect("echoed").value, format!("k{i}"));
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_requests_are_in_flight_than_the_node_takes() {
    let net = Net::with_in_flight_max(3);
    net.set(
        "a",
        1,
        script(|request| match request {
            Request::Get { .. } => Reaction::Silence,
            _ => Reaction::Answer(Ok(echo(request))),
        }),
    );
    let client = builder(&net).connections_per_node(1).connect("a").await.expect("lets it in");
    let short = client.with_timeout(Duration::from_millis(500));
    let gets = (0..10).map(|i| {
        let short = short.clone();
        async move { short.get(format!("k{i}")).await }
    });
    for result in futures_util::future::join_all(gets).await {
        assert!(result.expect_err("silence").is_retryable());
    }
    assert_eq!(net.asked(is_data).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_stopping_answers_what_it_has_and_gets_nothing_more() {
    let net = Net::default();
    let stopping = AtomicBool::new(false);
    net.set(
        "a",
        1,
        Arc::new(move |request| match request {
            None if stopping.load(Ordering::Relaxed) => Reaction::Refuse(Error::unavailable("stopping")),
            Some(Request::Put { key, .. }) if key == "held" => Reaction::Hold,
            Some(Request::Put { .. }) => {
                stopping.store(true, Ordering::Relaxed);
                Reaction::Refuse(Error::unavailable("stopping"))
            }
            request => Reaction::Answer(Ok(request.map_or(Response::Pong, echo))),
        }),
    );
    let client = builder(&net).connect("a,b").await.expect("in");
    net.set("b", 2, well());
    let start = Instant::now();
    let (held, last, next) = tokio::join!(client.put("held", "v"), client.put("last", "v"), async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let written = client.put("next", "v").await;
        assert!(start.elapsed() < Duration::from_millis(40), "the other node answered, at once");
        written
    });
    held.expect("answered before the end");
    last.expect("answered before the end");
    next.expect("by the other node");
}

fn map(leader: u64) -> Response {
    Response::Topology(Topology {
        epoch: Epoch(1),
        nodes: vec![(NodeId(1), "a".to_owned()), (NodeId(2), "b".to_owned())],
        partitions: vec![(Token(0), PartitionId(1), Some(NodeId(leader)))],
        keyspaces: vec![],
    })
}

#[tokio::test(start_paused = true)]
async fn requests_go_to_the_leader_and_a_detour_makes_the_client_look_again() {
    let net = Net::default();
    let leader = Arc::new(AtomicUsize::new(2));
    for (addr, id) in [("a", 1), ("b", 2)] {
        let leader = leader.clone();
        net.set(
            addr,
            id,
            script(move |request| {
                let leads = leader.load(Ordering::Relaxed) as u64;
                match request {
                    Request::Topology => Reaction::Answer(Ok(map(leads))),
                    _ if leads == id => Reaction::Answer(Ok(echo(request))),
                    _ => Reaction::Forwarded(echo(request)),
                }
            }),
        );
    }
    let client = builder(&net).connect("a").await.expect("lets it in");
    for _ in 0..5 {
        client.put("k", "v").await.expect("done");
    }
    assert_eq!(net.asked(is_data), [2; 5], "node 2 was learnt of and leads");
    leader.store(1, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..5 {
        client.put("k", "v").await.expect("done");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(net.asked(is_data)[5..], [2, 1, 1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_is_hidden_from_callers_and_used_again_when_back() {
    let net = Net::default();
    let answers = || {
        script(|request| match request {
            Request::Topology => Reaction::Answer(Ok(map(2))),
            _ => Reaction::Answer(Ok(echo(request))),
        })
    };
    net.set("a", 1, answers());
    net.set("b", 2, answers());
    let client = builder(&net).connect("a").await.expect("lets it in");
    client.put("k", "v").await.expect("done");
    net.stop("b");
    // The connection ends when its node next looks at it: that write is unknown, no other fails.
    assert_eq!(client.put("k", "v").await.expect_err("cut off").code, ErrorCode::Unknown);
    for _ in 0..50 {
        client.put("k", "v").await.expect("the other node forwards");
    }
    assert!(net.asked(is_data)[1..].iter().all(|node| *node == 1));
    net.set("b", 2, answers());
    let mut back = false;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.put("k", "v").await.expect("done");
        back |= *net.asked(is_data).last().expect("asked") == 2;
    }
    assert!(back, "the leader is used again");
}

#[tokio::test(start_paused = true)]
async fn only_the_first_requests_wait_for_a_leader_that_is_cut_off() {
    let net = Net::default();
    net.cut_off("b");
    net.set(
        "a",
        1,
        script(|request| match request {
            Request::Topology => Reaction::Answer(Ok(map(2))),
            _ => Reaction::Answer(Ok(echo(request))),
        }),
    );
    let client = builder(&net).connect("a").await.expect("lets it in");
    let start = Instant::now();
    let (first, ()) = tokio::join!(client.put("k", "v"), async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        for _ in 0..10 {
            client.put("k", "v").await.expect("by way of the other node");
        }
        assert!(start.elapsed() < Duration::from_millis(450), "{:?}", start.elapsed());
    });
    first.expect("never sent to the one, so sent to the other");
    assert!(start.elapsed() < Duration::from_millis(2100), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn scans_follow_their_cursor_and_conditions_are_sent() {
    let net = Net::default();
    net.set(
        "a",
        1,
        script(|request| match request {
            Request::Scan(scan) => {
                let from = scan.cursor.as_ref().map_or(0, |cursor| cursor[0]);
                let entry = |n: u8| trandb_client::Entry {
                    key: vec![b'0' + n].into(),
                    value: "v".into(),
                    version: Timestamp(1),
                };
                Reaction::Answer(Ok(Response::Page(trandb_client::Page {
                    entries: vec![entry(from), entry(from + 1)],
                    cursor: (from < 4).then(|| vec![from + 2].into()),
                    at: Timestamp(9),
                })))
            }
            Request::Delete { condition: Condition::Version(Timestamp(5)), keyspace: Some(name), .. }
                if name == "other" =>
            {
                Reaction::Answer(Ok(echo(request)))
            }
            Request::Delete { .. } => Reaction::Answer(Err(Error::condition_failed("the version is 5"))),
            _ => Reaction::Answer(Ok(echo(request))),
        }),
    );
    let client = builder(&net).connect("a").await.expect("lets it in");
    let (entries, more) = client.pages(ScanRequest::default()).collect(100).await.expect("pages");
    let keys: Vec<_> = entries.iter().map(|entry| entry.key.clone()).collect();
    assert_eq!(
        (keys, more),
        (vec!["0".into(), "1".into(), "2".into(), "3".into(), "4".into(), "5".into()], false)
    );
    let (entries, more) = client.pages(ScanRequest::default()).collect(3).await.expect("pages");
    assert_eq!((entries.len(), more), (3, true));
    let (entries, more) = client.pages(ScanRequest::default()).collect(6).await.expect("pages");
    assert_eq!((entries.len(), more), (6, false));

    let other = client.with_keyspace("other");
    other.delete_if("k", Condition::Version(Timestamp(5))).await.expect("holds");
    let error = other.delete_if("k", Condition::Version(Timestamp(6))).await.expect_err("does not hold");
    assert_eq!(error.code, ErrorCode::ConditionFailed);
}

#[test]
fn the_blocking_client_does_without_a_runtime_around_it() {
    let net = Net::default();
    net.set("a", 1, well());
    let client = trandb_client::blocking::Client::connect_with(builder(&net), "a").expect("lets it in");
    client.put("k", "v").expect("done");
    assert_eq!(client.get("k").expect("done").expect("echoed").value, "k");
    assert_eq!(client.get("").expect_err("empty").code, ErrorCode::Invalid);
}

#[test]
fn the_blocking_client_notices_a_farewell_between_calls() {
    let net = Net::default();
    net.set(
        "a",
        1,
        script(|request| match is_data(request) {
            true => Reaction::Farewell(Ok(echo(request))),
            false => Reaction::Answer(Ok(echo(request))),
        }),
    );
    // Not in the client's own runtime, which stands still between calls.
    let elsewhere = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let (addr, ends) = net.listen("a", &elsewhere);
    let client = trandb_client::blocking::Client::connect(addr).expect("lets it in");
    for _ in 0..5 {
        client.put("k", "v").expect("not sent on the connection that has ended");
        net.leave();
        ends.recv().expect("the connection has ended");
    }
}
