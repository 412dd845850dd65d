//! The router: the authority on where a key lives.
//!
//! Looking a key up never queues behind it: it publishes an immutable [`Routes`] whenever the partition map
//! or a leader changes, and everyone reads the latest one. Leaders are known from this node's own replicas at
//! once and from other nodes' heartbeats, which say what each of them leads; the higher term wins.

use crate::context::NodeContext;
use bytes::Bytes;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use trandb_cluster::table::RoutingTable;
use trandb_cluster::whereabouts::Whereabouts;
use trandb_cluster::{Epoch, NodeId, PartitionId, wire};
use trandb_runtime::pace::pace;
use trandb_runtime::planted::{Planted, is_planted};

/// Everything that is needed to send an operation to the right place.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    /// Partitions, nodes, keyspaces.
    pub table: Arc<RoutingTable>,
    /// What is known of each group's leader.
    pub leads: Arc<BTreeMap<PartitionId, Lead>>,
    /// Nodes that are handing over and should lead nothing.
    pub stopping: Arc<BTreeSet<NodeId>>,
    /// Other nodes that have no memory for more values.
    pub full: Arc<BTreeSet<NodeId>>,
}

/// What is known of a group's leader.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lead {
    /// The highest term heard of.
    pub term: u64,
    /// Its leader; none while it has none.
    pub leader: Option<NodeId>,
    /// The last entry that the leader had applied, when last heard.
    pub applied: u64,
    /// The group's committed voters, as the leader knows them.
    pub voters: Vec<NodeId>,
    /// And those who follow without a vote, some of them on their way to one.
    pub learners: Vec<NodeId>,
}

impl Routes {
    /// Who leads a group.
    pub fn leader(&self, group: PartitionId) -> Option<NodeId> {
        self.leads.get(&group).and_then(|lead| lead.leader)
    }

    /// A group's voters, as its leader last said.
    pub fn voters(&self, group: PartitionId) -> Option<&[NodeId]> {
        self.leads.get(&group).map(|lead| lead.voters.as_slice())
    }
}

/// What a node tells the others with its heartbeats.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Gossip {
    /// Group, term, last applied index, voters.
    pub leads: Vec<(PartitionId, u64, u64, Vec<NodeId>)>,
    /// It is about to stop, or can write nothing, so nothing should be handed to it.
    #[serde(default)]
    pub stopping: bool,
    /// It has no memory for more values, so none should be put where it keeps them.
    #[serde(default)]
    pub full: bool,
    /// That of the partition map that it knows.
    #[serde(default)]
    pub epoch: Epoch,
    /// Learners of the groups in `leads` that have any.
    #[serde(default)]
    pub learners: BTreeMap<PartitionId, Vec<NodeId>>,
}

/// What the router is sent.
#[derive(Debug)]
pub enum RouterMessage {
    /// The system group applied a change of nodes, keyspaces or partitions.
    MapChanged,
    /// A replica on this node has a new view of its group.
    Seen(PartitionId, Lead),
    /// What other nodes said with their heartbeats.
    Heard(Arc<BTreeMap<NodeId, Bytes>>),
    /// Put what this node leads on the next heartbeats.
    Publish,
    /// Peer addresses of members, as another node knows them whose map is of this epoch or a later one.
    Members(Epoch, BTreeMap<NodeId, String>),
    /// A member says that it is at another peer address.
    Moved(NodeId, String),
}

impl ractor::Message for RouterMessage {}

/// The actor. See the module.
pub struct RouterActor;

/// What the actor owns.
pub struct RouterState {
    context: Arc<NodeContext>,
    routes: Routes,
    whereabouts: Whereabouts,
}

impl Actor for RouterActor {
    type Msg = RouterMessage;
    type State = RouterState;
    type Arguments = Arc<NodeContext>;

    async fn pre_start(
        &self,
        _me: ActorRef<RouterMessage>,
        context: Arc<NodeContext>,
    ) -> Result<RouterState, ActorProcessingErr> {
        let whereabouts = Whereabouts::new(context.hub.peers());
        let mut router = RouterState { context, routes: Routes::default(), whereabouts };
        router.map_changed();
        Ok(router)
    }

    async fn handle(
        &self,
        _me: ActorRef<RouterMessage>,
        message: RouterMessage,
        router: &mut RouterState,
    ) -> Result<(), ActorProcessingErr> {
        pace(router.context.node, "router").await;
        match message {
            RouterMessage::MapChanged => router.map_changed(),
            RouterMessage::Seen(group, lead) => {
                router.learn([(group, lead)]);
                router.gossip();
            }
            RouterMessage::Heard(heard) => router.heard(&heard),
            RouterMessage::Publish => router.gossip(),
            RouterMessage::Members(epoch, members) => {
                router.whereabouts.tell(epoch, members);
                router.map_changed();
            }
            RouterMessage::Moved(node, to) => router.moved(node, to),
        }
        Ok(())
    }
}

impl RouterState {
    fn map_changed(&mut self) {
        let system = self.context.system();
        let table = RoutingTable::from_state(&system);
        let to_reach = self.context.system_to_reach();
        self.context.hub.set_instances(to_reach.instances());
        self.context.hub.set_peers(self.whereabouts.peers(&to_reach, self.context.node));
        self.routes.table = Arc::new(table);
        self.publish();
        self.gossip();
    }

    fn moved(&mut self, node: NodeId, to: String) {
        if self.whereabouts.moves(&self.context.system_to_reach(), node, to.clone()) {
            tracing::info!(%node, peer = to, "a member has moved");
            self.map_changed();
        }
    }

    fn learn(&mut self, news: impl IntoIterator<Item = (PartitionId, Lead)>) {
        let mut leads = (*self.routes.leads).clone();
        let mut moved = false;
        for (group, lead) in news {
            let known = leads.entry(group).or_default();
            // A newer term always counts; within a term, a known leader counts more than none.
            let newer = lead.term > known.term || (lead.term == known.term && lead.leader.is_some());
            let stale =
                is_planted(Planted::StaleRouter) && known.leader.is_some_and(|it| lead.leader != Some(it));
            if newer && !stale && *known != lead {
                moved |= known.leader != lead.leader || known.term != lead.term;
                *known = lead;
            }
        }
        if *self.routes.leads != leads {
            self.routes.leads = Arc::new(leads);
            // Who only looks at applied indices reads them when asked; nobody waits for them.
            if moved {
                self.publish();
            } else {
                self.context.routes.send_if_modified(|routes| {
                    *routes = Arc::new(self.routes.clone());
                    false
                });
            }
        }
    }

    fn heard(&mut self, heard: &BTreeMap<NodeId, Bytes>) {
        let mut news = Vec::new();
        let (mut stopping, mut full) = (BTreeSet::new(), BTreeSet::new());
        for (&node, bytes) in heard {
            // A peer of a newer version may say more, or say it differently; then its leads are learned from
            // the replicas here and from refusals.
            let Ok(mut gossip) = wire::decode::<Gossip>(bytes) else { continue };
            if gossip.stopping {
                stopping.insert(node);
            }
            if gossip.full {
                full.insert(node);
            }
            for (group, term, applied, voters) in gossip.leads {
                let learners = gossip.learners.remove(&group).unwrap_or_default();
                news.push((group, Lead { term, leader: Some(node), applied, voters, learners }));
            }
        }
        if *self.routes.stopping != stopping || *self.routes.full != full {
            (self.routes.stopping, self.routes.full) = (Arc::new(stopping), Arc::new(full));
            self.publish();
        }
        self.learn(news);
    }

    fn publish(&self) {
        self.context.routes.send_replace(Arc::new(self.routes.clone()));
    }

    fn gossip(&self) {
        let me = self.context.node;
        let led = || self.routes.leads.iter().filter(|(_, lead)| lead.leader == Some(me));
        let leads = led().map(|(&id, lead)| (id, lead.term, lead.applied, lead.voters.clone())).collect();
        let learners = led()
            .filter(|(_, lead)| !lead.learners.is_empty())
            .map(|(&id, lead)| (id, lead.learners.clone()))
            .collect();
        let (stopping, full) = (!self.context.may_lead(), self.context.memory.is_full());
        let epoch = self.context.system().epoch;
        let bytes = Bytes::from(wire::encode(&Gossip { leads, stopping, full, epoch, learners }));
        self.context.hub.gossip().send_if_modified(|current| {
            let changed = *current != bytes;
            *current = bytes;
            changed
        });
    }
}
