//! `local`: a cluster on this machine, for trying things out.
//!
//! Each node is a `trandb-node` process of its own with its output in a file, so that killing one with `kill -9` shows
//! what a real crash would. Caveat: if this command itself is killed that way, the nodes go on.

use super::failure::{FAILED, Failure};
use super::output::Rows;
use super::processes::{self, Cluster, LOOK, Node, Nodes, all_ready, fresh_folder};
use rustix::process::Signal;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// How long nodes may take to stop before they are killed: their own drain time and a little.
const STOP_TIMEOUT: Duration = Duration::from_secs(35);

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

/// Starts the nodes, waits until all are ready, and stops them when asked to.
pub(crate) fn run(args: Args) -> Result<ExitCode, Failure> {
    let program = processes::program()?;
    let folder = match &args.data_dir {
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            folder.clone()
        }
        None => fresh_folder(Path::new("trandb-local"))?,
    };
    let cluster = Cluster {
        program,
        folder,
        nodes: args.nodes,
        port_base: args.port_base,
        network: None,
        options: args.node_options,
    };
    super::runtime()?.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let start = Instant::now();
        let mut nodes = cluster.start()?;
        tokio::select! {
            biased;
            ready = all_ready(&mut nodes.0) => ready?,
            _ = interrupt.recv() => return stop(nodes, &mut interrupt).await,
            _ = terminate.recv() => return stop(nodes, &mut interrupt).await,
        }
        print_addresses(&nodes.0)?;
        eprintln!(
            "trandb: {} nodes ready in {:.1} s, data and logs in {}; ctrl-c stops them",
            cluster.nodes,
            start.elapsed().as_secs_f64(),
            cluster.folder.display()
        );
        tokio::select! {
            biased;
            _ = interrupt.recv() => stop(nodes, &mut interrupt).await,
            _ = terminate.recv() => stop(nodes, &mut interrupt).await,
            () = all_ended(&mut nodes.0) => Err(Failure::new(FAILED, "no node is left")),
        }
    })
}

fn print_addresses(nodes: &[Node]) -> Result<(), Failure> {
    let mut rows = Rows::new(&["node", "pid", "native", "http", "peer"]);
    for node in nodes {
        rows.push(vec![
            json!(node.name),
            json!(node.process.id()),
            json!(node.addresses().native),
            json!(node.addresses().http),
            json!(node.addresses().peer),
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
        node.signal(Signal::TERM);
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
