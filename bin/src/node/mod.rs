//! The frame of `trandb-node`: everything around the node itself.
//!
//! ```text
//!   flags ─▶ configuration ─▶ file descriptors ─▶ telemetry ─▶ runtime ─▶ start ─▶ "ready" line
//!                                                                          │
//!                       exit 0 ◀─ flush ◀─ shut down (drain) ◀─ signal ◀───┤
//!                       exit 130 ◀──── second signal ◀─────────┘           │
//!                       exit with the failure's code ◀─ the node ended ◀───┘
//! ```
//!
//! The node is given as a [`Service`], so that the frame's promises can be tested without one.

mod args;
mod conversion;
mod drive;
mod process;
mod repair;
mod run;
mod serve;

pub use args::Args;
pub use drive::{Addresses, Failure, Service};
pub use run::{Launch, run};
pub use serve::{Node, serve};
