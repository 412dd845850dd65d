//! Whether each partition takes writes, seen from one node.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use trandb_client::{
    Connection, KeyspaceId, PartitionId, Request, RequestFrame, Response, ServerFrame, TcpDialer, Topology,
};
use trandb_cluster::{EncodedKey, Key};

/// How long a node may take over one try. A try that a dead leader swallowed must not count for longer than this; one
/// that a busy node works on must be let through.
const TRY_MS: u32 = 400;

/// Between two tries.
const TRY_GAP: Duration = Duration::from_millis(2);

/// After this a partition counts as never coming back.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A key of every data partition, named after `purpose`.
pub(crate) fn keys(topology: &Topology, purpose: &str) -> BTreeMap<PartitionId, String> {
    let mut wanted: Vec<PartitionId> = topology.partitions.iter().map(|(_, id, _)| *id).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let mut keys = BTreeMap::new();
    for number in 0_u64.. {
        if keys.len() == wanted.len() {
            break;
        }
        let key = format!("chaos/{purpose}/{number}");
        keys.entry(partition_of(topology, &key)).or_insert(key);
    }
    keys
}

fn partition_of(topology: &Topology, key: &str) -> PartitionId {
    let key = Key::new(Bytes::copy_from_slice(key.as_bytes())).expect("short and not empty");
    let token = EncodedKey::new(KeyspaceId::DEFAULT, &key).token();
    let after = topology.partitions.partition_point(|(start, _, _)| *start <= token);
    // Before the first start the ring wraps around to the last partition.
    let at = after.checked_sub(1).unwrap_or(topology.partitions.len() - 1);
    topology.partitions[at].1
}

/// A bare connection that has at most one request under way.
pub(crate) struct Line {
    connection: Connection,
    next_id: u64,
}

impl Line {
    /// Connects to a node.
    pub(crate) async fn open(addr: &str) -> Self {
        let connection = Connection::open(&TcpDialer, addr, "chaos", CONNECT_TIMEOUT)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        Self { connection, next_id: 0 }
    }

    /// One request and its answer.
    pub(crate) async fn ask(&mut self, deadline_ms: u32, body: Request) -> Result<Response, String> {
        self.next_id += 1;
        let frame = RequestFrame { id: self.next_id, deadline_ms, trace: None, body };
        self.connection.queue(&frame).map_err(|error| error.to_string())?;
        loop {
            match self.connection.receive().await.map_err(|error| error.to_string())? {
                ServerFrame::Response { id, result, .. } if id == self.next_id => {
                    return result.map_err(|error| error.to_string());
                }
                ServerFrame::Response { .. } => {}
                other => return Err(format!("{other:?}")),
            }
        }
    }
}

/// An unconditional write of a key.
pub(crate) fn put(key: &str, value: impl Into<Bytes>) -> Request {
    Request::Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: value.into(),
        condition: Default::default(),
        keyspace: None,
    }
}

/// A linearizable read of a key.
pub(crate) fn get(key: &str) -> Request {
    Request::Get { key: Bytes::copy_from_slice(key.as_bytes()), at: None, keyspace: None }
}

/// A connection per partition, opened before the fault.
pub(crate) struct Probe {
    lines: Vec<(PartitionId, String, Line)>,
}

impl Probe {
    /// Gets ready to write through the node at `addr`.
    pub(crate) async fn open(addr: &str, keys: &BTreeMap<PartitionId, String>) -> Self {
        let mut lines = Vec::new();
        for (id, key) in keys {
            lines.push((*id, key.clone(), Line::open(addr).await));
        }
        Self { lines }
    }

    /// Writes to every partition until each has taken one write; how long after `since` each did.
    pub(crate) async fn recover(self, since: Instant) -> BTreeMap<PartitionId, Duration> {
        let mut tasks = JoinSet::new();
        for (id, key, mut line) in self.lines {
            tasks.spawn(async move {
                let mut last = String::new();
                while since.elapsed() < PATIENCE {
                    match line.ask(TRY_MS, put(&key, "probe")).await {
                        Ok(_) => return (id, since.elapsed()),
                        Err(error) => last = error,
                    }
                    tokio::time::sleep(TRY_GAP).await;
                }
                panic!("{id} takes no writes for {PATIENCE:?}: {last}");
            });
        }
        tasks.join_all().await.into_iter().collect()
    }
}
