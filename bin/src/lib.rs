//! Shared by the two programs, and by what tests them.

pub mod build;
pub mod network;
pub mod node;
