//! Power cuts: what a node under load does to its disk is recorded, the disk is rebuilt as it may look when the power
//! goes at some point of that, and a node is started on it. It must start, every write that was acknowledged before
//! must be there, and nothing that was never written.
//!
//! ```text
//! load ─▶ node ─▶ disk          recording: every change, and when it began and ended
//!   │ acknowledged: when           │ a cut: what was synced before it, and of the rest nothing, all, a
//!   ▼                              ▼ beginning, or any sectors
//! history ───────▶ judge ◀─ node on the rebuilt disk
//! ```
//!
//! It is recorded twice. *Inside*, a node of this process works through a disk door and a storage engine that write
//! down what they are asked for; what an engine may lose is what its port says ([`trandb_runtime::engine`]).
//! *Outside*, `strace` watches the system calls of a real process with its data directory, those of its storage engine
//! among them, once for each that there is;
//! where there is no `strace`, that is said and passed over.
//!
//! Whether the judge finds anything is tried with faults planted: a sync is left out, and must be missed.
//!
//! `cargo test` makes some fifty cuts of each; `just power-cuts` makes a thousand.
//!
//! | variable | means | default |
//! |---|---|---|
//! | `TRANDB_POWER_CUTS` | cuts of each recording | 50 |
//! | `TRANDB_POWER_CUT_MS` | for how long the load runs at the least | 2500 |
//! | `TRANDB_POWER_CUT_SEED` | what random choices follow from | drawn, and printed |
//!
//! # Caveats
//!
//! A write is torn at sectors of 512 bytes, which a disk writes wholly or not at all. Names (created, renamed,
//! removed) are lost one by one, as POSIX allows; file systems with a journal keep them in order.

// The runs are about a real machine; the doors of the simulation are not theirs.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "../harness/mod.rs"]
mod harness;

use harness::PATIENT as TIMING;

mod broken;
mod cuts;
mod door;
mod full;
mod image;
mod inside;
mod judge;
mod load;
mod outside;
mod recording;
mod settings;
mod strace;
