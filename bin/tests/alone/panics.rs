//! Actors that panic: their supervisor rebuilds them from disk, until that is plainly no use.

use crate::harness::Cluster;

/// What the supervisor logs.
const RESTARTED: &str = "an actor died and is started again";

#[test]
fn a_partition_that_panics_is_rebuilt_and_one_that_keeps_panicking_ends_the_node() {
    let mut cluster = Cluster::start(1, &["--partitions", "1"]);
    let node = &mut cluster.nodes[0];
    let client = node.client();
    for deaths in 1..=4 {
        let key = format!("k{deaths}");
        client.put(&key, key.clone()).expect("is written");
        assert_eq!(node.http("POST", "/admin/debug/panic?partition=1", &[], b"").status, 204);
        // At the most a retry that nobody sees, by the node itself or the client.
        for at in 1..=deaths {
            let key = format!("k{at}");
            let found = client.get(&key).expect("is read").expect("was written");
            assert_eq!(found.value, key);
        }
        client.put(&key, key.clone()).expect("is written");
        node.wait_logged_times(RESTARTED, deaths);
    }
    assert_eq!(node.http("POST", "/admin/debug/panic?partition=7", &[], b"").status, 404);
    assert!(node.log().contains("asked to, by the debug hook"), "the panic is in the log");

    assert_eq!(node.http("POST", "/admin/debug/panic?partition=1", &[], b"").status, 204);
    assert_eq!(node.wait_exit(), Some(1));
    node.wait_logged("cannot go on");
    node.wait_logged("p1/partition died 5 times within 60 s");

    node.restart();
    let client = node.client();
    for at in 1..=4 {
        assert!(client.get(format!("k{at}")).expect("is read").is_some(), "k{at}");
    }
}
