//! The `trandb` program as scripts see it, without a cluster: exit codes, what goes where, and what a peer that speaks
//! no protocol of ours does to it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

/// The program with nothing of this machine's settings.
fn trandb(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trandb"));
    command.args(args).env_remove("TRANDB_ADDR").env_remove("TRANDB_HISTORY").stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> (i32, String, String) {
    result(trandb(args).output().expect("the program runs"))
}

fn result(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("prints text");
    (output.status.code().expect("ends by itself"), text(output.stdout), text(output.stderr))
}

/// An address where nothing listens: a port that only the system's administrator can take, and nobody does.
const NOWHERE: &str = "127.0.0.1:1";

#[test]
fn it_says_what_it_is() {
    let (code, out, err) = run(&["--version"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with(concat!("trandb ", env!("CARGO_PKG_VERSION"), " (")), "{out}");
    for (args, wanted) in [(vec!["completions", "bash"], "_trandb"), (vec!["man"], ".TH trandb")] {
        let (code, out, _) = run(&args);
        assert_eq!(code, 0);
        assert!(out.contains(wanted), "{args:?}");
    }
}

#[test]
fn a_wrong_command_line_exits_2() {
    for args in [
        vec!["frobnicate"],
        vec!["get"],
        vec!["put", "k", "v", "--if-absent", "--if-version", "1"],
        vec!["get", "k", "--timeout", "soon"],
        vec!["bench", "--mix", "get:0"],
        vec![],
    ] {
        let (code, _, _) = run(&args);
        assert_eq!(code, 2, "{args:?}");
    }
}

#[test]
fn nobody_there_exits_69_with_a_message_and_no_data() {
    for command in ["get k", "put k v", "scan", "cluster status", "health", "bench -s 1"] {
        let mut args: Vec<_> = command.split(' ').collect();
        args.extend(["--addr", NOWHERE]);
        let (code, out, err) = run(&args);
        assert_eq!((code, out.as_str()), (69, ""), "{command}: {err}");
        assert!(err.starts_with("trandb: unavailable: connection to 127.0.0.1:"), "{command}: {err}");
    }
}

#[test]
fn a_peer_of_another_protocol_exits_69_and_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let addr = listener.local_addr().expect("is bound").to_string();
    let program = trandb(&["get", "k", "--addr", &addr])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let (mut stream, _) = listener.accept().expect("the program connects");
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("is read");
    // Held open until the other side has had enough.
    let _ = stream.read_to_end(&mut Vec::new());
    let (code, _, err) = result(program.wait_with_output().expect("the program ends"));
    assert_eq!(code, 69, "{err}");
    assert!(err.contains("does not speak the protocol"), "{err}");
}

#[test]
fn configuration_is_checked_and_shown_as_the_node_would_take_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("node.toml");
    std::fs::write(&file, "[http]\naddr = \"127.0.0.1:9999\"\n").expect("is written");
    let file = file.to_str().expect("is text");
    let (code, out, err) = run(&["config", "check", "--config", file]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", "the configuration is valid\n"));
    let (_, out, _) = run(&["config", "show", "--config", file, "--peer-secret", "quiet", "-o", "csv"]);
    assert!(out.contains("http.addr,127.0.0.1:9999\n"), "{out}");
    assert!(out.contains("peer.secret,(hidden)\n") && !out.contains("quiet"), "{out}");

    std::fs::write(file, "[http]\naddr = \"127.0.0.1:9999\"\nadr = 1\n").expect("is written");
    let (code, out, err) = run(&["config", "check", "--config", file]);
    assert_eq!((code, out.as_str()), (78, ""));
    assert!(err.contains("node.toml:3: http.adr"), "{err}");
}

#[test]
fn a_local_cluster_without_its_program_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let alone = folder.path().join("trandb");
    std::fs::copy(env!("CARGO_BIN_EXE_trandb"), &alone).expect("is copied");
    // Another test that starts a program meanwhile holds what was open here until it has begun.
    let output = loop {
        match Command::new(&alone).args(["local"]).current_dir(&folder).output() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            output => break output.expect("the program runs"),
        }
    };
    let (code, out, err) = result(output);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("there is no ") && err.contains("trandb-node"), "{err}");
    assert!(!folder.path().join("trandb-local").exists(), "nothing is left behind");
}

#[test]
fn check_judges_a_history() {
    let skew = r#"
{"type":"invoke","f":"txn","process":0,"value":[["r","x",null],["append","y",1]]}
{"type":"invoke","f":"txn","process":1,"value":[["r","y",null],["append","x",1]]}
{"type":"ok","f":"txn","process":0,"value":[["r","x",null],["append","y",1]]}
{"type":"ok","f":"txn","process":1,"value":[["r","y",null],["append","x",1]]}"#;
    let check = |text: &str, options: &[&str]| {
        let mut command = trandb(&["check", "-"]);
        let mut program = command
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        program.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
        result(program.wait_with_output().expect("it ends"))
    };
    let (code, out, err) = check(skew, &[]);
    assert_eq!(code, 1, "{err}");
    assert!(out.starts_with("G2: T1 of process 0 "), "{out}");
    assert_eq!(err, "2 transactions, 2 committed and 0 of unknown outcome: not strict_serializable\n");
    let (code, out, err) = check(skew, &["--level", "snapshot", "-o", "json"]);
    assert_eq!((code, out.trim()), (0, "[]"), "{err}");
    let (code, _, err) = check("{}", &[]);
    assert_eq!(code, 65);
    assert!(err.starts_with("trandb: -: line 1: missing field `type`"), "{err}");
    assert_eq!(run(&["check", "/nowhere/at/all"]).0, 74);
    assert_eq!(run(&["check", "-", "--level", "mostly"]).0, 2);
}
