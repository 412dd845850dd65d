//! Configuration: plain data with one set of defaults, laid over each other in a fixed order.
//!
//! ```text
//!   default  <  --config FILE  <  TRANDB_<SECTION>__<KEY>  <  --port-base  <  flags
//! ```
//!
//! [`Config::load`] merges the layers, reads secrets that are named as files, and checks every rule. A key
//! that does not exist and a value that cannot be are errors which name the key and where it came from: the
//! line of the file, the variable, or the flag. `config/node.toml` lists every key with its default; a test
//! holds the two equal.
//!
//! **Caveats.** Nothing is reloaded while a node runs. Variables without a double underscore are not ours:
//! the command line tools and container platforms use names such as `TRANDB_ADDR` and `TRANDB_PORT`.

mod error;
mod layers;
mod rules;
mod secret;
mod sections;
mod size;
#[cfg(test)]
mod tests;

pub use error::{ConfigError, EX_CONFIG};
pub use layers::{Setting, Sources};
pub use rules::Violation;
pub use secret::Secret;
pub use sections::{
    Config, EngineChoice, EngineKind, HttpConfig, LimitsConfig, LogFormat, MemoryConfig, NativeConfig,
    NodeConfig, PeerConfig, RaftConfig, RespConfig, ShutdownConfig, StorageConfig,
};
pub use size::MemorySize;
