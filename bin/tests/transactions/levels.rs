//! What each isolation level lets happen, with real nodes. The table of all anomalies is proved by the cores' scripts.

use crate::harness::Cluster;
use trandb_client::blocking::Client;
use trandb_client::{Error, ErrorCode, Isolation, ScanRequest, Timestamp, TxnOptions};

fn options(isolation: Isolation) -> TxnOptions {
    TxnOptions { isolation, ..TxnOptions::default() }
}

/// Two transactions that each read both keys and write one of them; what the second commit came to.
fn write_skew(one: &Client, two: &Client, isolation: Isolation) -> Result<Timestamp, Error> {
    let name = isolation.name();
    let (x, y) = (format!("{name}/x"), format!("{name}/y"));
    for key in [&x, &y] {
        one.put(key, "on call").expect("is written");
    }
    let (first, second) = (
        one.begin_with(options(isolation)).expect("opened"),
        two.begin_with(options(isolation)).expect("opened"),
    );
    for txn in [&first, &second] {
        for key in [&x, &y] {
            assert_eq!(txn.get(key).expect("is read").expect("is there").value, "on call");
        }
    }
    first.put(&x, "off").expect("is buffered");
    second.put(&y, "off").expect("is buffered");
    first.commit().expect("the first");
    second.commit()
}

#[test]
fn write_skew_is_refused_on_serializable_and_allowed_on_snapshot() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    let clients: Vec<_> = cluster.nodes.iter().map(|node| node.client()).collect();
    let refused = write_skew(&clients[0], &clients[1], Isolation::Serializable);
    assert_eq!(refused.expect_err("the first has changed what it read").code, ErrorCode::Conflict);
    assert_eq!(clients[2].get("serializable/y").expect("is read").expect("is there").value, "on call");
    write_skew(&clients[1], &clients[2], Isolation::Snapshot).expect("they wrote different keys");
    write_skew(&clients[2], &clients[0], Isolation::ReadCommitted).expect("they wrote different keys");
}

#[test]
fn a_phantom_is_refused_on_serializable_and_allowed_on_snapshot() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    let clients: Vec<_> = cluster.nodes.iter().map(|node| node.client()).collect();
    for (isolation, refused) in [(Isolation::Serializable, true), (Isolation::Snapshot, false)] {
        let prefix = format!("phantom/{}/", isolation.name());
        let scan = || ScanRequest { prefix: prefix.clone().into(), ..ScanRequest::default() };
        let txn = clients[0].begin_with(options(isolation)).expect("opened");
        assert_eq!(txn.scan(scan()).expect("is read").entries, []);
        clients[1].put(format!("{prefix}new"), "v").expect("is written");
        assert_eq!(txn.scan(scan()).expect("is read").entries, [], "its snapshot stays");
        txn.put(format!("count/{}", isolation.name()), "0").expect("is buffered");
        let committed = txn.commit();
        match refused {
            true => assert_eq!(committed.expect_err("the range has changed").code, ErrorCode::Conflict),
            false => drop(committed.expect("it wrote what nobody else wrote")),
        }
    }
}

#[test]
fn a_read_only_transaction_shows_one_point_in_time_and_never_aborts() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    let clients: Vec<_> = cluster.nodes.iter().map(|node| node.client()).collect();
    for key in 0..8 {
        clients[0].put(format!("r/{key}"), "old").expect("is written");
    }
    let read_only = TxnOptions { read_only: true, ..TxnOptions::default() };
    let txn = clients[1].begin_with(read_only).expect("opened");
    for key in 0..8 {
        clients[2].put(format!("r/{key}"), "new").expect("is written");
    }
    let values = |txn: &trandb_client::blocking::Txn| -> Vec<_> {
        (0..8).map(|key| txn.get(format!("r/{key}")).expect("is read").expect("is there").value).collect()
    };
    assert_eq!(values(&txn), ["old"; 8]);
    assert_eq!(txn.put("r/0", "mine").expect_err("it is read-only").code, ErrorCode::Invalid);
    let then = txn.read_at();
    txn.commit().expect("it never aborts");

    let past = TxnOptions { at: Some(then), ..read_only };
    let txn = clients[2].begin_with(past).expect("opened");
    assert_eq!((values(&txn), txn.read_at()), (vec!["old".into(); 8], then));
    let now = clients[0].begin_with(read_only).expect("opened");
    assert_eq!(values(&now), ["new"; 8]);
}

#[test]
fn what_was_read_for_an_update_is_checked_at_every_level() {
    let cluster = Cluster::start(3, &["--partitions", "4"]);
    let clients: Vec<_> = cluster.nodes.iter().map(|node| node.client()).collect();
    for isolation in [Isolation::ReadCommitted, Isolation::Snapshot, Isolation::Serializable] {
        let name = isolation.name();
        clients[0].put(format!("{name}/rule"), "old").expect("is written");
        let txn = clients[1].begin_with(options(isolation)).expect("opened");
        clients[2].put(format!("{name}/rule"), "new").expect("is written");
        let found = txn.get_for_update(format!("{name}/rule")).expect("is read").expect("is there");
        assert_eq!(found.value, "new", "the newest, whatever the snapshot: {name}");
        txn.put(format!("{name}/other"), "v").expect("is buffered");
        txn.commit().expect("it has not changed since");

        let txn = clients[1].begin_with(options(isolation)).expect("opened");
        txn.lock(format!("{name}/rule")).expect("is looked at");
        clients[2].put(format!("{name}/rule"), "newer").expect("is written");
        txn.put(format!("{name}/other"), "w").expect("is buffered");
        assert_eq!(txn.commit().expect_err("it has changed").code, ErrorCode::Conflict, "{name}");
    }
}
