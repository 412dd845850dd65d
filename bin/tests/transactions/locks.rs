//! Key locks: first come first served, with a deadline, given back by the dead, and deadlocks that end.

use crate::harness::Cluster;
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};
use trandb_client::ErrorCode;

#[test]
fn who_waits_for_a_lock_goes_on_with_what_was_committed() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    cluster.nodes[0].client().put("seat", "free").expect("is written");
    let first = cluster.nodes[0].client().begin().expect("begins");
    assert_eq!(first.get_for_update("seat").expect("is read").expect("is there").value, "free");
    let order = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for at in 1..4 {
            let (cluster, order) = (&cluster, &order);
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(300 * at));
                let txn = cluster.nodes[at as usize % 3].client().begin().expect("begins");
                let found = txn.get_for_update("seat").expect("its turn comes").expect("is there");
                order.lock().expect("nobody panics").push(String::from_utf8_lossy(&found.value).into_owned());
                txn.put("seat", format!("taken by {at}")).expect("is buffered");
                txn.commit().expect("it has waited, so nobody was in between");
            });
        }
        std::thread::sleep(Duration::from_millis(1500));
        assert!(order.lock().expect("nobody panics").is_empty(), "all wait");
        first.put("seat", "taken by 0").expect("is buffered");
        first.commit().expect("it holds the lock");
    });
    assert_eq!(*order.lock().expect("nobody panics"), ["taken by 0", "taken by 1", "taken by 2"]);
}

#[test]
fn a_wait_ends_with_its_deadline_and_over_http_after_a_second() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    // A leader that moves takes no locks along.
    cluster.wait_spread();
    let holder = cluster.nodes[0].client().begin().expect("begins");
    holder.lock("busy").expect("is free");
    holder.lock("busy").expect("it holds it already");
    let mut client = cluster.nodes[1].client();
    client.set_timeout(Duration::from_millis(600));
    let waiter = client.begin().expect("begins");
    let error = waiter.lock("busy").expect_err("is held");
    assert_eq!(error.code, ErrorCode::Unavailable, "{error}");

    let begun = cluster.nodes[2].http("POST", "/txn", &[], b"");
    let location = begun.header("location").to_owned();
    let began = Instant::now();
    let answer = cluster.nodes[1].http_once("POST", &format!("{location}/keys/busy/lock"), &[], b"");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains("locked by transaction"), "{}", answer.text());
    let waited = began.elapsed();
    assert!(waited > Duration::from_millis(700) && waited < Duration::from_secs(5), "{waited:?}");
}

#[test]
fn the_locks_of_a_dead_coordinator_are_free_after_its_lease() {
    let mut cluster = Cluster::start(3, &["--partitions", "4"]);
    let begun = cluster.nodes[2].http("POST", "/txn", &[], b"");
    let location = begun.header("location").to_owned();
    let locked = cluster.nodes[0].http("POST", &format!("{location}/keys/grave/lock"), &[], b"");
    assert!(locked.status < 300, "{}", locked.text());
    cluster.nodes[2].kill9();
    let mut client = cluster.nodes[0].client();
    client.set_timeout(Duration::from_secs(20));
    let txn = client.begin().expect("begins");
    txn.lock("grave").expect("the dead hold nothing for long");
}

#[test]
fn of_a_cycle_of_two_to_five_one_gives_way_and_the_others_finish() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    // A leader that moves takes no locks along, and then there is no cycle.
    cluster.wait_spread();
    for length in 2..=5_usize {
        let barrier = Barrier::new(length);
        let results: Vec<Result<(), trandb_client::Error>> = std::thread::scope(|scope| {
            let waiting: Vec<_> = (0..length)
                .map(|at| {
                    let (cluster, barrier) = (&cluster, &barrier);
                    scope.spawn(move || {
                        let mut client = cluster.nodes[at % 3].client();
                        client.set_timeout(Duration::from_secs(20));
                        let txn = client.begin().expect("begins");
                        txn.lock(format!("cycle/{length}/{at}")).expect("is free");
                        barrier.wait();
                        let closed = Instant::now();
                        let locked = txn.lock(format!("cycle/{length}/{}", (at + 1) % length));
                        if locked.is_err() {
                            println!("a cycle of {length}: one gave way after {:?}", closed.elapsed());
                        }
                        locked?;
                        txn.put(format!("done/{length}/{at}"), "v")?;
                        txn.commit().map(drop)
                    })
                })
                .collect();
            waiting.into_iter().map(|thread| thread.join().expect("does not panic")).collect()
        });
        let failed: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        assert_eq!(failed.len(), 1, "a cycle of {length}: {failed:?}");
        assert_eq!(failed[0].code, ErrorCode::Conflict);
        assert!(failed[0].message.contains("deadlock: "), "{}", failed[0].message);
        assert_eq!(failed[0].message.matches("waits for").count(), length);
    }
}
