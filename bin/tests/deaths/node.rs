//! A node ends at a step, or while all others stand still at it.

use crate::after;
use crate::cast::{Cast, cast};
use crate::harness::{Cluster, PATIENCE, request};
use crate::{MEANWHILE, Who, hold, let_go};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use trandb_client::{Client, TxnId, TxnOutcome};

/// How often an oracle is asked for a timestamp until it ends.
const ASK: Duration = Duration::from_millis(20);

pub(crate) fn dies(cluster: &mut Cluster, runtime: &Runtime, case: usize, who: Who, step: &str) {
    let at = format!("{who:?} at {step}");
    let everyone = runtime.block_on(Client::builder().timeout(PATIENCE).connect(cluster.addrs()));
    let Cast { coordinator, anchor, participant, oracle, keys } =
        cast(cluster, &everyone.expect("connects"), runtime, case, who, step.starts_with("commit"));
    let victim = match who {
        Who::Coordinator => coordinator,
        Who::Anchor => anchor,
        Who::Participant => participant,
        Who::Oracle | Who::OracleMeanwhile => oracle,
    };
    let living: Vec<usize> = (0..cluster.nodes.len()).filter(|node| *node != victim).collect();
    let addrs: Vec<String> = living.iter().map(|&node| cluster.nodes[node].ports.native.clone()).collect();
    let client =
        runtime.block_on(Client::builder().timeout(PATIENCE).connect(addrs.join(","))).expect("connects");
    for key in &keys {
        runtime.block_on(client.put(key, "old")).expect("is written");
    }
    let node = &cluster.nodes[coordinator];
    let begun = node.http("POST", "/txn", &[], b"");
    let id = begun.json()["id"].as_str().expect("text").to_owned();
    for key in &keys {
        let path = format!("/txn/{id}/keys/{}", key.replace('/', "%2F"));
        assert_eq!(node.http("PUT", &path, &[], b"new").status, 200, "{at}");
    }
    if who == Who::OracleMeanwhile {
        hold(cluster, &living, step);
    } else {
        let path = format!("/admin/debug/end?at={step}");
        let armed = cluster.nodes[victim].http("POST", &path, &[], b"");
        assert_eq!(armed.status, 204, "{}", armed.text());
    }

    let door = cluster.nodes[living[0]].ports.http.clone();
    let path = format!("/txn/{id}/commit");
    let committing = runtime.spawn_blocking(move || request(&door, "POST", &path, &[], b""));
    if who == Who::OracleMeanwhile {
        std::thread::sleep(MEANWHILE);
        cluster.nodes[victim].kill9();
    } else {
        // An oracle reserves when it is asked for timestamps and few are left, so it is asked, one way or the other.
        let until = Instant::now() + PATIENCE;
        while who == Who::Oracle && cluster.nodes[victim].is_running() && Instant::now() < until {
            let _ = request(&cluster.nodes[living[0]].ports.http, "GET", "/keys?limit=1", &[], b"");
            std::thread::sleep(ASK);
        }
        cluster.nodes[victim].wait_exit();
    }
    let txn: TxnId = id.parse().expect("an id");
    let (mut outcome, times) =
        after::look(cluster, runtime, &at, &living, &client, &keys, &[&keys[0], &keys[2]], txn);
    let told = runtime.block_on(committing).expect("asks");
    if outcome == TxnOutcome::Open {
        // Its commit was still under way.
        outcome = runtime.block_on(client.outcome(txn)).expect("is known");
    }
    // What the client was told, if anything, is what happened.
    if let Ok(told) = told {
        match told.status {
            200 => assert!(
                matches!(outcome, TxnOutcome::Committed(_)),
                "{at}: {outcome:?}, though {}",
                told.text()
            ),
            409 => assert!(
                matches!(outcome, TxnOutcome::Aborted(_)),
                "{at}: {outcome:?}, though {}",
                told.text()
            ),
            503 | 504 => {}
            other => panic!("{at}: answered {other}: {}", told.text()),
        }
    }
    assert_ne!(outcome, TxnOutcome::Open, "{at}");
    let end = if matches!(outcome, TxnOutcome::Committed(_)) { "committed" } else { "aborted" };
    println!("{at}: {end}; {times}");
    let_go(cluster, &living, step);
    cluster.nodes[victim].restart();
    let again = runtime.block_on(client.outcome(txn)).expect("is known");
    assert_eq!(again, outcome, "{at}: an outcome does not change");
}
