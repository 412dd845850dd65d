//! Nodes as processes of their own on this machine, with their output in files.

use super::failure::{FAILED, Failure, UNAVAILABLE};
use rustix::process::Signal;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use trandb::network::{Addresses, Network};

/// Ports from one node to the next: what a second node on a machine is given by custom.
const PORT_STEP: u16 = 10;

/// How long a cluster may take until it is ready: far more than it should, far less than patience.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// What nodes in namespaces of their own show each other; nobody else can reach them.
const PEER_SECRET: &str = "within this machine";

/// Between two looks at the nodes.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// Bytes of a node's output that are shown when it failed to start.
const LOG_TAIL_BYTES: usize = 2000;

/// What all nodes of a cluster here have in common.
pub(super) struct Cluster {
    /// `trandb-node`.
    pub(super) program: PathBuf,
    /// Where data and logs go.
    pub(super) folder: PathBuf,
    /// How many nodes.
    pub(super) nodes: u16,
    /// The first node's first port, where no network says otherwise.
    pub(super) port_base: u16,
    /// Their own namespaces, if they have such.
    pub(super) network: Option<Network>,
    /// Further options for each node.
    pub(super) options: Vec<String>,
}

/// The program that stands beside this one.
pub(super) fn program() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe()?.with_file_name("trandb-node");
    match program.exists() {
        true => Ok(program),
        false => Err(Failure::new(FAILED, format!("there is no {}", program.display()))),
    }
}

/// One of them.
pub(super) struct Node {
    pub(super) name: String,
    addresses: Addresses,
    log: PathBuf,
    pub(super) process: Child,
    pub(super) exited: bool,
}

impl Node {
    /// Where it listens.
    pub(super) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// How it ended, the first time this is asked after it did.
    pub(super) fn ended(&mut self) -> Option<String> {
        if self.exited {
            return None;
        }
        let status = self.process.try_wait().ok().flatten()?;
        self.exited = true;
        Some(status.to_string())
    }

    pub(super) fn signal(&self, signal: Signal) {
        if !self.exited {
            // It may have ended just now; then there is nothing to stop.
            let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.process), signal);
        }
    }
}

/// Kills what is left when the command ends early.
pub(super) struct Nodes(pub(super) Vec<Node>);

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in &mut self.0 {
            node.signal(Signal::KILL);
            if !node.exited {
                let _ = node.process.wait();
            }
        }
    }
}

/// The first number that is not taken yet.
pub(super) fn fresh_folder(parent: &Path) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(parent)?;
    for number in 1u32.. {
        let folder = parent.join(number.to_string());
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            result => return result.map(|()| folder),
        }
    }
    Err(std::io::Error::other("every number is taken"))
}

impl Cluster {
    /// Starts all nodes.
    pub(super) fn start(&self) -> Result<Nodes, Failure> {
        let mut nodes = Nodes(Vec::new());
        for at in 0..self.nodes {
            nodes.0.push(self.start_node(at)?);
        }
        Ok(nodes)
    }

    /// Where one of them listens: native, peers and HTTP on adjacent ports.
    fn addresses(&self, at: u16) -> Addresses {
        if let Some(network) = &self.network {
            return network.addresses(at.into());
        }
        let address =
            |offset| format!("{}:{}", Ipv4Addr::LOCALHOST, self.port_base + at * PORT_STEP + offset);
        Addresses { native: address(0), peer: address(1), http: address(2) }
    }

    /// Starts one of them, counted from zero.
    pub(super) fn start_node(&self, at: u16) -> Result<Node, Failure> {
        let name = format!("node-{}", at + 1);
        let log = self.folder.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        let mut command = match &self.network {
            None => Command::new(&self.program),
            Some(network) => {
                let wrapper = network.wrapper(at.into());
                let mut command = Command::new(&wrapper[0]);
                command.args(&wrapper[1..]).arg(&self.program);
                // Nobody else is on that network, and it is not this machine's loopback.
                command.args(["--insecure", "--peer-secret", PEER_SECRET]);
                command
            }
        };
        let addresses = self.addresses(at);
        command
            .arg("--data-dir")
            .arg(self.folder.join(&name))
            .args(["--native", &addresses.native, "--peer", &addresses.peer, "--http", &addresses.http])
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Else ctrl-c would reach the nodes twice, from the terminal and from here, and the second one means "at once".
            .process_group(0);
        if self.nodes > 1 {
            let peers = (0..self.nodes).map(|at| self.addresses(at).peer);
            command.args(["--seeds", &peers.collect::<Vec<_>>().join(",")]);
        }
        let process = command.args(&self.options).spawn().map_err(|error| {
            Failure::new(FAILED, format!("{} did not start: {error}", self.program.display()))
        })?;
        Ok(Node { name, addresses, log, process, exited: false })
    }
}

/// Waits for all of them.
pub(super) async fn all_ready(nodes: &mut [Node]) -> Result<(), Failure> {
    let deadline = Instant::now() + READY_TIMEOUT;
    let mut next = 0;
    while next < nodes.len() {
        for node in nodes.iter_mut() {
            if let Some(status) = node.ended() {
                let message = format!(
                    "{} ended: {status}; the end of {}:\n{}",
                    node.name,
                    node.log.display(),
                    tail(&node.log)
                );
                return Err(Failure::new(FAILED, message));
            }
        }
        if Instant::now() >= deadline {
            let node = &nodes[next];
            let message = format!(
                "{} is not ready after {} s, see {}",
                node.name,
                READY_TIMEOUT.as_secs(),
                node.log.display()
            );
            return Err(Failure::new(UNAVAILABLE, message));
        }
        match is_ready(&nodes[next].addresses.http).await {
            true => next += 1,
            false => tokio::time::sleep(LOOK).await,
        }
    }
    Ok(())
}

/// Whether `/readyz` answers 200.
async fn is_ready(http: &str) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(http).await?;
        let request = format!("GET /readyz HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await?;
        Ok::<_, std::io::Error>(&status == b"HTTP/1.1 200")
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), ask).await, Ok(Ok(true)))
}

fn tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned()
}
