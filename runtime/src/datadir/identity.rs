//! Who a node is.

use super::{DataDirError, IDENTITY, read_control_file, replace};
use serde::{Deserialize, Serialize};
use std::path::Path;
use trandb_cluster::{ClusterId, InstanceId, NodeId};

/// What a node must remember of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// This directory, as opposed to one that was there before it.
    pub instance: InstanceId,
    /// The node's number in its cluster, once it has one.
    pub node: Option<NodeId>,
    /// The cluster, once the node belongs to one.
    pub cluster: Option<ClusterId>,
    /// The cluster that a node with nothing but this has to be taken in by, since the directory was a member's whose data
    /// was [put aside](super::DataDir::put_aside): it must not found another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejoins: Option<ClusterId>,
    /// The longest time for which the node may have promised leaders to vote for nobody else, in milliseconds: that of its
    /// settings, or of earlier ones until it was stopped in order.
    #[serde(default)]
    pub lease_ms: u64,
}

impl Identity {
    /// A directory that belongs to no node yet.
    pub fn fresh(instance: InstanceId) -> Self {
        Self { instance, node: None, cluster: None, rejoins: None, lease_ms: 0 }
    }

    pub(super) fn read(path: &Path) -> Result<Self, DataDirError> {
        let corrupt = |what: String| DataDirError::corrupt(path.join(IDENTITY), what);
        let text = read_control_file(path, IDENTITY)?.ok_or_else(|| corrupt("it is missing".into()))?;
        serde_json::from_str(&text).map_err(|error| corrupt(error.to_string()))
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), DataDirError> {
        let mut text = serde_json::to_string_pretty(self).expect("plain fields always serialize");
        text.push('\n');
        replace(path, IDENTITY, text.as_bytes()).map_err(|source| DataDirError::io(path, source))
    }
}
