//! Nodes as operators run them: real processes with data directories, ports, signals and logs.
//!
//! Everything is cleaned up on drop. Waiting is always for something, with a deadline that a busy machine can
//! keep; when it is missed, the panic shows the end of the node's log.
//!
//! Each test binary says in its `TIMING` what nodes are told about leases and heartbeats.

// Each test binary uses a part of it.
#![allow(dead_code, unused_imports)]
// These are tests of whole processes on a real machine; the doors of the simulation are not theirs.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod cluster;
pub(crate) mod http;
mod metrics;

pub(crate) use cluster::Cluster;
pub(crate) use http::{HttpAnswer, request, request_within};

use rustix::process::{Pid, Signal, kill_process};
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use trandb_client::ClusterView;
use trandb_client::blocking::Client;

/// How long anything may take that takes a second on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// Nodes that share two busy cores with each other and with a compiler are often late by more than the default
/// of 300 ms, and what elections do to everything is not what most of the tests are about.
pub(crate) const PATIENT: [(&str, &str); 3] = [
    ("TRANDB_RAFT__ELECTION_MIN_MS", "1000"),
    ("TRANDB_RAFT__ELECTION_MAX_MS", "1500"),
    ("TRANDB_PEER__HEARTBEATS_MISSED", "10"),
];

/// How long a node may take to say whether it is ready.
const READINESS_MAX: Duration = Duration::from_secs(3);

/// Of a log, in a panic's message.
const LOG_TAIL_BYTES: usize = 6000;

/// Polls until `look` gives something.
///
/// # Panics
/// With `what`, when it does not within [`PATIENCE`].
pub(crate) fn eventually<T, E: Display>(what: &str, look: impl FnMut() -> Result<T, E>) -> T {
    within(PATIENCE, look).unwrap_or_else(|why| panic!("{what}: not within {PATIENCE:?}: {why}"))
}

/// Polls until `look` gives something, or for so long: what it said last then.
pub(crate) fn within<T, E>(patience: Duration, mut look: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let until = Instant::now() + patience;
    loop {
        match look() {
            Err(_) if Instant::now() < until => std::thread::sleep(LOOK),
            found => return found,
        }
    }
}

/// Tells threads to stop at the end of a scope, also when that is a panic: the scope would wait for them for ever.
pub(crate) struct StopOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The three addresses of a node, as `host:port`.
#[derive(Debug, Clone)]
pub(crate) struct Ports {
    pub(crate) native: String,
    pub(crate) peer: String,
    pub(crate) http: String,
}

impl Ports {
    /// For so many nodes, free when asked for. Another process can take one before the node does; starting is
    /// then tried again.
    pub(crate) fn free(nodes: usize) -> Vec<Self> {
        // All are held until all are known, so that none is given out twice.
        let bind = |_| TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let listeners: Vec<_> = (0..3 * nodes).map(bind).collect();
        let addr = |listener: &TcpListener| listener.local_addr().expect("is bound").to_string();
        let ports = |three: &[TcpListener]| Self {
            native: addr(&three[0]),
            peer: addr(&three[1]),
            http: addr(&three[2]),
        };
        listeners.chunks(3).map(ports).collect()
    }

    fn arguments(&self) -> [String; 6] {
        [
            "--native".into(),
            self.native.clone(),
            "--peer".into(),
            self.peer.clone(),
            "--http".into(),
            self.http.clone(),
        ]
    }
}

/// One of this crate's programs with nothing of this machine's settings: the one that cargo built, given as `built`,
/// or the one of that name in `TRANDB_BIN_DIR`.
pub(crate) fn program(built: &str) -> Command {
    clean(Command::new(chosen(built)))
}

fn chosen(built: &str) -> PathBuf {
    let built = Path::new(built);
    match (std::env::var_os("TRANDB_BIN_DIR"), built.file_name()) {
        (Some(directory), Some(name)) => Path::new(&directory).join(name),
        _ => built.to_owned(),
    }
}

/// A command without this machine's settings.
fn clean(mut command: Command) -> Command {
    let ours = |name: &str| ["TRANDB_", "OTEL_", "RUST_LOG"].iter().any(|prefix| name.starts_with(prefix));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(ours) {
            command.env_remove(&name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Runs the `trandb` command against some nodes.
pub(crate) fn trandb(addr: &str, arguments: &[&str]) -> (i32, Vec<u8>, String) {
    let mut command = program(env!("CARGO_BIN_EXE_trandb"));
    command.args(arguments).args(["--addr", addr, "--timeout", "30s"]);
    let output = command.output().expect("the program runs");
    let error = String::from_utf8(output.stderr).expect("errors are text");
    (output.status.code().expect("ends by itself"), output.stdout, error)
}

/// Runs a node that is expected to refuse to start: its exit code and what it said.
pub(crate) fn refused(arguments: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    let mut child = program(env!("CARGO_BIN_EXE_trandb-node"))
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(File::create(&log).expect("is created"))
        .spawn()
        .expect("the program runs");
    let until = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("is a child") {
            break status;
        }
        if Instant::now() >= until {
            child.kill().expect("is a child");
            child.wait().expect("is a child");
            panic!("{arguments:?} was not refused: {}", std::fs::read_to_string(&log).unwrap_or_default());
        }
        std::thread::sleep(LOOK);
    };
    (status.code().expect("ends by itself"), std::fs::read_to_string(&log).expect("a log"))
}

/// One node: its directory, addresses and arguments outlive its process.
pub(crate) struct Node {
    folder: PathBuf,
    pub(crate) ports: Ports,
    arguments: Vec<String>,
    /// A command line to run the program by; it must put the program in its own place.
    wrapper: Vec<String>,
    /// Settings of its own.
    environment: Vec<(&'static str, String)>,
    child: Option<Child>,
    status: Option<ExitStatus>,
}

impl Node {
    /// Starts a node with its files below `folder`, which is created.
    pub(crate) fn start(folder: &Path, ports: Ports, arguments: &[String]) -> Self {
        Self::start_by(Vec::new(), folder, ports, arguments, Vec::new())
    }

    /// The same, its program run by another, and with settings of its own.
    pub(crate) fn start_by(
        wrapper: Vec<String>,
        folder: &Path,
        ports: Ports,
        arguments: &[String],
        environment: Vec<(&'static str, String)>,
    ) -> Self {
        std::fs::create_dir_all(folder).expect("the folder is ours");
        let mut node = Self {
            folder: folder.to_owned(),
            ports,
            arguments: arguments.to_vec(),
            wrapper,
            environment,
            child: None,
            status: None,
        };
        node.spawn();
        node
    }

    fn spawn(&mut self) {
        let append = |name: &str| {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(self.folder.join(name))
                .expect("the folder is ours")
        };
        let mut command = match self.wrapper.split_first() {
            None => program(env!("CARGO_BIN_EXE_trandb-node")),
            Some((wrapper, rest)) => {
                let mut command = clean(Command::new(wrapper));
                command.args(rest).arg(chosen(env!("CARGO_BIN_EXE_trandb-node")));
                command
            }
        };
        let child = command
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(["--log-format", "human"])
            .args(self.ports.arguments())
            .args(&self.arguments)
            .envs(crate::TIMING)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdout(append("out"))
            .stderr(append("log"))
            .spawn()
            .expect("the program runs");
        self.child = Some(child);
        self.status = None;
    }

    /// Its data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Everything it has logged, over all its lives.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.join("log")).unwrap_or_default()).into_owned()
    }

    /// What it wrote to standard output.
    pub(crate) fn out(&self) -> String {
        std::fs::read_to_string(self.folder.join("out")).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let from = log.len().saturating_sub(LOG_TAIL_BYTES);
        let from = (from..log.len()).find(|&at| log.is_char_boundary(at)).unwrap_or(log.len());
        format!("{} logged: {}", self.ports.http, &log[from..])
    }

    /// Waits until it serves: `/readyz` says so.
    pub(crate) fn wait_ready(&mut self) {
        wait_ready(std::slice::from_mut(self)).unwrap_or_else(|why| panic!("{why}"));
    }

    fn readiness(&self) -> Result<(), String> {
        // A node that still looks for its cluster holds the connection and says nothing.
        match request_within(READINESS_MAX, &self.ports.http, "GET", "/readyz", &[], b"") {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(answer.text()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Waits until its log has `text`.
    pub(crate) fn wait_logged(&self, text: &str) {
        self.wait_logged_times(text, 1);
    }

    /// Waits until its log has `text` that many times.
    pub(crate) fn wait_logged_times(&self, text: &str, times: usize) {
        eventually(&format!("{text:?} in a log"), || {
            let found = self.log().matches(text).count();
            if found >= times { Ok(()) } else { Err(format!("{found} times in {}", self.log_tail())) }
        });
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("the node runs"))
    }

    /// Its process, which must run.
    pub(crate) fn process_id(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the process is ours");
    }

    /// Ends it without warning, as a power loss would.
    pub(crate) fn kill9(&mut self) {
        self.signal(Signal::KILL);
        self.wait_exit();
    }

    /// Freezes it: its connections stay open and nothing answers.
    pub(crate) fn sigstop(&self) {
        self.signal(Signal::STOP);
    }

    /// Goes on after [`Self::sigstop`].
    pub(crate) fn sigcont(&self) {
        self.signal(Signal::CONT);
    }

    /// Asks it to end.
    pub(crate) fn sigterm(&self) {
        self.signal(Signal::TERM);
    }

    fn exited(&mut self) -> Option<ExitStatus> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait().expect("is a child")
        {
            self.child = None;
            self.status = Some(status);
        }
        self.status
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.exited().is_none()
    }

    /// Waits for its end; the exit code, none if a signal ended it.
    pub(crate) fn wait_exit(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.exited() {
                return status.code();
            }
            assert!(Instant::now() < until, "the node has not ended\n{}", self.log_tail());
            std::thread::sleep(LOOK);
        }
    }

    /// Starts it again where it was, and waits until it serves.
    pub(crate) fn restart(&mut self) {
        self.restart_with(&[]);
        self.wait_ready();
    }

    /// Starts it again with these arguments besides its own, this time.
    pub(crate) fn restart_with(&mut self, arguments: &[&str]) {
        assert!(self.exited().is_some(), "the node still runs");
        let own = self.arguments.len();
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self.spawn();
        self.arguments.truncate(own);
    }

    /// Loses everything it has on disk; it must not run.
    pub(crate) fn wipe(&mut self) {
        assert!(self.exited().is_some(), "the node still runs");
        std::fs::remove_dir_all(self.data_dir()).expect("the folder is ours");
    }

    /// An HTTP request to it, sent again as long as the answer is that it was not done and that a retry may help.
    pub(crate) fn http(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> HttpAnswer {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.http_once(method, path, headers, body);
            if answer.status != 503 || Instant::now() >= until {
                return answer;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// One HTTP request to it.
    pub(crate) fn http_once(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> HttpAnswer {
        request(&self.ports.http, method, path, headers, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.log_tail()))
    }

    /// The cluster as it sees it.
    pub(crate) fn view(&self) -> ClusterView {
        serde_json::from_slice(&self.http("GET", "/admin/cluster", &[], b"").body).expect("a view")
    }

    /// A client that knows this node's address only, and asks it about every key.
    pub(crate) fn client(&self) -> Client {
        self.try_client().unwrap_or_else(|error| panic!("{error}\n{}", self.log_tail()))
    }

    /// The same, if the node lets it in.
    pub(crate) fn try_client(&self) -> Result<Client, trandb_client::Error> {
        let builder = trandb_client::Client::builder().leader_hints(false).timeout(PATIENCE);
        Client::connect_with(builder, &self.ports.native)
    }
}

/// Waits until all serve; fails at once when one ends.
fn wait_ready(nodes: &mut [Node]) -> Result<(), String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let mut waiting = None;
        for node in &mut *nodes {
            if let Some(status) = node.exited() {
                return Err(format!("a node has ended: {status}\n{}", node.log_tail()));
            }
            if waiting.is_none()
                && let Err(why) = node.readiness()
            {
                waiting = Some((why, node.log_tail()));
            }
        }
        match waiting {
            None => return Ok(()),
            Some((why, log)) if Instant::now() >= until => {
                return Err(format!("a node is not ready within {PATIENCE:?}: {why}\n{log}"));
            }
            Some(_) => std::thread::sleep(LOOK),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
