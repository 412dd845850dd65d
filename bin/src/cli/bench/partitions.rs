//! Which keys lie together, so that transactions can be made to stay on one partition or to span two.

use super::chooser::Rng;
use super::template::key_of;
use trandb_client::{KeyspaceId, Token, Topology};
use trandb_cluster::{EncodedKey, Key};

/// The ring as it was when the benchmark began.
#[derive(Debug)]
pub(crate) struct Partitions {
    /// First tokens, in order.
    starts: Vec<Token>,
    keyspace: KeyspaceId,
    keys: u64,
}

impl Partitions {
    /// Of `keys` keys in a keyspace.
    pub(crate) fn new(topology: &Topology, keyspace: Option<&str>, keys: u64) -> Self {
        let named = |name| topology.keyspaces.iter().find(|(known, _)| known == name).map(|(_, id)| *id);
        Self {
            starts: topology.partitions.iter().map(|(start, _, _)| *start).collect(),
            keyspace: keyspace.and_then(named).unwrap_or(KeyspaceId::DEFAULT),
            keys,
        }
    }

    /// Another key, on the same partition as `key` or on another one. Where there is none, whichever comes.
    pub(crate) fn partner(&self, key: u64, together: bool, rng: &mut Rng) -> u64 {
        // Enough to find a partner on one partition of many; the most that are possible are a thousand.
        let tries = 16 * self.starts.len() as u64 + 16;
        let (home, first) = (self.index(key), rng.next());
        let others =
            (0..tries).map(|step| (first.wrapping_add(step)) % self.keys).filter(|other| *other != key);
        let mut last = key;
        for other in others {
            last = other;
            if (self.index(other) == home) == together {
                break;
            }
        }
        last
    }

    /// Its partition's place on the ring.
    fn index(&self, key: u64) -> usize {
        let key = Key::new(key_of(key).into()).expect("is text of 16 bytes");
        let token = EncodedKey::new(self.keyspace, &key).token();
        let after = self.starts.partition_point(|start| *start <= token);
        // Before the first start the ring wraps around to the last partition.
        after.checked_sub(1).unwrap_or(self.starts.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trandb_client::PartitionId;

    #[test]
    fn partners_are_together_or_apart_as_asked() {
        let starts = (0..16).map(|i| (Token(i * (u64::MAX / 16) + 5), PartitionId(i as u32 + 1), None));
        let topology = Topology { partitions: starts.collect(), ..Topology::default() };
        let partitions = Partitions::new(&topology, None, 10_000);
        let mut rng = Rng::new(1);
        for key in 0..2000 {
            for together in [true, false] {
                let other = partitions.partner(key, together, &mut rng);
                assert_ne!(other, key);
                assert_eq!(partitions.index(other) == partitions.index(key), together, "{key} {other}");
            }
        }
        let alone = Partitions::new(&topology, None, 1);
        assert_eq!(alone.partner(0, false, &mut rng), 0, "there is no other key");
    }
}
