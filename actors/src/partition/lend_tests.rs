//! A replica that lends its state, on a node of its own.

use super::lend::{LendAnswer, LendCall, Opened};
use super::message::PartitionMessage;
use super::{DigestCall, DigestReply};
use crate::database::RequestContext;
use crate::node::{self, RunningNode};
use crate::testing::{self, write};
use ractor::ActorRef;
use ractor::rpc::CallResult;
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::partition::PartitionState;
use trandb_cluster::{EncodedKey, KeyspaceId, PartitionId};
use trandb_runtime::disk::SimDisk;
use trandb_runtime::rpc::Reply;

const P1: PartitionId = PartitionId(1);

/// Keys, so many that the only partition takes more than one chunk.
const KEYS: usize = 40;

async fn started() -> (RunningNode, ActorRef<PartitionMessage>) {
    let disk = SimDisk::new();
    let options = testing::options(&disk, |config| config.node.partitions = 1);
    let node = node::start(options).await.unwrap_or_else(|error| panic!("{error}"));
    testing::wait_ready(&node).await;
    let context = RequestContext { deadline: Instant::now() + Duration::from_secs(20), trace: None };
    let ops = (0..KEYS).map(|key| write(&format!("k{key}"), 16 << 10)).collect();
    for reply in node.database().execute(ops, &context).await {
        reply.result.unwrap();
    }
    let actor = node.database().context().partition(P1).unwrap();
    (node, actor)
}

async fn ask(actor: &ActorRef<PartitionMessage>, call: LendCall) -> Result<LendAnswer, String> {
    let make = |port| PartitionMessage::Lend(call, Reply::Local(port));
    match actor.call(make, Some(Duration::from_secs(20))).await.unwrap() {
        CallResult::Success(answer) => answer,
        other => panic!("{other:?}"),
    }
}

async fn open(actor: &ActorRef<PartitionMessage>) -> Result<Opened, String> {
    match ask(actor, LendCall::Open).await? {
        LendAnswer::Opened(opened) => Ok(*opened),
        other => panic!("{other:?}"),
    }
}

async fn digest(actor: &ActorRef<PartitionMessage>) -> DigestReply {
    let make = |port| PartitionMessage::Digest(DigestCall { at: None }, Reply::Local(port));
    match actor.call(make, Some(Duration::from_secs(20))).await.unwrap() {
        CallResult::Success(reply) => reply,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lent_is_the_whole_state_and_loans_are_few() {
    let (node, actor) = started().await;
    let first = open(&actor).await.unwrap();
    let second = open(&actor).await.unwrap();
    let refused = open(&actor).await.unwrap_err();
    assert!(refused.contains("2 times already, the limit"), "{refused}");

    let mut restore = PartitionState::restore_from_snapshot(second.header);
    let (mut after, mut chunks) = (None, 0);
    loop {
        match ask(&actor, LendCall::Chunk { loan: second.loan, after }).await.unwrap() {
            LendAnswer::Chunk(versions, resume) => {
                versions.into_iter().for_each(|version| restore.add(version));
                chunks += 1;
                match resume {
                    None => break,
                    resume => after = resume,
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(chunks > 1, "{KEYS} keys of 16 KiB are more than one chunk");
    let state = restore.finish().unwrap();
    assert_eq!(Some((state.digest(), KEYS as u64)), digest(&actor).await.digest);

    ask(&actor, LendCall::Close { loan: first.loan }).await.unwrap();
    ask(&actor, LendCall::Close { loan: first.loan }).await.unwrap();
    let closed = ask(&actor, LendCall::Chunk { loan: first.loan, after: None }).await.unwrap_err();
    assert!(closed.contains("there is no loan"), "{closed}");
    open(&actor).await.unwrap();
    node.shutdown().await;
}

#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_replica_lends_nothing() {
    let (node, actor) = started().await;
    let key = EncodedKey::from_parts(KeyspaceId::DEFAULT, b"k7");
    node.database().flip_byte(key, false).await.unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while digest(&actor).await.sound {
        assert!(Instant::now() < until, "the damage is not found");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let refused = open(&actor).await.unwrap_err();
    assert!(refused.contains("is wrong itself"), "{refused}");
    let alarms = node.database().readiness().details.join(", ");
    assert!(alarms.contains("its memory is not what was written"), "{alarms}");
    // What is wrong is not made durable, either.
    let context = node.database().context().clone();
    let refused = super::checkpoint_now(&context, P1, Duration::from_millis(500)).await.unwrap_err();
    assert!(refused.contains("was not written"), "{refused}");
    node.shutdown().await;
}
