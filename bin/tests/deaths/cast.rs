//! Who plays which part.

use crate::Who;
use crate::harness::{Cluster, eventually};
use tokio::runtime::Runtime;
use trandb_client::{Client, NodeId, PartitionId};
use trandb_cluster::{EncodedKey, Key, KeyspaceId};

/// Which nodes play which part, by their places.
pub(crate) struct Cast {
    pub(crate) coordinator: usize,
    pub(crate) anchor: usize,
    pub(crate) participant: usize,
    pub(crate) oracle: usize,
    /// Two keys of the anchor, then two of the other partition; the same two again where the commit is in one.
    pub(crate) keys: [String; 4],
}

/// Finds a part for each node, once each leads something.
pub(crate) fn cast(
    cluster: &Cluster,
    client: &Client,
    runtime: &Runtime,
    case: usize,
    who: Who,
    one: bool,
) -> Cast {
    let ids: Vec<NodeId> = cluster.nodes.iter().map(|node| node.view().answered_by).collect();
    eventually("a leader on each node", || {
        let topology = runtime.block_on(client.topology()).map_err(|error| error.to_string())?;
        let partition_of = |key: &str| {
            let key = Key::new(key.to_owned().into()).expect("valid");
            let token = EncodedKey::new(KeyspaceId::DEFAULT, &key).token();
            let after = topology.partitions.partition_point(|(start, _, _)| *start <= token);
            topology.partitions[after.checked_sub(1).unwrap_or(topology.partitions.len() - 1)].1
        };
        let led = |place: usize| {
            let id = ids[place];
            let of = topology.partitions.iter().filter(move |(_, _, leader)| *leader == Some(id));
            of.map(|(_, id, _)| *id)
        };
        let system = cluster.nodes[0].view().partitions.first().and_then(|system| system.leader);
        let oracle = ids.iter().position(|id| Some(*id) == system).ok_or("nobody leads the system group")?;
        // Who is to die does nothing else, as far as three nodes go. The anchor's partition comes first of the two.
        let roles = match who {
            Who::Coordinator => [[1, 0, 2], [1, 2, 0]],
            Who::Anchor | Who::Participant => [[0, 1, 2], [0, 2, 1]],
            Who::Oracle | Who::OracleMeanwhile => [[1, 2, 0], [1, 0, 2]],
        };
        let roles = roles.map(|roles| roles.map(|after| (oracle + after) % ids.len()));
        let found = roles.into_iter().find_map(|[coordinator, anchor, participant]| {
            let (first, other) = (led(anchor).min()?, led(participant).max()?);
            (first < other).then_some((coordinator, anchor, participant, first, other))
        });
        let (coordinator, anchor, participant, first, other) = found.ok_or("a node leads nothing")?;
        let names = |part: &str, partition: PartitionId| {
            let all = (0..2000).map(|number| format!("deaths/{case}/{part}/{number}"));
            let mut found = all.filter(|key| partition_of(key) == partition);
            Some([found.next()?, found.next()?])
        };
        let [a, b] = names("anchor", first).ok_or("no keys")?;
        let [c, d] = match one {
            true => [a.clone(), b.clone()],
            false => names("other", other).ok_or("no keys")?,
        };
        let keys = [a, b, c, d];
        Ok::<_, String>(Cast { coordinator, anchor, participant, oracle, keys })
    })
}
