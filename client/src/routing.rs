//! Which node to ask: the nodes known, and the leader of each partition as last heard.

use crate::node::Node;
use crate::options::Options;
use std::sync::Arc;
use trandb_cluster::wire::Topology;
use trandb_cluster::{EncodedKey, Key, KeyspaceId, NodeId, Token};

/// Which node a request is best sent to. Any other one can lead it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// All are as good.
    Any,
    /// The leader of the partition that the token lies in.
    Leader(Token),
    /// The node itself.
    Node(NodeId),
}

/// An immutable view; a refresh replaces it.
pub(crate) struct Routes {
    topology: Topology,
    nodes: Vec<Arc<Node>>,
}

impl Routes {
    /// Before anything was heard: only the addresses given.
    pub(crate) fn from_seeds(addrs: &[String], options: &Options) -> Self {
        let mut nodes: Vec<Arc<Node>> = Vec::new();
        for addr in addrs {
            if nodes.iter().all(|node| node.addr() != addr) {
                nodes.push(Arc::new(Node::new(addr.clone(), NodeId(0), options)));
            }
        }
        Self { topology: Topology::default(), nodes }
    }

    /// Takes in what a node said. Nodes that are known already keep their connections: by address, or by id,
    /// since a seed address that works (through a tunnel, say) is worth more than one that is advertised. Seeds
    /// stay for good; other nodes go when the topology no longer names them.
    pub(crate) fn updated(&self, topology: Topology, seeds: &[String], options: &Options) -> Self {
        let mut nodes: Vec<Arc<Node>> =
            self.nodes.iter().filter(|node| seeds.iter().any(|seed| seed == node.addr())).cloned().collect();
        for (id, addr) in &topology.nodes {
            if let Some(known) = nodes.iter().find(|node| node.addr() == addr) {
                known.set_id(*id);
            } else if !nodes.iter().any(|node| node.id() == *id) {
                let known = self.nodes.iter().find(|node| node.addr() == addr).cloned();
                let node = known.unwrap_or_else(|| Arc::new(Node::new(addr.clone(), *id, options)));
                node.set_id(*id);
                nodes.push(node);
            }
        }
        Self { topology, nodes }
    }

    pub(crate) fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// The target's node, by what was last heard.
    pub(crate) fn find(&self, target: Target) -> Option<&Arc<Node>> {
        let wanted = match target {
            Target::Any => return None,
            Target::Leader(token) => leader_of(&self.topology, token)?,
            Target::Node(node) => node,
        };
        self.nodes.iter().find(|node| node.id() == wanted)
    }

    /// Where a key lies on the ring; none when the keyspace is not known here.
    pub(crate) fn token(&self, keyspace: Option<&str>, key: &Key) -> Option<Token> {
        let id = match keyspace {
            None => KeyspaceId::DEFAULT,
            Some(wanted) => self.topology.keyspaces.iter().find(|(name, _)| name == wanted)?.1,
        };
        Some(EncodedKey::new(id, key).token())
    }
}

/// The leader of the partition that `token` lies in: the last one that starts at or before it; before the first
/// start the ring wraps around to the last partition.
fn leader_of(topology: &Topology, token: Token) -> Option<NodeId> {
    let partitions = &topology.partitions;
    let after = partitions.partition_point(|(start, _, _)| *start <= token);
    let index = after.checked_sub(1).or(partitions.len().checked_sub(1))?;
    partitions[index].2
}

#[cfg(test)]
mod tests {
    use super::*;
    use trandb_cluster::{Epoch, PartitionId};

    fn topology(nodes: &[(u64, &str)]) -> Topology {
        Topology {
            epoch: Epoch(1),
            nodes: nodes.iter().map(|(id, addr)| (NodeId(*id), (*addr).to_owned())).collect(),
            partitions: vec![
                (Token(100), PartitionId(1), Some(NodeId(1))),
                (Token(200), PartitionId(2), None),
                (Token(300), PartitionId(3), Some(NodeId(3))),
            ],
            keyspaces: vec![("default".to_owned(), KeyspaceId::DEFAULT), ("other".to_owned(), KeyspaceId(2))],
        }
    }

    #[test]
    fn a_token_belongs_to_the_partition_that_starts_at_or_before_it() {
        let topology = topology(&[]);
        let leaders: Vec<_> = [100, 199, 200, 299, 300, u64::MAX, 0, 99]
            .map(|token| leader_of(&topology, Token(token)).map_or(0, |node| node.0))
            .into();
        assert_eq!(leaders, [1, 1, 0, 0, 3, 3, 3, 3]);
        assert_eq!(leader_of(&Topology::default(), Token(1)), None);
    }

    #[test]
    fn nodes_keep_their_connections_and_seeds_stay() {
        let options = crate::options::Builder::default().options();
        let seeds = ["seed:1".to_owned(), "tunnel:9".to_owned()];
        let routes = Routes::from_seeds(&seeds, &options);
        // The tunnel turned out to lead to node 3, whose own address is another.
        routes.nodes()[1].set_id(NodeId(3));
        let one = routes.updated(topology(&[(1, "seed:1"), (2, "b:2"), (3, "c:3")]), &seeds, &options);
        let addrs: Vec<_> = one.nodes().iter().map(|node| (node.addr(), node.id().0)).collect();
        assert_eq!(addrs, [("seed:1", 1), ("tunnel:9", 3), ("b:2", 2)]);
        assert!(Arc::ptr_eq(one.find(Target::Leader(Token(300))).expect("known"), &routes.nodes()[1]));

        let two = one.updated(topology(&[(2, "b:2"), (4, "d:4")]), &seeds, &options);
        assert!(Arc::ptr_eq(two.find(Target::Node(NodeId(2))).expect("known"), &one.nodes()[2]));
        assert!(two.find(Target::Node(NodeId(9))).is_none() && two.find(Target::Any).is_none());
        assert!(two.nodes().iter().any(|node| Arc::ptr_eq(node, &one.nodes()[2])), "the same node 2");
        let three = two.updated(topology(&[(4, "d:4")]), &seeds, &options);
        let addrs: Vec<_> = three.nodes().iter().map(|node| node.addr()).collect();
        assert_eq!(addrs, ["seed:1", "tunnel:9", "d:4"]);
    }

    #[test]
    fn tokens_depend_on_the_keyspace() {
        let options = crate::options::Builder::default().options();
        let routes = Routes::from_seeds(&[], &options).updated(topology(&[]), &[], &options);
        let key = Key::new("k".into()).expect("valid");
        let default = routes.token(None, &key);
        assert_eq!(default, Some(EncodedKey::new(KeyspaceId::DEFAULT, &key).token()));
        assert_eq!(routes.token(Some("default"), &key), default);
        assert_ne!(routes.token(Some("other"), &key), default);
        assert_eq!(routes.token(Some("missing"), &key), None);
    }
}
