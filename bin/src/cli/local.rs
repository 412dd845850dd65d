//! `local`: a cluster on this machine, for trying things out.
//!
//! Each node is a `trandb-node` process of its own with its output in a file, so that killing one with `kill -9` shows
//! what a real crash would. Caveat: if this command itself is killed that way, the nodes go on.

use super::failure::{FAILED, Failure, UNAVAILABLE};
use super::output::Rows;
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// Ports from one node to the next: what a second node on a machine is given by custom.
const PORT_STEP: u16 = 10;

/// How long a cluster may take until it is ready: far more than it should, far less than patience.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two looks at the nodes.
const LOOK: Duration = Duration::from_millis(50);

/// How long nodes may take to stop before they are killed: their own drain time and a little.
const STOP_TIMEOUT: Duration = Duration::from_secs(35);

/// Bytes of a node's output that are shown when it failed to start.
const LOG_TAIL_BYTES: usize = 2000;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many nodes.
    #[arg(long, short, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// Where data and logs go, and come from if they are there; by default a fresh folder in ./trandb-local.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// The first node's first port; the second node's are ten higher, and so on.
    #[arg(long, default_value_t = 7400, value_parser = clap::value_parser!(u16).range(1..=65_400))]
    port_base: u16,
    /// Further options for each node.
    #[arg(last = true)]
    node_options: Vec<String>,
}

struct Node {
    name: String,
    port_base: u16,
    log: PathBuf,
    process: Child,
    exited: bool,
}

impl Node {
    fn address(&self, offset: u16) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.port_base + offset)
    }

    /// How it ended, the first time this is asked after it did.
    fn ended(&mut self) -> Option<String> {
        if self.exited {
            return None;
        }
        let status = self.process.try_wait().ok().flatten()?;
        self.exited = true;
        Some(status.to_string())
    }

    fn signal(&self, signal: rustix::process::Signal) {
        if !self.exited {
            // It may have ended just now; then there is nothing to stop.
            let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.process), signal);
        }
    }
}

/// Kills what is left when the command ends early.
struct Nodes(Vec<Node>);

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in &mut self.0 {
            node.signal(rustix::process::Signal::KILL);
            if !node.exited {
                let _ = node.process.wait();
            }
        }
    }
}

/// Starts the nodes, waits until all are ready, and stops them when asked to.
pub(crate) fn run(args: Args) -> Result<ExitCode, Failure> {
    let program = std::env::current_exe()?.with_file_name("trandb-node");
    if !program.exists() {
        return Err(Failure::new(FAILED, format!("there is no {}", program.display())));
    }
    let folder = match &args.data_dir {
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            folder.clone()
        }
        None => fresh_folder(Path::new("trandb-local"))?,
    };
    super::runtime()?.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let start = Instant::now();
        let mut nodes = Nodes(Vec::new());
        for i in 0..args.nodes {
            nodes.0.push(start_node(&program, &folder, &args, i)?);
        }
        tokio::select! {
            biased;
            ready = all_ready(&mut nodes.0) => ready?,
            _ = interrupt.recv() => return stop(nodes, &mut interrupt).await,
            _ = terminate.recv() => return stop(nodes, &mut interrupt).await,
        }
        print_addresses(&nodes.0)?;
        eprintln!(
            "trandb: {} nodes ready in {:.1} s, data and logs in {}; ctrl-c stops them",
            args.nodes,
            start.elapsed().as_secs_f64(),
            folder.display()
        );
        tokio::select! {
            biased;
            _ = interrupt.recv() => stop(nodes, &mut interrupt).await,
            _ = terminate.recv() => stop(nodes, &mut interrupt).await,
            () = all_ended(&mut nodes.0) => Err(Failure::new(FAILED, "no node is left")),
        }
    })
}

/// The first number that is not taken yet.
fn fresh_folder(parent: &Path) -> std::io::Result<PathBuf> {
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

fn start_node(program: &Path, folder: &Path, args: &Args, i: u16) -> Result<Node, Failure> {
    let port_base = args.port_base + i * PORT_STEP;
    let name = format!("node-{}", i + 1);
    let log = folder.join(format!("{name}.log"));
    let output = File::options().create(true).append(true).open(&log)?;
    let mut command = Command::new(program);
    command
        .arg("--data-dir")
        .arg(folder.join(&name))
        .args(["--port-base", &port_base.to_string()])
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        // Else ctrl-c would reach the nodes twice, from the terminal and from here, and the second one means "at once".
        .process_group(0);
    if args.nodes > 1 {
        let peers = (0..args.nodes)
            .map(|i| format!("{}:{}", Ipv4Addr::LOCALHOST, args.port_base + i * PORT_STEP + 1));
        command.args(["--seeds", &peers.collect::<Vec<_>>().join(",")]);
    }
    let process = command
        .args(&args.node_options)
        .spawn()
        .map_err(|error| Failure::new(FAILED, format!("{} did not start: {error}", program.display())))?;
    Ok(Node { name, port_base, log, process, exited: false })
}

async fn all_ready(nodes: &mut [Node]) -> Result<(), Failure> {
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
        match is_ready(&nodes[next].address(2)).await {
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

fn print_addresses(nodes: &[Node]) -> Result<(), Failure> {
    let mut rows = Rows::new(&["node", "pid", "native", "http", "peer"]);
    for node in nodes {
        rows.push(vec![
            json!(node.name),
            json!(node.process.id()),
            json!(node.address(0)),
            json!(node.address(2)),
            json!(node.address(1)),
        ]);
    }
    let mut out = std::io::stdout().lock();
    rows.print_table(&mut out)?;
    out.flush()?;
    Ok(())
}

/// Says so when a node ends; returns when none is left.
async fn all_ended(nodes: &mut [Node]) {
    while nodes.iter().any(|node| !node.exited) {
        for node in nodes.iter_mut() {
            if let Some(status) = node.ended() {
                eprintln!("trandb: {} ended: {status}", node.name);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Asks all nodes to stop and waits; a second ctrl-c kills them.
async fn stop(mut nodes: Nodes, interrupt: &mut tokio::signal::unix::Signal) -> Result<ExitCode, Failure> {
    eprintln!("trandb: stopping");
    for node in &nodes.0 {
        node.signal(rustix::process::Signal::TERM);
    }
    let deadline = Instant::now() + STOP_TIMEOUT;
    let mut unclean = Vec::new();
    while nodes.0.iter().any(|node| !node.exited) {
        for node in &mut nodes.0 {
            if let Some(status) = node.ended()
                && status != "exit status: 0"
            {
                unclean.push(format!("{} ended: {status}", node.name));
            }
        }
        tokio::select! {
            biased;
            _ = interrupt.recv() => return Err(Failure::new(130, "killed the nodes that had not stopped yet")),
            () = tokio::time::sleep(LOOK) => {}
        }
        if Instant::now() >= deadline {
            let message = format!("killed nodes that had not stopped after {} s", STOP_TIMEOUT.as_secs());
            return Err(Failure::new(FAILED, message));
        }
    }
    match unclean.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Err(Failure::new(FAILED, unclean.join("; "))),
    }
}
