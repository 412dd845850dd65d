//! What the environment sets about a run.

use std::path::PathBuf;
use std::str::FromStr;

/// A number from the environment.
///
/// # Panics
/// When it is set and is none: a run with other bounds than those asked for would mislead.
pub(crate) fn number<T: FromStr>(variable: &str, default: T) -> T {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}: {text:?} is no number in range")),
        Err(_) => default,
    }
}

/// What all random choices of this run follow from.
pub(crate) fn seed() -> u64 {
    let seed = number("TRANDB_CHAOS_SEED", rand::random());
    println!("TRANDB_CHAOS_SEED={seed}");
    seed
}

/// How many clients write at the same time.
pub(crate) fn clients() -> usize {
    number("TRANDB_CHAOS_CLIENTS", 64)
}

/// How long steady load is measured.
pub(crate) fn seconds() -> u64 {
    number("TRANDB_CHAOS_SECONDS", 20)
}

/// Whether a figure over its limit is only printed.
pub(crate) fn is_lenient() -> bool {
    std::env::var_os("TRANDB_CHAOS_LENIENT").is_some_and(|value| !value.is_empty())
}

/// Where the programs come from, for the heading of a run.
pub(crate) fn programs() -> PathBuf {
    match std::env::var_os("TRANDB_BIN_DIR") {
        Some(directory) => PathBuf::from(directory).join("trandb-node"),
        None => PathBuf::from(env!("CARGO_BIN_EXE_trandb-node")),
    }
}
