//! Shared by the two programs.

pub mod build;
pub mod node;
