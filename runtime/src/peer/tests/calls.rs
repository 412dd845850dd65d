//! Calls between hubs.

use super::super::MESSAGE_BYTES_MAX;
use super::*;
use futures_util::future::join_all;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_both_ways_to_oneself_and_nowhere() {
    let (a, b) = pair().await;
    for (from, to) in [(&a, &b), (&b, &a), (&a, &a)] {
        let sent = pattern(100);
        assert_eq!(from.call(to, Request::Echo(sent.clone())).await, Ok(Response::Bytes(sent)));
        let unknown = from.hub.call::<Message, Response>(to.id, "nobody", PATIENCE, 0, |reply| {
            Message::Do(Request::Drop, reply)
        });
        assert_eq!(unknown.await, Err(RpcError::Unreachable));
        assert_eq!(from.call(to, Request::Drop).await, Err(RpcError::Lost));
        let late = from.call_within(to, Duration::from_millis(50), Request::Hold).await;
        assert_eq!(late, Err(RpcError::Timeout));
    }
    let nobody = a.hub.call::<Message, Response>(NodeId(u64::MAX), "worker", PATIENCE, 0, |reply| {
        Message::Do(Request::Drop, reply)
    });
    assert_eq!(nobody.await, Err(RpcError::Unreachable));
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_and_answers_arrive_whole() {
    let (a, b) = pair().await;
    let sizes = [(64 << 10) - 100, 64 << 10, (64 << 10) + 1, 4 << 20];
    for bytes in sizes {
        let sent = pattern(bytes);
        assert_eq!(a.call(&b, Request::Echo(sent.clone())).await, Ok(Response::Bytes(sent)));
        let length = Response::Number(bytes as u64);
        assert_eq!(b.call(&a, Request::Length(pattern(bytes))).await, Ok(length));
    }
    let many = join_all((0..16).map(|i| {
        let (from, to) = if i % 2 == 0 { (&a, &b) } else { (&b, &a) };
        from.call(to, Request::Echo(pattern((1 << 20) + i)))
    }));
    for (i, echoed) in many.await.into_iter().enumerate() {
        assert_eq!(echoed, Ok(Response::Bytes(pattern((1 << 20) + i))), "message {i}");
    }
    let too_large = a.call(&b, Request::Length(vec![0; MESSAGE_BYTES_MAX + 1])).await;
    assert_eq!(too_large, Err(RpcError::TooLarge));
    assert_eq!(a.call(&b, Request::Make(MESSAGE_BYTES_MAX + 1)).await, Err(RpcError::TooLarge));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn requests_of_one_caller_arrive_in_order() {
    let (a, b) = pair().await;
    let mut answers = Vec::new();
    for number in 1..=500 {
        answers.push(Box::pin(a.call(&b, Request::Order(number))));
        // Polled once, so that it is sent before the next.
        assert!(futures_util::poll!(answers.last_mut().expect("was just pushed")).is_pending());
    }
    for answer in answers {
        assert_eq!(answer.await, Ok(Response::Number(1)));
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_budget_refuses_at_once_and_empties_again() {
    let (net, [a, b]) = (MemNet::default(), fresh_ids());
    let a = start(a, Setup { calls: 4, bytes: 1 << 20, ..on(&net, "a") }).await;
    let b = start(b, on(&net, "b")).await;
    introduce(&[&a, &b]);
    a.sees(&b, PeerState::is_up).await;

    let held = join_all((0..4).map(|_| a.call_within(&b, Duration::from_secs(2), Request::Hold)));
    let refused = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let start = Instant::now();
        let answer = a.call(&b, Request::Echo(vec![1])).await;
        assert_eq!(start.elapsed(), Duration::ZERO, "it waited");
        answer
    };
    let (held, refused) = tokio::join!(held, refused);
    assert_eq!(refused, Err(RpcError::Overloaded));
    assert!(held.iter().all(|answer| *answer == Err(RpcError::Timeout)));

    let (one, two) = tokio::join!(
        a.call(&b, Request::Length(vec![0; 700 << 10])),
        a.call(&b, Request::Length(vec![0; 700 << 10])),
    );
    assert_eq!((one, two), (Ok(Response::Number(700 << 10)), Err(RpcError::Overloaded)));
    let above_all = a.call(&b, Request::Length(vec![0; 2 << 20])).await;
    assert_eq!(above_all, Ok(Response::Number(2 << 20)), "alone it may exceed the budget");
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_message_given_up_half_way_frees_its_place() {
    let (a, b) = pair().await;
    assert_eq!(a.call(&b, Request::Length(vec![0; 1 << 20])).await, Ok(Response::Number(1 << 20)));
    let body = vec![0; MESSAGE_BYTES_MAX - 100];
    for deadline_ms in 0..20 {
        let deadline = Duration::from_millis(deadline_ms);
        let _ = a.call_within(&b, deadline, Request::Length(body.clone())).await;
    }
    // Left-overs of a few of those would fill the place there is, for 10 s.
    let soon = Duration::from_secs(5);
    let answer = a.call_within(&b, soon, Request::Length(body.clone())).await;
    assert_eq!(answer, Ok(Response::Number(body.len() as u64)));
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_that_is_about_to_appear_is_waited_for() {
    let (a, b) = pair().await;
    b.hub.unregister("worker");
    let appears = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        b.hub.register("worker", b.worker.get_cell());
    };
    let (answer, ()) = tokio::join!(a.call(&b, Request::Echo(vec![5])), appears);
    assert_eq!(answer, Ok(Response::Bytes(vec![5])));
    // One that has stopped but is still registered is the same case.
    b.worker.stop_and_wait(None, None).await.expect("stops");
    assert_eq!(a.call(&b, Request::Echo(vec![5])).await, Err(RpcError::Unreachable));
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_other_side_cannot_read_is_answered_as_such() {
    #[derive(Debug)]
    enum Newer {
        Do(String, Reply<Response>),
        Undo(u8, Reply<Response>),
    }
    wire_message! { Newer { call Do(String); call Undo(u8); } }
    let (a, b) = pair().await;
    let call = |make: fn(Reply<Response>) -> Newer| a.hub.call(b.id, "worker", PATIENCE, 0, make);
    assert_eq!(call(|reply| Newer::Do("what?".into(), reply)).await, Err(RpcError::Decode));
    assert_eq!(call(|reply| Newer::Undo(1, reply)).await, Err(RpcError::Decode));
    assert_eq!(a.call(&b, Request::Echo(vec![5])).await, Ok(Response::Bytes(vec![5])));
    a.stop().await;
    b.stop().await;
}

/// Not a test of anything but speed; run by name for the figures in the module's documentation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn small_calls_beside_large_ones() {
    let (a, b) = pair().await;
    let (a, b) = (Arc::new(a), Arc::new(b));
    for large in [0, 8] {
        let stop = tokio_util::sync::CancellationToken::new();
        let moved = Arc::new(AtomicU64::new(0));
        let mut loads = Vec::new();
        for i in 0..large {
            let (stop, moved) = (stop.clone(), moved.clone());
            let (from, to) = if i % 2 == 0 { (a.clone(), b.clone()) } else { (b.clone(), a.clone()) };
            loads.push(tokio::spawn(async move {
                while !stop.is_cancelled() {
                    from.call(&to, Request::Length(vec![1; 4 << 20])).await.expect("arrives");
                    moved.fetch_add(4, Ordering::Relaxed);
                }
            }));
        }
        let start = Instant::now();
        let mut took = Vec::new();
        while start.elapsed() < Duration::from_secs(5) {
            let sent = Instant::now();
            a.call(&b, Request::Echo(vec![1; 100])).await.expect("arrives");
            took.push(sent.elapsed());
        }
        stop.cancel();
        join_all(loads).await;
        took.sort();
        let at = |share: usize| took[(took.len() - 1) * share / 1000];
        println!(
            "{large} large: p50 {:?} p99 {:?} p99.9 {:?}, {} calls, {} MiB/s",
            at(500),
            at(990),
            at(999),
            took.len(),
            moved.load(Ordering::Relaxed) / 5
        );
    }
    let start = Instant::now();
    let workers = (0..256).map(|_| async {
        let mut done = 0_u64;
        while start.elapsed() < Duration::from_secs(5) {
            a.call(&b, Request::Echo(vec![1; 100])).await.expect("arrives");
            done += 1;
        }
        done
    });
    let done: u64 = join_all(workers).await.into_iter().sum();
    println!("256 in flight: {} calls/s", done / 5);
    a.stop().await;
    b.stop().await;
}
