//! What a node that ended leaves behind in its process: nothing.

use super::{StorageDoor, start};
use crate::database::RequestContext;
use crate::testing::{self, write};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;
use trandb_runtime::disk::SimDisk;

/// Tasks that were told to end may take a moment.
const GONE_MAX: Duration = Duration::from_secs(20);

async fn wait_gone<T: ?Sized>(what: &str, of: &Weak<T>) {
    let until = Instant::now() + GONE_MAX;
    while of.strong_count() > 0 {
        assert!(Instant::now() < until, "{what} is still held {} times", of.strong_count());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_ended_leaves_nothing_behind() {
    let options = testing::options(&SimDisk::new(), |_| ());
    let StorageDoor::Given { engine, .. } = &options.storage else { unreachable!() };
    let engine = Arc::downgrade(engine);
    let node = start(options).await.unwrap_or_else(|error| panic!("{error}"));
    testing::wait_ready(&node).await;
    let context = RequestContext { deadline: Instant::now() + Duration::from_secs(20), trace: None };
    for done in
        node.database().execute((0..8).map(|at| write(&format!("k{at}"), 100)).collect(), &context).await
    {
        done.result.unwrap();
    }
    let replicas: Vec<_> = node.context.local.load().values().map(Arc::downgrade).collect();
    assert_eq!(replicas.len(), 4);
    let context = Arc::downgrade(&node.context);
    node.shutdown().await;
    wait_gone("the context", &context).await;
    for replica in &replicas {
        wait_gone("a replica", replica).await;
    }
    wait_gone("the engine", &engine).await;
}
