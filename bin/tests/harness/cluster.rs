//! Several nodes that know each other.

use super::{Node, PATIENCE, Ports, eventually, wait_ready};
use tempfile::TempDir;
use trandb_client::blocking::Client;

/// Starts with new ports, should somebody else have taken one meanwhile.
const START_ATTEMPTS: usize = 5;

/// Nodes that know each other, and the directory that holds what they write.
pub(crate) struct Cluster {
    // Dropped first, so that nobody writes into the folder any more.
    pub(crate) nodes: Vec<Node>,
    extra: Vec<String>,
    environment: Vec<(&'static str, String)>,
    folder: TempDir,
}

impl Cluster {
    /// So many nodes as each other's seeds (one has none), all ready. `extra` goes to each.
    pub(crate) fn start(nodes: usize, extra: &[&str]) -> Self {
        Self::start_with(nodes, extra, Vec::new())
    }

    /// The same, with settings of theirs in the environment.
    pub(crate) fn start_with(nodes: usize, extra: &[&str], environment: Vec<(&'static str, String)>) -> Self {
        let extra: Vec<String> = extra.iter().map(|&argument| argument.to_owned()).collect();
        let mut last = String::new();
        for _ in 0..START_ATTEMPTS {
            let hosts = Ports::free(nodes).into_iter().map(|ports| (ports, Vec::new())).collect();
            let mut cluster = Self::spawn(hosts, extra.clone(), environment.clone());
            match wait_ready(&mut cluster.nodes) {
                Ok(()) => return cluster,
                Err(why) if why.contains("cannot listen") => last = why,
                Err(why) => panic!("{why}"),
            }
        }
        panic!("no free ports in {START_ATTEMPTS} attempts: {last}");
    }

    /// One node for each of `hosts`, at the addresses given, its program run by the command line given; all ready.
    pub(crate) fn start_on(hosts: Vec<(Ports, Vec<String>)>, extra: &[&str]) -> Self {
        let extra: Vec<String> = extra.iter().map(|&argument| argument.to_owned()).collect();
        let mut cluster = Self::spawn(hosts, extra, Vec::new());
        wait_ready(&mut cluster.nodes).unwrap_or_else(|why| panic!("{why}"));
        cluster
    }

    fn spawn(
        hosts: Vec<(Ports, Vec<String>)>,
        extra: Vec<String>,
        environment: Vec<(&'static str, String)>,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut arguments = extra.clone();
        if hosts.len() > 1 {
            let seeds: Vec<&str> = hosts.iter().map(|(ports, _)| ports.peer.as_str()).collect();
            arguments.extend(["--seeds".to_owned(), seeds.join(",")]);
        }
        let nodes = hosts
            .into_iter()
            .enumerate()
            .map(|(at, (ports, wrapper))| {
                let folder = folder.path().join(at.to_string());
                Node::start_by(wrapper, &folder, ports, &arguments, environment.clone())
            })
            .collect();
        Self { nodes, extra, environment, folder }
    }

    /// Starts one more, with the first node as its seed; waits until it serves.
    pub(crate) fn join(&mut self) {
        let at = self.nodes.len();
        let mut arguments = self.extra.clone();
        arguments.extend(["--seeds".to_owned(), self.nodes[0].ports.peer.clone()]);
        let ports = Ports::free(1).remove(0);
        let folder = self.folder.path().join(at.to_string());
        let mut node = Node::start_by(Vec::new(), &folder, ports, &arguments, self.environment.clone());
        wait_ready(std::slice::from_mut(&mut node)).unwrap_or_else(|why| {
            // What it waits for is the others' to do.
            let others: Vec<String> = self.nodes.iter().map(Node::log_tail).collect();
            panic!("{why}\n{}", others.join("\n"))
        });
        self.nodes.push(node);
    }

    /// The native addresses of all nodes, as clients take them.
    pub(crate) fn addrs(&self) -> String {
        self.nodes.iter().map(|node| node.ports.native.as_str()).collect::<Vec<_>>().join(",")
    }

    /// A client that knows all nodes.
    pub(crate) fn client(&self) -> Client {
        let builder = trandb_client::Client::builder().timeout(PATIENCE);
        Client::connect_with(builder, self.addrs()).expect("a node answers")
    }

    /// Waits until each node leads as many partitions as any other, within one: no leader will move for that any more.
    pub(crate) fn wait_spread(&self) {
        eventually("leaders that are spread", || {
            let view = self.nodes[0].view();
            let leads: Vec<u32> = view.nodes.iter().map(|node| node.leads).collect();
            let all = view.partitions.iter().all(|partition| partition.leader.is_some());
            let even =
                leads.iter().min().zip(leads.iter().max()).is_some_and(|(least, most)| most - least <= 1);
            if all && even { Ok(()) } else { Err(format!("{leads:?}, all: {all}")) }
        });
    }

    /// Waits until every replica of every partition is on `replicas` nodes and holds the same; how many keys
    /// there are.
    pub(crate) fn wait_identical(&self, replicas: usize) -> u64 {
        eventually("identical replicas", || {
            let report = self.client().verify().map_err(|error| error.to_string())?;
            let full = report.partitions.iter().all(|part| {
                part.replicas.len() == replicas && part.replicas.iter().all(|(_, digest)| digest.is_ok())
            });
            if report.identical && full {
                Ok(report.partitions.iter().map(|part| part.keys).sum())
            } else {
                Err(format!("{report:?}"))
            }
        })
    }
}
