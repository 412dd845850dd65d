//! What can be wrong with a configuration. Each message names the key and where it was set.

use super::rules::Violation;
use std::io;
use std::path::PathBuf;

/// Exit code of a program that refuses its configuration (sysexits `EX_CONFIG`).
pub const EX_CONFIG: u8 = 78;

/// A configuration that a node does not start with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file, or a secret's file, cannot be read.
    #[error("cannot read {what} {path}: {error}", path = path.display())]
    Unreadable {
        /// `configuration file` or `secret file`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The file is no TOML, has an unknown key, or a value that cannot be.
    #[error("{file}:{line}: {key}{separator}{message}", separator = if key.is_empty() { "" } else { ": " })]
    File {
        /// The file.
        file: String,
        /// Line, from 1 on.
        line: usize,
        /// The dotted key; empty when the text is no TOML.
        key: String,
        /// What is wrong.
        message: String,
    },
    /// A variable or flag names no key, or its value cannot be.
    #[error("{origin}: {key}: {message}")]
    Setting {
        /// The variable or flag.
        origin: String,
        /// The dotted key.
        key: String,
        /// What is wrong.
        message: String,
    },
    /// A rule between values is broken.
    #[error(transparent)]
    Violation(#[from] Violation),
}
