//! What of a node runs by itself, and so has to be ended, however far its start has come.

use super::root::{self, RootMessage};
use crate::wal::WalMessage;
use ractor::ActorRef;
use tokio::task::JoinHandle;
use trandb_runtime::engine::Worker;
use trandb_runtime::peer::PeerHub;

/// A node's running parts.
pub(super) struct Parts {
    pub(super) hub: PeerHub,
    pub(super) engine: Worker,
    /// Ended by the root, once there is one.
    pub(super) wal: Option<ActorRef<WalMessage>>,
    pub(super) root: Option<ActorRef<RootMessage>>,
    pub(super) chores: Vec<JoinHandle<()>>,
}

impl Parts {
    /// A node begins with these.
    pub(super) fn new(hub: PeerHub, engine: Worker) -> Self {
        Self { hub, engine, wal: None, root: None, chores: Vec::new() }
    }

    /// Ends them, the log after those that write to it.
    pub(super) async fn end(self) {
        for chore in &self.chores {
            chore.abort();
        }
        if let Some(root) = self.root {
            root::stop(root).await;
        } else if let Some(wal) = self.wal {
            root::stop_wal(wal).await;
        }
        self.hub.shutdown().await;
        // Whoever still holds the context must not keep the engine's files from the next to open them.
        self.engine.stop().await;
    }
}
