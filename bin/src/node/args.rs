//! Flags of `trandb-node`. They name configuration keys; their values are judged there.

use crate::build::LONG_VERSION;
use clap::Parser;
use std::path::PathBuf;
use trandb_runtime::config::{Setting, Sources};

/// A node of TranDB, a distributed, durable, transactional key-value database.
///
/// Without flags: a durable database of one node in ./trandb-data, on this machine's loopback only.
#[derive(Debug, Default, Parser)]
#[command(name = "trandb-node", version = LONG_VERSION, after_help = AFTER_HELP)]
pub struct Args {
    /// Configuration file (TOML); config/node.toml lists every key
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of log, checkpoints and identity [default: trandb-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Peer addresses of the first members, this node among them
    #[arg(long, value_name = "A,B,C")]
    seeds: Option<String>,
    /// Address of the native protocol [default: 127.0.0.1:7400]
    #[arg(long, value_name = "ADDR")]
    native: Option<String>,
    /// Address for other nodes [default: 127.0.0.1:7401]
    #[arg(long, value_name = "ADDR")]
    peer: Option<String>,
    /// Address of HTTP: data, admin, metrics [default: 127.0.0.1:7402]
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Address of the Redis protocol (not built yet)
    #[arg(long, value_name = "ADDR")]
    resp: Option<String>,
    /// First port: native N, peer N+1, HTTP N+2; 0 takes free ones
    #[arg(long, value_name = "N")]
    port_base: Option<u16>,
    /// Host under which others reach this node [default: the hosts bound to]
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// Keep everything in memory
    #[arg(long)]
    ephemeral: bool,
    /// Data partitions, when this starts a new cluster [default: 16]
    #[arg(long, value_name = "N")]
    partitions: Option<String>,
    /// Replicas of each partition [default: 3]
    #[arg(long, value_name = "N")]
    replication: Option<String>,
    /// What the process may use: 512MiB, 2GiB, or a share of what the machine has [default: 70%]
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<String>,
    /// Secret that the nodes of a cluster share; others on this machine can see it, prefer the file
    #[arg(long, value_name = "SECRET", conflicts_with = "peer_secret_file")]
    peer_secret: Option<String>,
    /// File that holds the secret
    #[arg(long, value_name = "FILE")]
    peer_secret_file: Option<String>,
    /// auto, human or json [default: auto]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Where log or checkpoints are found damaged, put them aside and rebuild this node's replicas from the other nodes:
    /// it is taken in by the seeds' cluster as a new node in place of the old one
    #[arg(long)]
    repair: bool,
    /// Serve addresses beyond this machine although nobody is authenticated
    #[arg(long)]
    insecure: bool,
}

const AFTER_HELP: &str = "Every configuration key can also be set in the environment: \
TRANDB_HTTP__ADDR is http.addr. Flags win over the environment, the environment over the file. \
RUST_LOG sets what is logged, the OTEL_ variables where traces go.";

impl Args {
    /// Whether damaged data is to be rebuilt. No setting, since nobody should ask for it once and for all.
    pub fn repair(&self) -> bool {
        self.repair
    }

    /// Where the configuration comes from, by these flags and the process's environment.
    pub fn sources(self) -> Sources {
        let texts = [
            ("--data-dir", "node.data_dir", self.data_dir),
            ("--seeds", "node.seeds", self.seeds),
            ("--native", "native.addr", self.native),
            ("--peer", "peer.addr", self.peer),
            ("--http", "http.addr", self.http),
            ("--resp", "resp.addr", self.resp),
            ("--advertise", "node.advertise", self.advertise),
            ("--partitions", "node.partitions", self.partitions),
            ("--replication", "node.replication", self.replication),
            ("--memory-limit", "memory.limit", self.memory_limit),
            ("--peer-secret", "peer.secret", self.peer_secret),
            ("--peer-secret-file", "peer.secret_file", self.peer_secret_file),
            ("--log-format", "node.log_format", self.log_format),
        ];
        let switches = [
            ("--ephemeral", "node.ephemeral", self.ephemeral),
            ("--insecure", "node.insecure", self.insecure),
        ];
        let texts = texts.into_iter().filter_map(|(flag, key, value)| Some(Setting::new(flag, key, value?)));
        let switches = switches
            .into_iter()
            .filter(|(_, _, on)| *on)
            .map(|(flag, key, _)| Setting::new(flag, key, "true"));
        Sources {
            file: self.config,
            port_base: self.port_base,
            flags: texts.chain(switches).collect(),
            ..Sources::default()
        }
        .with_process_environment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use trandb_runtime::config::{Config, MemorySize};

    fn config(line: &str) -> Result<Config, String> {
        let mut sources = Args::try_parse_from(line.split(' ')).expect("valid flags").sources();
        sources.environment.clear();
        Config::load(&sources).map_err(|error| error.to_string())
    }

    #[test]
    fn every_flag_reaches_its_key() {
        Args::command().debug_assert();
        let line = "trandb-node --data-dir d --seeds a:1,b:1 --port-base 7410 --http 127.0.0.1:9 --ephemeral \
                    --partitions 4 --replication 1 --peer-secret s --advertise h --log-format json --insecure --memory-limit 2GiB";
        let config = config(line).expect("valid");
        assert_eq!(config.node.data_dir.to_str(), Some("d"));
        assert_eq!(config.node.seeds, ["a:1", "b:1"]);
        assert_eq!(config.native.addr, "127.0.0.1:7410");
        assert_eq!(config.peer.addr, "127.0.0.1:7411");
        assert_eq!(config.http.addr, "127.0.0.1:9");
        assert!(config.node.ephemeral && config.node.insecure);
        assert_eq!((config.node.partitions, config.node.replication), (4, 1));
        assert_eq!(config.peer.secret.expose(), "s");
        assert_eq!(config.node.advertise, "h");
        assert_eq!(config.memory.limit, MemorySize::Bytes(2 << 30));
    }

    #[test]
    fn what_cannot_be_is_refused_by_flag_name() {
        assert_eq!(
            config("trandb-node --partitions many").expect_err("no number"),
            "--partitions: node.partitions: \"many\" is no whole number"
        );
        assert_eq!(
            config("trandb-node --resp 127.0.0.1:7403").expect_err("not built"),
            "resp.addr is 127.0.0.1:7403: the Redis protocol is not built yet"
        );
        assert_eq!(
            config("trandb-node --memory-limit 1MiB").expect_err("too little"),
            "memory.limit is 1048576, it must be from 134217728 to 1099511627776"
        );
        let error = config("trandb-node --memory-limit 7parts").expect_err("no size");
        assert!(error.starts_with("--memory-limit: memory.limit: \"7parts\" is neither a size"), "{error}");
        let both = ["trandb-node", "--peer-secret", "a", "--peer-secret-file", "b"];
        assert!(Args::try_parse_from(both).is_err());
    }
}
