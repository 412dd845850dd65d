//! The shape of the command line.

use super::{bench, check, cluster, config, data, local, repl, soak, txn};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Talk to a TranDB cluster: keys, cluster state, benchmarks, a local cluster to try.
///
/// Without a command, on a terminal, it starts the REPL.
#[derive(Parser)]
#[command(name = "trandb", version = trandb::build::LONG_VERSION)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Options of every command.
#[derive(Args, Clone)]
pub(crate) struct Global {
    /// Native address of one or more nodes, with commas between them.
    #[arg(long, global = true, env = "TRANDB_ADDR", default_value = "127.0.0.1:7400")]
    pub(crate) addr: String,
    /// How results are printed.
    #[arg(long, short, global = true, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Do not ask before destructive commands.
    #[arg(long, short, global = true)]
    pub(crate) yes: bool,
    /// How long a request may take, retries included: 500ms, 2s, 1m.
    #[arg(long = "timeout", global = true, default_value = "10s", value_name = "TIME",
          value_parser = super::parse_duration_ms)]
    pub(crate) timeout_ms: u64,
    /// The keyspace; `default` unless named.
    #[arg(long, global = true)]
    pub(crate) keyspace: Option<String>,
    /// Results are lines among others, as in the REPL: each ends with a line break, values too.
    #[arg(skip)]
    pub(crate) in_lines: bool,
}

/// How results are printed.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For spreadsheets.
    Csv,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Online(Online),
    /// Start a cluster on this machine and stop it with ctrl-c.
    Local(local::Args),
    /// Judge a recorded history of transactions; exit 1 if no database that keeps its promise could have had it.
    Check(check::Args),
    /// Start a cluster on this machine, kill and pause its nodes while clients work, and judge what they were told.
    Soak(soak::Args),
    /// Measure throughput and latency.
    Bench(bench::Args),
    /// An interactive prompt with history.
    Repl(repl::Args),
    /// Look at the configuration that a node would start with.
    #[command(subcommand)]
    Config(Box<config::Command>),
    /// Print shell completions.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, in roff.
    Man,
}

/// Commands that talk to a cluster.
#[derive(Subcommand)]
pub(crate) enum Online {
    /// Print a key's value.
    Get(data::Get),
    /// Set a key; prints the new version.
    Put(data::Put),
    /// Remove a key; an absent one is fine, too.
    #[command(alias = "delete")]
    Del(data::Del),
    /// Print the version of a key's value; exit 1 if it has none.
    Exists(data::Exists),
    /// Print keys and values in key order.
    Scan(data::Scan),
    /// Look at transactions; the REPL runs them.
    #[command(subcommand)]
    Txn(txn::Command),
    /// Look at the cluster.
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Have every replica write a checkpoint now, so that a restart has little to replay; exit 1 if one does not.
    Checkpoint,
    /// Whether every partition has a leader; exit 69 if not.
    Health,
}
