//! Transactions that are run until they come through.

use super::*;

fn number(value: Option<trandb_client::Versioned>) -> u64 {
    value.map_or(0, |found| std::str::from_utf8(&found.value).expect("text").parse().expect("a number"))
}

#[tokio::test(start_paused = true)]
async fn a_counter_is_exact_though_commit_replies_are_lost() {
    for (share, arrives) in [(10, true), (10, false), (3, true), (3, false)] {
        let (net, coordinator) = (Net::default(), Coordinator::new(1));
        let lost = coordinator.clone();
        net.set(
            "a",
            1,
            node(&coordinator, move |request, before| match request {
                TxnRequest::Commit { .. } if before % share == share - 1 => match arrives {
                    true => done_and_lost(&lost, request),
                    false => Some(Reaction::Close),
                },
                _ => None,
            }),
        );
        let client = builder(&net).timeout(Duration::from_secs(60)).connect("a").await.expect("lets it in");
        let increments = (0..8).map(|_| {
            let client = client.clone();
            async move {
                for _ in 0..25 {
                    let counted = client.transact(|txn| async move {
                        let next = number(txn.get("counter").await?) + 1;
                        txn.put("counter", next.to_string()).await?;
                        Ok(next)
                    });
                    counted.await.expect("within a minute");
                }
            }
        });
        futures_util::future::join_all(increments).await;
        assert_eq!(coordinator.value("counter").expect("counted"), "200", "one in {share}, {arrives}");
        settle().await;
        assert_eq!(coordinator.open(), 0);
        assert!(net.asked(is_outcome).len() >= 200 / share, "replies were lost");
    }
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_loses_is_run_again_until_there_is_no_time() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    net.set(
        "a",
        1,
        node(&coordinator, |request, before| match request {
            TxnRequest::Commit { .. } if before < 5 => Some(Reaction::Answer(Err(Error::conflict("lost")))),
            _ => None,
        }),
    );
    let client = builder(&net).connect("a").await.expect("lets it in");
    let runs = AtomicUsize::new(0);
    let run = || {
        client.transact(|txn| {
            let run = runs.fetch_add(1, Ordering::Relaxed);
            async move {
                txn.put("k", "v").await?;
                Ok(run)
            }
        })
    };
    assert_eq!(run().await, Ok(5), "what the run that came through has returned");

    net.set(
        "a",
        1,
        node(&coordinator, |request, _| {
            matches!(request, TxnRequest::Commit { .. })
                .then(|| Reaction::Answer(Err(Error::conflict("lost"))))
        }),
    );
    let start = Instant::now();
    assert_eq!(run().await, Err(Error::conflict("lost")));
    assert!((4000..5100).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    let tries = net.asked(is_commit).len();
    assert!((15..60).contains(&tries), "{tries} tries with growing pauses");
}

#[tokio::test(start_paused = true)]
async fn the_budget_of_conflicts_bounds_the_rate_of_runs() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    net.set(
        "a",
        1,
        node(&coordinator, |request, _| {
            matches!(request, TxnRequest::Commit { .. })
                .then(|| Reaction::Answer(Err(Error::conflict("lost"))))
        }),
    );
    let budget = trandb_client::RetryBudget { burst: 3, per_second: 2.0, per_success: 0.0 };
    let client = builder(&net).conflict_budget(budget).connect("a").await.expect("lets it in");
    let error = client.transact(|_| async { Ok(()) }).await.expect_err("always lost");
    assert_eq!(error.code, ErrorCode::Conflict);
    let tries = net.asked(is_commit).len();
    assert!((10..=14).contains(&tries), "{tries} tries: three at once, two per second for five seconds");
}

#[tokio::test(start_paused = true)]
async fn a_run_decides_by_what_it_returns() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    net.set("a", 1, straight(&coordinator));
    let client = builder(&net).connect("a").await.expect("lets it in");
    let poor = Error::invalid("not enough money");
    let result: Result<(), _> = client
        .transact(|txn| {
            let poor = poor.clone();
            async move {
                txn.put("k", "v").await?;
                Err(poor)
            }
        })
        .await;
    assert_eq!(result, Err(poor));
    settle().await;
    assert_eq!((net.asked(is_commit).len(), net.asked(is_abort).len(), coordinator.open()), (0, 1, 0));

    let result = client
        .transact(|txn| async move {
            txn.put("k", "v").await?;
            txn.abort().await?;
            Ok(7)
        })
        .await;
    assert_eq!((result, coordinator.value("k")), (Ok(7), None));
    let options = TxnOptions { read_only: true, ..TxnOptions::default() };
    let read = client.transact_with(options, async |txn| txn.get("k").await);
    assert_eq!(read.await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_transaction_whose_coordinator_is_gone_is_run_again_in_time() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    net.set(
        "a",
        1,
        node(&coordinator, |request, before| match request {
            TxnRequest::Op { .. } if before < 1000 => {
                Some(Reaction::Answer(Err(Error::unavailable("n7 is down"))))
            }
            _ => None,
        }),
    );
    let client = builder(&net).connect("a").await.expect("lets it in");
    let start = Instant::now();
    let change = client.clone();
    let (done, ()) = tokio::join!(client.transact(|txn| async move { txn.put("k", "v").await }), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        net.set("a", 1, straight(&coordinator));
        drop(change);
    });
    done.expect("the next run");
    assert!(start.elapsed() < Duration::from_millis(2500), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn opening_a_transaction_is_tried_for_all_of_the_time() {
    let (net, coordinator) = (Net::default(), Coordinator::new(1));
    let start = Instant::now();
    net.set(
        "a",
        1,
        node(&coordinator, move |request, _| {
            let early = start.elapsed() < Duration::from_secs(4);
            (early && matches!(request, TxnRequest::Begin { .. }))
                .then(|| Reaction::Answer(Err(Error::unavailable("no timestamps"))))
        }),
    );
    let client = builder(&net).connect("a").await.expect("lets it in");
    client.transact(|txn| async move { txn.put("k", "v").await }).await.expect("in the end");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_requests_each_run_counts_once_or_not_at_all() {
    for seed in 0..150 {
        let (net, coordinator) = (Net::default(), Coordinator::new(1));
        let (chance, lost) = (chances(seed), coordinator.clone());
        net.set(
            "a",
            1,
            node(&coordinator, move |request, _| match chance() % 20 {
                0 => done_and_lost(&lost, request),
                1 => Some(Reaction::Close),
                2 => Some(Reaction::Answer(Err(Error::unavailable("not now")))),
                3 => Some(Reaction::Answer(Err(Error::unknown("no answer from the leader")))),
                4 => {
                    // Done, and told that nobody knows.
                    let _ = lost.answer(&Request::Txn(request.clone()));
                    Some(Reaction::Answer(Err(Error::unknown("no answer from the leader"))))
                }
                _ => None,
            }),
        );
        let builder = builder(&net).seed(seed).timeout(Duration::from_secs(20));
        let Ok(client) = builder.build("a") else { panic!("an address") };
        let counters = (0..3).map(|_| {
            let client = client.clone();
            async move {
                let (mut done, mut unknown) = (0, 0);
                for _ in 0..8 {
                    let counted = client.transact(|txn| async move {
                        let next = number(txn.get("counter").await?) + 1;
                        txn.put("counter", next.to_string()).await
                    });
                    match counted.await {
                        Ok(()) => done += 1,
                        Err(error) if error.code == ErrorCode::Unknown => unknown += 1,
                        Err(_) => {}
                    }
                }
                (done, unknown)
            }
        });
        let told = futures_util::future::join_all(counters).await;
        let (done, unknown) = told.iter().fold((0, 0), |sum, told| (sum.0 + told.0, sum.1 + told.1));
        let counted = coordinator
            .value("counter")
            .map_or(0, |value| std::str::from_utf8(&value).expect("text").parse::<u64>().expect("a number"));
        assert!(
            (done..=done + unknown).contains(&counted),
            "seed {seed}: {counted}, told {done} and {unknown}"
        );
        assert!(done >= 20, "seed {seed}: {done} of 24 came through");
    }
}

/// A small generator (SplitMix64) that scripts can share.
fn chances(seed: u64) -> impl Fn() -> u64 + Send + Sync + 'static {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    let state = std::sync::atomic::AtomicU64::new(seed);
    move || {
        let mut z = state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
