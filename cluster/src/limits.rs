//! Every limit that clients or peers can run into: a name, a value, a reason, and what happens there.

/// Longest key in bytes of UTF-8. Keys stay in memory and travel in every message; at the limit:
/// `invalid`.
pub const KEY_BYTES_MAX: usize = 1024;

/// Largest value in bytes. One value must fit a log record and be copied without a noticeable pause; at
/// the limit: `too_large`.
pub const VALUE_BYTES_MAX: usize = 4 << 20;

/// Longest keyspace name in bytes; at the limit: `invalid`.
pub const KEYSPACE_BYTES_MAX: usize = 64;

/// Largest client frame in bytes, both ways: the largest value and room for its key and envelope. At the
/// limit: the connection is refused with the reason and closed, since nothing after it can be trusted.
pub const CLIENT_FRAME_BYTES_MAX: usize = VALUE_BYTES_MAX + (64 << 10);

/// Entries that a scan page holds at the most, however many were asked for.
pub const SCAN_PAGE_ENTRIES_MAX: usize = 10_000;

/// Entries in a scan page when the caller names no limit.
pub const SCAN_PAGE_ENTRIES_DEFAULT: usize = 100;

/// Bytes of keys and values after which a scan page ends, though it always holds one entry; below the
/// frame limit together with one largest value's overshoot being cut.
pub const SCAN_PAGE_BYTES_MAX: usize = 1 << 20;

/// Bytes that the results of a client's batch may take, by their [`weight`](crate::txn::TxnResponse::weight): what is
/// around them still fits a frame. At the limit: `too_large`, and nothing of the batch is done.
pub const TXN_BATCH_RESULT_BYTES_MAX: usize = CLIENT_FRAME_BYTES_MAX - 1024;

/// Writes in one replicated batch: bounds the time that one apply step may take.
pub const BATCH_WRITES_MAX: usize = 1024;

/// Bytes in one replicated batch after which it is closed, though it always holds one write.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// Nodes of one cluster. Every node keeps a link to every other.
pub const NODES_MAX: usize = 64;

/// Data partitions of one cluster. Each costs every replica a Raft group of about 240 KiB.
pub const PARTITIONS_MAX: u32 = 1024;

/// Voters of one group: beyond this, quorums cost more than they protect.
pub const REPLICATION_MAX: usize = 7;

/// Operations of one transaction: each is remembered until it ends. At the limit: `too_large`.
pub const TXN_OPS_MAX: usize = 10_000;

/// Bytes of keys and values that one transaction writes and, apart from these, of keys and ranges that it has
/// read: its coordinator and then its partitions hold them in memory. At the limit: `too_large`.
pub const TXN_BYTES_MAX: usize = 64 << 20;

/// How long after its begin a transaction may commit, in milliseconds: no longer than history is kept by default.
/// Later: `conflict`.
pub const TXN_LIFE_MS_MAX: u64 = 3_600_000;

/// How long a transaction that is being committed may hold keys without a word from its coordinator, in milliseconds.
/// Then whoever meets it has it aborted.
pub const TXN_LEASE_MS: u64 = 3_000;

/// Outcomes of transactions that a partition keeps, about 250 bytes each. Beyond it the oldest go that are older than
/// [`TXN_OUTCOME_MS_MIN`]; asked for, their outcome is `unknown`.
pub const TXN_OUTCOMES_MAX: usize = 65_536;

/// How long an outcome is kept however many there are, in milliseconds: longer than a coordinator tries to learn it.
pub const TXN_OUTCOME_MS_MIN: u64 = 60_000;

/// How long the name of a batch is good for, in milliseconds: together with the time for which a commit is pursued it
/// ends before the outcome of an earlier run under the same name may be forgotten, with some seconds to spare for nodes
/// that only reckon what time it is. Later: `conflict`.
pub const TXN_NAME_MS_MAX: u64 = TXN_OUTCOME_MS_MIN * 2 / 5;

/// Names of batches that are given out at once; more are cut to it. A millisecond has 262,144 timestamps.
pub const TXN_NAMES_MAX: u32 = 1024;

/// How long outcomes are kept at the most, in milliseconds.
pub const TXN_OUTCOME_MS_MAX: u64 = 86_400_000;
