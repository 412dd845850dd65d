//! A fresh node's first minutes: it asks its seeds until it is a member of a cluster.

use super::StartError;
use crate::context::NodeContext;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::time::Instant;
use trandb_cluster::forming::{Decision, SeedState, decide, decide_again, normalize};
use trandb_cluster::system::{NodeAddresses, NodeInfo};
use trandb_cluster::{ClusterId, InstanceId, NodeId};
use trandb_runtime::datadir::Identity;
use trandb_runtime::peer::{Answer, Ask, HandshakeError, PeerError, PeerHub, Refusal};
use trandb_runtime::planted::{Planted, is_planted};

/// How long after a round of questions the next one begins.
const ROUND: Duration = Duration::from_millis(100);

/// How often the log says why a node is still waiting.
const COMPLAIN: Duration = Duration::from_secs(10);

/// What became of a fresh node.
#[derive(Debug)]
pub(super) enum Formed {
    /// It founds a cluster, with these members.
    Founder {
        /// Its id.
        me: NodeId,
        /// All founders.
        nodes: BTreeMap<NodeId, NodeInfo>,
    },
    /// It was taken in.
    Member {
        /// Its id.
        me: NodeId,
        /// The cluster.
        cluster: ClusterId,
        /// All members' peer addresses.
        members: BTreeMap<NodeId, NodeAddresses>,
    },
}

/// Asks until there is a cluster, the one that the node `rejoins` if it does. Never gives up: seeds may be started hours
/// later.
pub(super) async fn form(
    hub: &PeerHub,
    instance: InstanceId,
    rejoins: Option<ClusterId>,
    seeds: &[String],
    addresses: &NodeAddresses,
) -> Formed {
    let seeds = normalize(seeds);
    let mut complained: Option<Instant> = None;
    loop {
        let answers = futures_util::future::join_all(seeds.iter().map(|seed| discover(hub, seed))).await;
        let decision = match rejoins {
            Some(cluster) => decide_again(cluster, &seeds, &answers),
            None => decide(instance, &seeds, &answers),
        };
        let why = match decision {
            Decision::Found { me, founders } => {
                let nodes = founders
                    .into_iter()
                    .map(|(id, peer)| {
                        let (instance, addresses) = if id == me {
                            (instance, addresses.clone())
                        } else {
                            (InstanceId(0), NodeAddresses { peer, ..NodeAddresses::default() })
                        };
                        (id, NodeInfo { instance, addresses, removed: false })
                    })
                    .collect();
                return Formed::Founder { me, nodes };
            }
            Decision::Join(seed) => match join(hub, seed, instance, addresses).await {
                Ok(formed) => return formed,
                Err(why) => why,
            },
            Decision::Wait(why) => why,
        };
        if complained.is_none_or(|at| at.elapsed() >= COMPLAIN) {
            complained = Some(Instant::now());
            tracing::info!(why, "waiting for a cluster");
        }
        tokio::time::sleep(ROUND).await;
    }
}

/// Looks whether the seeds are of this node's cluster. A directory that was mixed up would otherwise serve its
/// old data under its new name.
///
/// # Errors
/// [`StartError::OtherCluster`] when one says that it is not. One that is silent says nothing.
pub(super) async fn check_seeds(
    hub: &PeerHub,
    seeds: &[String],
    cluster: ClusterId,
) -> Result<(), StartError> {
    /// How long a restart may be held up by seeds that do not answer.
    const ANSWER_MAX: Duration = Duration::from_millis(500);
    let asked = seeds.iter().map(|seed| async move {
        let answer = tokio::time::timeout(ANSWER_MAX, hub.ask(seed, Ask::Discover)).await;
        let refusal = match answer {
            Ok(Err(PeerError::Handshake { reason, .. })) => reason,
            _ => return Ok(()),
        };
        match refusal {
            HandshakeError::Refused(Refusal::OtherCluster)
            | HandshakeError::RefusedByPeer(Refusal::OtherCluster) => {
                Err(StartError::OtherCluster { ours: cluster, seed: seed.clone() })
            }
            _ => Ok(()),
        }
    });
    futures_util::future::join_all(asked).await.into_iter().collect()
}

async fn discover(hub: &PeerHub, seed: &str) -> SeedState {
    match hub.ask(seed, Ask::Discover).await {
        Ok(Answer::Discovered { cluster: Some(cluster), .. }) => SeedState::Member { cluster },
        Ok(Answer::Discovered { rejoins: Some(cluster), .. }) => SeedState::Rejoins { cluster },
        Ok(Answer::Discovered { instance, seeds, .. }) => SeedState::Fresh { instance, seeds },
        Ok(_) | Err(_) => SeedState::Silent,
    }
}

/// Asks to be taken in, led on from node to node until the leader of the system group answers.
async fn join(
    hub: &PeerHub,
    seed: String,
    instance: InstanceId,
    addresses: &NodeAddresses,
) -> Result<Formed, String> {
    /// Nodes that may send us on before we begin anew: a leader may move while we look for it.
    const HOPS_MAX: usize = 4;
    let mut at = seed;
    for _ in 0..HOPS_MAX {
        let ask = Ask::Join { instance, node: NodeId(0), addresses: addresses.clone() };
        match hub.ask(&at, ask).await.map_err(|error| error.to_string())? {
            Answer::Joined { node, cluster, members } => {
                return Ok(Formed::Member { me: node, cluster, members });
            }
            Answer::NotLeader { leader_addr: Some(leader) } => at = leader,
            Answer::NotLeader { leader_addr: None } => return Err(format!("{at} knows no leader")),
            Answer::NotFormed => return Err(format!("{at} has no cluster yet")),
            Answer::Refused(why) => return Err(format!("{at} refuses: {why}")),
            Answer::Discovered { .. } => return Err(format!("{at} gave an answer to another question")),
        }
    }
    Err(format!("sent on {HOPS_MAX} times, last to {at}"))
}

/// What a node answers while it starts; the running node takes over once there is one.
#[derive(Default)]
pub(super) struct Receptionist {
    /// Not held: the node's hub holds the receptionist.
    running: OnceLock<Weak<NodeContext>>,
}

impl Receptionist {
    /// The node runs.
    pub(super) fn hand_over(&self, context: &Arc<NodeContext>) {
        self.running.get_or_init(|| Arc::downgrade(context));
    }

    /// Answers a question.
    pub(super) async fn answer(&self, identity: Identity, seeds: Vec<String>, ask: Ask) -> Answer {
        let running = self.running.get().and_then(Weak::upgrade);
        match (ask, running) {
            (Ask::Discover, running) => {
                let system = running.as_ref().map(|context| context.system());
                Answer::Discovered {
                    instance: identity.instance,
                    node: running.as_ref().map(|context| context.node),
                    cluster: system.as_ref().and_then(|system| system.cluster_id),
                    // A member that still reads its log is no fresh node: who has lost a disk would found a second cluster with it.
                    rejoins: match identity.rejoins {
                        None if is_planted(Planted::StartingIsFresh) => None,
                        rejoins => rejoins.or(identity.cluster),
                    },
                    seeds,
                    members: system.map(|system| peers(&system)).unwrap_or_default(),
                    system_leader: running
                        .as_ref()
                        .and_then(|context| context.leader(trandb_cluster::PartitionId::SYSTEM)),
                }
            }
            (Ask::Join { .. }, None) => Answer::NotFormed,
            (Ask::Join { instance, node, addresses }, Some(context)) => {
                super::members::admit(&context, instance, node, addresses).await
            }
        }
    }
}

/// All members' addresses.
pub(super) fn peers(system: &trandb_cluster::system::SystemState) -> BTreeMap<NodeId, NodeAddresses> {
    system.members().map(|(id, info)| (id, info.addresses.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_member_that_is_starting_still_is_no_fresh_node() {
        let identity =
            |node, cluster, rejoins| Identity { node, cluster, rejoins, ..Identity::fresh(InstanceId(7)) };
        let seen = async |identity| match Receptionist::default()
            .answer(identity, Vec::new(), Ask::Discover)
            .await
        {
            Answer::Discovered { cluster, rejoins, .. } => (cluster, rejoins),
            other => panic!("{other:?}"),
        };
        let (node, cluster) = (Some(NodeId(1)), Some(ClusterId(5)));
        assert_eq!(seen(identity(None, None, None)).await, (None, None));
        assert_eq!(seen(identity(node, None, None)).await, (None, None), "it founds one with others");
        assert_eq!(seen(identity(node, cluster, None)).await, (None, cluster));
        assert_eq!(seen(identity(None, None, cluster)).await, (None, cluster));
    }
}
