//! Network namespaces, one per node, so that links between nodes can be cut while clients reach all of them.
//!
//! ```text
//!   clients (this machine)
//!      │
//!   ═══╪════════════ client bridge ════════════
//!      │         │              │
//!      n0        n1             n2      one namespace each
//!      │         │              │
//!   ═══╧═════════╧═ peer bridge ╧══════════════   a cut takes a node's link to it down
//! ```

use std::process::{Command, Stdio};

const NATIVE_PORT: u16 = 7400;
const PEER_PORT: u16 = 7401;
const HTTP_PORT: u16 = 7402;

/// Host part of this machine's own address on the client bridge.
const GATEWAY: u8 = 254;

/// Where a node in a namespace of its own listens.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// The native protocol, for clients.
    pub native: String,
    /// Links of the other nodes.
    pub peer: String,
    /// HTTP.
    pub http: String,
}

/// Namespaces and bridges; gone on drop.
#[derive(Debug)]
pub struct Network {
    /// Distinguishes names and addresses of runs at the same time.
    tag: u8,
    nodes: usize,
}

impl Network {
    /// Sets everything up.
    ///
    /// # Errors
    /// Why this machine does not let us: no root, no `ip`.
    pub fn new(nodes: usize) -> Result<Self, String> {
        // Any part of 10/8 may be in use; a tag from the process id makes it unlikely, and `ip` refuses what is.
        let tag = (std::process::id() % 200) as u8 + 10;
        let network = Self { tag, nodes };
        for bridge in [network.bridge("c"), network.bridge("p")] {
            ip(&format!("link add {bridge} type bridge"))?;
            ip(&format!("link set {bridge} up"))?;
        }
        ip(&format!("addr add {}/24 dev {}", network.client_host(GATEWAY), network.bridge("c")))?;
        for node in 0..nodes {
            let namespace = network.namespace(node);
            ip(&format!("netns add {namespace}"))?;
            ip(&format!("-n {namespace} link set lo up"))?;
            for (side, host) in [("c", network.client_host(node as u8)), ("p", network.peer_host(node as u8))]
            {
                let (outer, inner) = (network.port(side, node), format!("{side}0"));
                ip(&format!("link add {outer} type veth peer name {inner} netns {namespace}"))?;
                ip(&format!("link set {outer} master {} up", network.bridge(side)))?;
                ip(&format!("-n {namespace} addr add {host}/24 dev {inner}"))?;
                ip(&format!("-n {namespace} link set {inner} up"))?;
            }
        }
        Ok(network)
    }

    /// Where a node listens.
    pub fn addresses(&self, node: usize) -> Addresses {
        let (client, peer) = (self.client_host(node as u8), self.peer_host(node as u8));
        Addresses {
            native: format!("{client}:{NATIVE_PORT}"),
            peer: format!("{peer}:{PEER_PORT}"),
            http: format!("{client}:{HTTP_PORT}"),
        }
    }

    /// The command line that runs a program in a node's namespace; the program takes its place.
    pub fn wrapper(&self, node: usize) -> Vec<String> {
        ["ip", "netns", "exec", &self.namespace(node)].map(str::to_owned).into()
    }

    /// Cuts a node off from the others. Packets vanish; nobody is told.
    ///
    /// # Errors
    /// What `ip` said; the link is ours, so nothing in practice.
    pub fn cut(&self, node: usize) -> Result<(), String> {
        ip(&format!("link set {} down", self.port("p", node)))
    }

    /// Ends [`Self::cut`].
    ///
    /// # Errors
    /// As of that.
    pub fn heal(&self, node: usize) -> Result<(), String> {
        ip(&format!("link set {} up", self.port("p", node)))
    }

    fn bridge(&self, side: &str) -> String {
        format!("tdb{}{side}", self.tag)
    }

    fn port(&self, side: &str, node: usize) -> String {
        format!("tdb{}{side}{node}", self.tag)
    }

    fn namespace(&self, node: usize) -> String {
        format!("tdb{}n{node}", self.tag)
    }

    fn client_host(&self, host: u8) -> String {
        format!("10.213.{}.{}", self.tag, host_part(host))
    }

    fn peer_host(&self, host: u8) -> String {
        format!("10.214.{}.{}", self.tag, host_part(host))
    }
}

/// Zero is the network itself.
fn host_part(host: u8) -> u8 {
    if host == GATEWAY { host } else { host + 1 }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What was not set up cannot be taken down.
        for node in 0..self.nodes {
            let _ = ip(&format!("netns del {}", self.namespace(node)));
            for side in ["c", "p"] {
                let _ = ip(&format!("link del {}", self.port(side, node)));
            }
        }
        for side in ["c", "p"] {
            let _ = ip(&format!("link del {}", self.bridge(side)));
        }
    }
}

fn ip(line: &str) -> Result<(), String> {
    let output = Command::new("ip")
        .args(line.split(' '))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("ip: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip {line}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
