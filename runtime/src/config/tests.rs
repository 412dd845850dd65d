use super::*;
use std::collections::BTreeMap;
use std::path::PathBuf;

fn text_of(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../config").join(name);
    std::fs::read_to_string(&path).expect("the annotated files are part of the repository")
}

fn sources(
    file: Option<&str>,
    environment: &[(&str, &str)],
    flags: &[(&str, &str, &str)],
) -> (Sources, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = file.map(|text| {
        let path = dir.path().join("node.toml");
        std::fs::write(&path, text).expect("writable");
        path
    });
    let environment = environment
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect::<BTreeMap<_, _>>();
    let flags = flags.iter().map(|(origin, key, value)| Setting::new(*origin, *key, *value)).collect();
    (Sources { file, environment, port_base: None, flags }, dir)
}

fn load(
    file: Option<&str>,
    environment: &[(&str, &str)],
    flags: &[(&str, &str, &str)],
) -> Result<Config, String> {
    let (sources, _dir) = sources(file, environment, flags);
    Config::load(&sources).map_err(|error| error.to_string())
}

#[test]
fn the_annotated_file_names_every_key_with_its_default() {
    let text = text_of("node.toml");
    let written: toml::Table = toml::from_str(&text).expect("the annotated file is TOML");
    let defaults = toml::Table::try_from(Config::default()).expect("plain data");
    assert_eq!(written, defaults);
    assert_eq!(Config::from_toml(&text, "node.toml").expect("valid"), Config::default());
}

#[test]
fn three_local_nodes_differ_only_in_ports_and_directory() {
    let [one, two, three] = [1, 2, 3].map(|node| {
        let name = format!("local-{node}.toml");
        Config::from_toml(&text_of(&name), &name).expect("valid")
    });
    assert_eq!(one.node.seeds, vec![one.peer.addr.clone(), two.peer.addr.clone(), three.peer.addr.clone()]);
    assert_eq!(two.node.seeds, one.node.seeds);
    assert_eq!(three.node.seeds, one.node.seeds);
    assert_eq!((two.native.addr.as_str(), three.http.addr.as_str()), ("127.0.0.1:7410", "127.0.0.1:7422"));
    assert_ne!(two.node.data_dir, three.node.data_dir);
}

#[test]
fn flags_beat_environment_beats_file_beats_default() {
    let file =
        "[http]\naddr = \"127.0.0.1:1\"\n[native]\naddr = \"127.0.0.1:2\"\n[peer]\naddr = \"127.0.0.1:3\"\n";
    let env = [("TRANDB_HTTP__ADDR", "127.0.0.1:11"), ("TRANDB_NATIVE__ADDR", "127.0.0.1:12")];
    let flags = [("--http", "http.addr", "127.0.0.1:21")];
    let config = load(Some(file), &env, &flags).expect("valid");
    assert_eq!(config.http.addr, "127.0.0.1:21");
    assert_eq!(config.native.addr, "127.0.0.1:12");
    assert_eq!(config.peer.addr, "127.0.0.1:3");
    assert_eq!(config.node.partitions, 16);
}

#[test]
fn text_becomes_the_kind_of_value_that_the_key_has() {
    let env = [
        ("TRANDB_NODE__SEEDS", "a:7401, b:7401,c:7401"),
        ("TRANDB_NODE__EPHEMERAL", "1"),
        ("TRANDB_NODE__LOG_FORMAT", "json"),
        ("TRANDB_RAFT__HEARTBEAT_MS", "50"),
    ];
    let config = load(None, &env, &[]).expect("valid");
    assert_eq!(config.node.seeds, ["a:7401", "b:7401", "c:7401"]);
    assert!(config.node.ephemeral);
    assert_eq!(config.node.log_format, LogFormat::Json);
    assert_eq!(config.raft.heartbeat_ms, 50);
}

#[test]
fn the_port_base_moves_ports_and_keeps_hosts() {
    let (mut from, _dir) = sources(
        Some("[native]\naddr = \"[::1]:9\"\n"),
        &[("TRANDB_HTTP__ADDR", "localhost:9")],
        &[("--peer", "peer.addr", "127.0.0.1:5")],
    );
    from.port_base = Some(7410);
    let config = Config::load(&from).expect("valid");
    assert_eq!(config.native.addr, "[::1]:7410");
    assert_eq!(config.peer.addr, "127.0.0.1:5");
    assert_eq!(config.http.addr, "localhost:7412");
    from.port_base = Some(0);
    assert_eq!(Config::load(&from).expect("valid").native.addr, "[::1]:0");
    from.port_base = Some(65535);
    assert_eq!(
        Config::load(&from).expect_err("too far").to_string(),
        "--port-base: peer.addr: 65535 + 1 is no port"
    );
}

#[test]
fn errors_in_a_file_name_key_and_line() {
    let cases = [
        ("[raft]\n\nheartbeat_sm = 3\n", ":3: raft.heartbeat_sm: unknown field `heartbeat_sm`"),
        ("[raft]\nheartbeat_ms = 5\n[rafd]\nx = 1\n", ":3: rafd: unknown field `rafd`"),
        ("\nraft.heartbeat_ms = \"fast\"\n", ":2: raft.heartbeat_ms: invalid type: string \"fast\""),
        ("[node]\npartitions = -1\n", ":2: node.partitions: invalid value: integer `-1`"),
        ("[node]\nlog_format = \"pretty\"\n", ":2: node.log_format: unknown variant `pretty`"),
        ("[node]\nseeds = [\n  \"a:1\",\n  7,\n]\n", ":4: node.seeds: invalid type: integer `7`"),
        ("node = 3\n", ":1: node: invalid type: integer `3`"),
        ("[node]\npartitions = = 3\n", ":2: "),
        ("[node]\npartitions = 3\npartitions = 4\n", ":3: "),
    ];
    for (text, expected) in cases {
        let error = load(Some(text), &[], &[]).expect_err(text);
        assert!(error.contains(&format!("node.toml{expected}")), "{text:?} gave {error}");
    }
}

#[test]
fn errors_in_variables_and_flags_name_where_they_were_set() {
    let cases = [
        (("TRANDB_HTTP__PORT", "1"), "TRANDB_HTTP__PORT: http.port: there is no such key"),
        (
            ("TRANDB_NODE__PARTITIONS", "many"),
            "TRANDB_NODE__PARTITIONS: node.partitions: \"many\" is no whole number",
        ),
        (
            ("TRANDB_NODE__EPHEMERAL", "maybe"),
            "TRANDB_NODE__EPHEMERAL: node.ephemeral: \"maybe\" is neither true nor false",
        ),
    ];
    for (variable, expected) in cases {
        assert_eq!(load(None, &[variable], &[]).expect_err(expected), expected);
    }
    let error = load(None, &[], &[("--partitions", "node.partitions", "-3")]).expect_err("negative");
    assert!(error.starts_with("--partitions: node.partitions: invalid value: integer `-3`"), "{error}");
    // Command line tools and container platforms have variables of their own under our prefix.
    load(None, &[("TRANDB_ADDR", "x"), ("TRANDB_PORT_7400_TCP", "tcp://10.0.0.1")], &[]).expect("skipped");
}

#[test]
fn every_rule_is_checked_and_says_what_it_wants() {
    let cases = [
        ("node.partitions=0", "node.partitions is 0, it must be from 1 to 1024"),
        ("node.partitions=1025", "node.partitions is 1025, it must be from 1 to 1024"),
        ("node.replication=9", "node.replication is 9, it must be from 1 to 7"),
        ("node.replication=2", "node.replication is 2, it must be odd"),
        ("node.data_dir=", "node.data_dir is empty"),
        (
            "raft.heartbeat_ms=251",
            "raft.heartbeat_ms is 251, it must be at most half of raft.election_min_ms, 500",
        ),
        (
            "raft.election_max_ms=500",
            "raft.election_min_ms is 500, it must be below raft.election_max_ms, 500",
        ),
        (
            "storage.wal_segment_bytes=300000000",
            "storage.checkpoint_log_bytes is 268435456, it must be at least storage.wal_segment_bytes, 300000000",
        ),
        (
            "storage.wal_segment_bytes=1024",
            "storage.wal_segment_bytes is 1024, it must be from 16777216 to 1073741824",
        ),
        ("storage.history_ms=0", "storage.history_ms is 0, it must be from 1000 to 31622400000"),
        ("peer.bytes_in_flight=1", "peer.bytes_in_flight is 1, it must be from 4259840 to 1099511627776"),
        ("memory.limit=1MiB", "memory.limit is 1048576, it must be from 134217728 to 1099511627776"),
        ("limits.connections=0", "limits.connections is 0, it must be from 1 to 1048576"),
        ("limits.request_timeout_ms=0", "limits.request_timeout_ms is 0, it must be from 1 to 60000"),
        ("http.addr=7402", "http.addr: \"7402\" is not host:port"),
        ("http.addr=127.0.0.1:99999", "http.addr: \"127.0.0.1:99999\" is not host:port"),
        ("http.addr=127.0.0.1:7400", "native.addr and http.addr are both 127.0.0.1:7400"),
        (
            "http.addr=10.0.0.1:7402",
            "http.addr is 10.0.0.1:7402, which others can reach, and nobody is authenticated there: bind it to loopback, or allow it with --insecure",
        ),
        (
            "native.addr=db.example.org:7400",
            "native.addr is db.example.org:7400, which others can reach, and nobody is authenticated there: bind it to loopback, or allow it with --insecure",
        ),
        (
            "peer.addr=10.0.0.1:7401",
            "peer.addr is 10.0.0.1:7401, which others can reach, and nobody is authenticated there: set peer.secret (--peer-secret-file), or allow it with --insecure",
        ),
        ("resp.addr=127.0.0.1:7403", "resp.addr is 127.0.0.1:7403: the Redis protocol is not built yet"),
        ("node.advertise=host:7400", "node.advertise: \"host:7400\" is not a host without a port"),
        (
            "node.insecure=true http.addr=0.0.0.0:7402",
            "http.addr is 0.0.0.0:7402: node.advertise (--advertise) must say under which host others reach this node",
        ),
        ("node.seeds=a:7401,b:7401,a:7401", "node.seeds names a:7401 twice"),
        ("node.seeds=a", "node.seeds: \"a\" is not host:port"),
        ("node.seeds=a:0", "node.seeds: \"a:0\" is not host:port"),
    ];
    for (settings, expected) in cases {
        let flags: Vec<_> =
            settings.split(' ').map(|setting| setting.split_once('=').expect("key=value")).collect();
        let flags: Vec<_> = flags.iter().map(|(key, value)| ("--flag", *key, *value)).collect();
        assert_eq!(load(None, &[], &flags).expect_err(settings), expected);
    }
    let seeds: Vec<String> = (0..65).map(|node| format!("n{node}:7401")).collect();
    let error = load(None, &[], &[("--seeds", "node.seeds", &seeds.join(","))]).expect_err("too many");
    assert_eq!(error, "node.seeds names 65 nodes, a cluster has at most 64");
}

#[test]
fn others_are_served_when_allowed() {
    let peer = ("--peer", "peer.addr", "10.0.0.1:7401");
    load(None, &[], &[peer, ("--peer-secret", "peer.secret", "s")]).expect("peers prove the secret");
    let http = ("--http", "http.addr", "[2001:db8::1]:7402");
    load(None, &[], &[peer, http, ("--insecure", "node.insecure", "true")]).expect("asked for");
    let any = ("--http", "http.addr", "0.0.0.0:7402");
    let flags =
        [any, ("--insecure", "node.insecure", "true"), ("--advertise", "node.advertise", "db1.example.org")];
    let config = load(None, &[], &flags).expect("reachable");
    assert_eq!(config.advertised("0.0.0.0:7402"), "db1.example.org:7402");
    assert_eq!(Config::default().advertised("127.0.0.1:7402"), "127.0.0.1:7402");
}

#[test]
fn secrets_come_from_files_and_never_show() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("secret");
    std::fs::write(&path, "hush\n").expect("writable");
    let path = path.to_str().expect("text");
    let by_file = ("TRANDB_PEER__SECRET_FILE", path);
    let config = load(Some("[peer]\nsecret = \"old\"\n"), &[by_file], &[]).expect("the stronger layer wins");
    assert_eq!(config.peer.secret.expose(), "hush");
    assert!(!format!("{config:?}").contains("hush"));
    assert!(config.to_toml().contains("secret = \"(hidden)\""), "{}", config.to_toml());

    let config = load(None, &[by_file], &[("--peer-secret", "peer.secret", "new")]).expect("the flag wins");
    assert_eq!(config.peer.secret.expose(), "new");

    let both = format!("[peer]\nsecret = \"a\"\nsecret_file = \"{path}\"\n");
    let error = load(Some(&both), &[], &[]).expect_err("ambiguous");
    assert_eq!(error, format!("peer.secret and peer.secret_file ({path}) are both set"));

    let error = load(None, &[("TRANDB_PEER__SECRET_FILE", "/nowhere/at/all")], &[]).expect_err("absent");
    assert!(error.starts_with("cannot read secret file /nowhere/at/all: "), "{error}");
    std::fs::write(path, "\n").expect("writable");
    let error = load(None, &[by_file], &[]).expect_err("empty");
    assert_eq!(error, format!("peer.secret_file: {path} is empty"));
}
