use super::*;
use crate::node::start;
use crate::testing;
use trandb_runtime::disk::SimDisk;
use trandb_runtime::raft::WatchReceiver;

/// How many times a node says the same; what else the log takes meanwhile is far less.
const TIMES: u64 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_says_nothing_new_costs_no_entry() {
    let node =
        start(testing::options(&SimDisk::new(), |_| ())).await.unwrap_or_else(|error| panic!("{error}"));
    testing::wait_ready(&node).await;
    let context = node.database().context();
    let before = context.system();
    let NodeInfo { instance, addresses, .. } = before.nodes[&context.node].clone();
    let entries = || {
        context.system_raft().map_or(0, |raft| raft.metrics().borrow_watched().last_log_index.unwrap_or(0))
    };

    let had = entries();
    for _ in 0..TIMES {
        let answer = admit(context, instance, context.node, addresses.clone()).await;
        assert!(matches!(answer, Answer::Joined { node, .. } if node == context.node), "{answer:?}");
    }
    assert!(entries() < had + TIMES, "{had} entries have become {}", entries());

    let elsewhere = NodeAddresses { http: "elsewhere:1".into(), ..addresses.clone() };
    let answer = admit(context, instance, context.node, elsewhere.clone()).await;
    assert!(matches!(answer, Answer::Joined { .. }), "{answer:?}");
    // It is not, and says so itself.
    let mut system = context.system.subscribe();
    system.wait_for(|system| system.nodes[&context.node].addresses == addresses).await.expect("goes on");
    assert!(context.system().epoch > before.epoch);

    let other = admit(context, InstanceId(instance.0 + 1), context.node, addresses.clone()).await;
    assert!(matches!(other, Answer::Refused(_)), "{other:?}");
    node.shutdown().await;
}
