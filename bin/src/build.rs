//! Which build this is.

/// The version of the workspace.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, or `unknown` outside a repository.
pub const COMMIT: &str = env!("TRANDB_COMMIT");

/// Version and commit, as `--version` shows them.
pub const LONG_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("TRANDB_COMMIT"), ")");
