//! `soak`: a cluster of real processes under real faults, judged by what its clients were told.
//!
//! Four kinds of work go on at once, each with a history of its own; the judges of [`trandb_judge`] look at them in
//! the end, as `trandb check` does with the files that are left. Exit 1 if anything is wrong.

mod bank;
mod board;
mod faults;
mod lists;
mod registers;

use super::failure::{FAILED, Failure};
use super::output::Rows;
use super::processes::{self, Cluster, Node, Nodes, all_ready, fresh_folder};
use bank::Bank;
use board::Board;
use lists::ListsWork;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use registers::Registers;
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use trandb::network::Network;
use trandb_client::{Client, Isolation};
use trandb_judge::{Kind, Level, judge};
use trandb_runtime::random::Random;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many nodes.
    #[arg(long, short, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// How long: 30s, 5m.
    #[arg(long = "time", default_value = "60s", value_name = "TIME", value_parser = super::parse_duration_ms)]
    time_ms: u64,
    /// Clients of each of the four kinds of work.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    clients: u16,
    /// What faults come when, and what clients do, follows from this; random unless given.
    #[arg(long)]
    seed: Option<u64>,
    /// Where data, logs and histories go; by default a fresh folder in ./trandb-soak.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// The first node's first port; the second node's are ten higher, and so on.
    #[arg(long, default_value_t = 7600, value_parser = clap::value_parser!(u16).range(1..=65_400))]
    port_base: u16,
    /// Whether nodes get network namespaces of their own, and are cut off from the others at times. That takes root.
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN")]
    network: When,
    /// No faults, just work.
    #[arg(long)]
    calm: bool,
    /// Further options for each node.
    #[arg(last = true)]
    node_options: Vec<String>,
}

/// When nodes have network namespaces of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum When {
    /// Where this machine allows it.
    Auto,
    /// Always: where it is not allowed, that is an error.
    Always,
    /// Never.
    Never,
}

/// How long a client tries before a request of it fails.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// One kind of work, its history, and what must hold of that.
struct Running {
    name: &'static str,
    board: Arc<Board>,
    level: Level,
    clients: Vec<JoinHandle<()>>,
    kind: Arc<dyn Workload>,
}

/// What a client of some kind of work does.
trait Workload: Send + Sync {
    /// Before all others, by one.
    fn open<'a>(&'a self, client: &'a Client, board: &'a Board) -> Step<'a>;
    /// Again and again.
    fn work<'a>(
        &'a self,
        client: &'a Client,
        board: &'a Board,
        at: usize,
        random: &'a mut StdRng,
    ) -> Step<'a>;
    /// When all have ended, by one.
    fn close<'a>(&'a self, client: &'a Client, board: &'a Board) -> Step<'a>;
}

type Step<'a> = std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

pub(crate) fn run(args: Args) -> Result<ExitCode, Failure> {
    let seed = args.seed.unwrap_or_else(|| Random::from_entropy().next_u64());
    let folder = match &args.data_dir {
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            folder.clone()
        }
        None => fresh_folder(std::path::Path::new("trandb-soak"))?,
    };
    let cluster = Cluster {
        program: processes::program()?,
        folder,
        nodes: args.nodes,
        port_base: args.port_base,
        network: network(&args)?,
        options: args.node_options.clone(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            biased;
            code = soak(&args, &cluster, seed) => code,
            _ = interrupt.recv() => Err(Failure::new(130, "interrupted; the nodes were killed")),
            _ = terminate.recv() => Err(Failure::new(130, "stopped; the nodes were killed")),
        }
    })
}

fn network(args: &Args) -> Result<Option<Network>, Failure> {
    if args.network == When::Never || args.calm || args.nodes < 2 {
        return Ok(None);
    }
    match (Network::new(args.nodes.into()), args.network) {
        (Ok(network), _) => Ok(Some(network)),
        (Err(why), When::Always) => Err(Failure::new(FAILED, format!("no network namespaces here: {why}"))),
        (Err(why), _) => {
            eprintln!("trandb: no network namespaces here, so nobody is cut off: {why}");
            Ok(None)
        }
    }
}

async fn soak(args: &Args, cluster: &Cluster, seed: u64) -> Result<ExitCode, Failure> {
    let mut nodes = cluster.start()?;
    all_ready(&mut nodes.0).await?;
    eprintln!("trandb: {} nodes ready, seed {seed}, all is kept in {}", args.nodes, cluster.folder.display());
    let addresses: Vec<String> = nodes.0.iter().map(|node| node.addresses().native.clone()).collect();
    let mut random = StdRng::seed_from_u64(seed);
    let mut works = works();
    for work in &mut works {
        work.kind.open(&client(&addresses, 0)?, &work.board).await;
        for at in 0..usize::from(args.clients) {
            let (client, random) = (client(&addresses, at)?, StdRng::seed_from_u64(random.next_u64()));
            work.clients.push(tokio::spawn(go_on(work.kind.clone(), client, work.board.clone(), at, random)));
        }
    }
    let time = Duration::from_millis(args.time_ms);
    let faults = match args.calm {
        true => {
            tokio::time::sleep(time).await;
            faults::Faults::default()
        }
        false => faults::inject(cluster, &mut nodes, time, &mut random).await?,
    };
    for work in &mut works {
        work.board.stop();
        for client in work.clients.drain(..) {
            client
                .await
                .map_err(|error| Failure::new(FAILED, format!("a client of {}: {error}", work.name)))?;
        }
        work.kind.close(&client(&addresses, 0)?, &work.board).await;
    }
    report(&works, cluster, &faults, &nodes)
}

fn works() -> Vec<Running> {
    let work = |name, level, kind: Arc<dyn Workload>| Running {
        name,
        board: Arc::default(),
        level,
        clients: Vec::new(),
        kind,
    };
    vec![
        work(
            "lists-serializable",
            Level::StrictSerializable,
            Arc::new(ListsWork::new(Isolation::Serializable)),
        ),
        work("lists-snapshot", Level::Snapshot, Arc::new(ListsWork::new(Isolation::Snapshot))),
        work("bank", Level::StrictSerializable, Arc::new(Bank::default())),
        work("registers", Level::StrictSerializable, Arc::new(Registers::default())),
    ]
}

async fn go_on(kind: Arc<dyn Workload>, client: Client, board: Arc<Board>, at: usize, mut random: StdRng) {
    while board.goes_on() {
        kind.work(&client, &board, at, &mut random).await;
    }
}

/// A client that knows the nodes in another order than others do.
fn client(addresses: &[String], first: usize) -> Result<Client, Failure> {
    let mut addresses = addresses.to_vec();
    let first = first % addresses.len();
    addresses.rotate_left(first);
    Ok(Client::builder().name("soak").connections_per_node(1).timeout(CLIENT_TIMEOUT).build(addresses)?)
}

/// Judges, says what is wrong, and leaves the histories in files.
fn report(
    works: &[Running],
    cluster: &Cluster,
    faults: &faults::Faults,
    nodes: &Nodes,
) -> Result<ExitCode, Failure> {
    let mut rows = Rows::new(&["history", "committed", "failed", "unknown", "level", "wrong"]);
    let mut wrong = 0;
    for work in works {
        let recorder = work.board.recorder();
        let history = recorder.history();
        let path = cluster.folder.join(format!("{}.jsonl", work.name));
        history.write(BufWriter::new(File::create(&path)?))?;
        let anomalies = judge(history, work.level).into_iter().map(|anomaly| anomaly.to_string());
        let found: Vec<String> = anomalies.chain(work.board.wrong()).collect();
        for what in found.iter().take(3) {
            eprintln!("trandb: {}: {what}", path.display());
        }
        wrong += found.len();
        let count = |kind| history.events().iter().filter(|event| event.kind == kind).count();
        rows.push(vec![
            json!(work.name),
            json!(count(Kind::Ok)),
            json!(count(Kind::Fail)),
            json!(count(Kind::Info)),
            json!(work.level.name()),
            json!(found.len()),
        ]);
    }
    let mut out = std::io::stdout().lock();
    rows.print_table(&mut out)?;
    out.flush()?;
    eprintln!("trandb: {faults}");
    if wrong == 0 {
        for Node { name, .. } in &nodes.0 {
            // What was right needs no autopsy. A node may still be writing: then something stays.
            let _ = std::fs::remove_dir_all(cluster.folder.join(name));
        }
    }
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}
