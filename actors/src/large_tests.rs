//! How many large values are written at once, how long one waits for its turn, and how long each rests.

use super::{CHECKPOINT_REST_MAX, LargeWrites, at_once};
use crate::database::RequestContext;
use crate::gateway::LARGE_BYTES;
use crate::node;
use crate::testing::{self, write};
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::ErrorCode;
use trandb_runtime::disk::SimDisk;

#[test]
fn half_of_the_threads_stay_free_of_large_values() {
    let turns: Vec<usize> = [1, 2, 3, 8].into_iter().map(at_once).collect();
    assert_eq!(turns, [1, 1, 1, 4]);
    // As many threads as there are cores, of which there is at least one.
    assert!(at_once(0) >= 1);
}

#[test]
fn a_checkpoint_rests_only_where_there_is_lag_and_not_for_long() {
    let writes = LargeWrites::new(1);
    assert_eq!(writes.rest_of_checkpoint(usize::MAX), Duration::ZERO, "nobody was held up");
    for _ in 0..1000 {
        writes.pace.lock().expect("nobody panics").sample(100);
    }
    assert_eq!(writes.rest_of_checkpoint(0), Duration::ZERO);
    assert_eq!(writes.rest_of_checkpoint(usize::MAX), CHECKPOINT_REST_MAX);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_value_waits_for_its_turn_until_its_deadline() {
    let disk = SimDisk::new();
    let options = testing::options(&disk, |config| config.node.threads = 2);
    let node = node::start(options).await.unwrap_or_else(|error| panic!("{error}"));
    testing::wait_ready(&node).await;
    let within = async |key: &str, bytes: usize, limit: Duration| {
        let context = RequestContext { deadline: Instant::now() + limit, trace: None };
        let replies = node.database().execute(vec![write(key, bytes)], &context).await;
        replies.into_iter().next().expect("one operation has one reply").result
    };
    let (patient, short) = (Duration::from_secs(20), Duration::from_millis(300));
    within("first", 2 * LARGE_BYTES, patient).await.expect("it is its turn");

    let asked = Instant::now();
    // As if another large value were on its way, the only one that two threads take.
    let turn = node.database().context().large_writes.turn(0, asked + patient).await.expect("nobody has it");
    let error = within("second", 2 * LARGE_BYTES, short).await.expect_err("it is not its turn");
    assert_eq!(error.code, ErrorCode::Overloaded, "{error}");
    assert!((short..patient).contains(&asked.elapsed()), "refused after {:?}", asked.elapsed());
    within("small", 10, patient).await.expect("small values wait for no turn");

    let waiting = within("third", 2 * LARGE_BYTES, patient);
    let end = async {
        tokio::time::sleep(short).await;
        drop(turn);
    };
    let (written, ()) = tokio::join!(waiting, end);
    written.expect("its turn came");
    node.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_whose_node_was_held_up_is_followed_by_a_rest() {
    let large = LargeWrites::new(1);
    let deadline = Instant::now() + Duration::from_secs(5);
    let gap = async || {
        drop(large.turn(4 << 20, deadline).await.expect("nobody has it for long"));
        let ended = Instant::now();
        drop(large.turn(0, deadline).await.expect("nobody has it for long"));
        ended.elapsed()
    };
    assert!(gap().await < Duration::from_millis(5), "nothing was late");
    for _ in 0..1000 {
        large.pace.lock().expect("nobody panics").sample(100);
    }
    let rest = gap().await;
    assert!((Duration::from_millis(125)..Duration::from_millis(150)).contains(&rest), "{rest:?}");
}
