//! Whole clusters in one deterministic process: real nodes, real clients, and a simulated network, clock and
//! disk under them. One seed decides everything; the same seed gives the same trace, byte for byte.
//!
//! ```text
//!   run ──▶ Plan (from the seed) ──▶ scenario ──orders──▶ Cluster: crash, power back on
//!                                       │                    │
//!                                       │ partition, heal    ├─ n1 n2 n3: Host = node + disk + engine
//!                                       ▼                    └─ c1 c2 c3: clients of all workloads, one per node
//!                                     History ──▶ checker ──▶ Outcome, with the Trace's hash
//! ```
//!
//! A scenario is one file in [`scenario`] and one line in its list; so is a fault, a workload or an invariant.
//!
//! Caveats. One simulation per process: entropy and clocks are pinned process-wide by `mad-turmoil`, and
//! `ractor` keeps its names and ids per process. The simulated TCP does not retransmit, so a partition breaks
//! the streams that were in use, and whoever survives it shows that links are cut and dialed anew. Threads, the
//! kernel's TCP and real disks are not simulated; tests with real processes cover them.

pub mod clock;
pub mod cluster;
pub mod coverage;
pub mod entries;
pub mod fault;
pub mod history;
pub mod host;
pub mod hunt;
pub mod invariant;
pub mod listen;
pub mod liveness;
pub mod net;
pub mod observe;
pub mod park;
pub mod plan;
pub mod run;
pub mod scenario;
pub mod settings;
pub mod sweep;
pub mod trace;
pub mod watchdog;
pub mod weather;
pub mod workload;
