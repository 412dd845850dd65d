//! What a seed decides before the simulation starts.

use crate::fault::{FAULTS, Fault, Lane, Strike};
use crate::settings::{Settings, pick};
use crate::weather::Climate;
use crate::workload::{Kind, WORKLOADS};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// The workload of most plans: it reads most often from leaders, and a stale read shows nowhere else as soon.
const REGISTER: &str = "register";

/// Nodes of a cluster at the most.
pub const NODES_MAX: usize = 7;

/// What a seed decides before the simulation starts.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Nodes.
    pub nodes: usize,
    /// Data partitions.
    pub partitions: u32,
    /// Replicas of each.
    pub replication: u32,
    /// What the node in the first place is set to, the one in the next, and so on, anew from the end; at its next boot each takes
    /// the next one. Operators change settings node by node.
    pub settings: Vec<Settings>,
    /// Shortest time that a message takes.
    pub latency_min: Duration,
    /// Longest time that a message takes.
    pub latency_max: Duration,
    /// Longest time that a disk takes to sync what was written to the log, a tenth of it the shortest. With none, nothing happens
    /// between the two.
    pub sync_max: Duration,
    /// How far each node's clock is ahead, or behind.
    pub clocks_ms: Vec<i64>,
    /// What clients do, by place in [`WORKLOADS`].
    pub workloads: Vec<usize>,
    /// Nodes that clients of each workload are connected to, from the first on.
    pub clients: usize,
    /// How long these clients wait for an answer.
    pub patience: Duration,
    /// The last nodes join a cluster that the others have founded, one after the other: how long after the one ahead is a
    /// member. Empty where all found it.
    pub joins: Vec<Duration>,
    /// A machine that loses its disk for good meanwhile, if any.
    pub loss: Option<Loss>,
    /// Whether nodes are started with the seeds of the first day for ever, wherever those are meanwhile.
    pub keeps_seeds: bool,
    /// What goes wrong all the while.
    pub climate: Climate,
    /// What goes wrong, in order, each in its fault's lane.
    pub faults: Vec<Planned>,
    /// Simulated time after which the run has failed.
    pub limit: Duration,
}

/// A disk that is lost, with all that was on it: the node comes back as a new member with an empty one.
#[derive(Debug, Clone)]
pub struct Loss {
    /// The node, by index.
    pub node: usize,
    /// When, after the cluster has formed.
    pub after: Duration,
    /// How long the machine is off.
    pub lasts: Duration,
    /// Whether the new disk knows the node's cluster, as one does after `trandb-node --repair`.
    pub repaired: bool,
}

/// A fault of a plan.
#[derive(Clone)]
pub struct Planned {
    /// What.
    pub fault: Fault,
    /// Whom, and how long.
    pub strike: Strike,
    /// Quiet time of its lane before it.
    pub after: Duration,
}

impl Plan {
    /// The seed's plan for a cluster of so many nodes with default settings, without faults.
    pub fn calm(seed: u64, nodes: usize) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let latency_max = Duration::from_millis(random.random_range(2..=8));
        let partitions = random.random_range(2..=5);
        Self {
            seed,
            nodes,
            partitions,
            replication: 3,
            settings: vec![Settings::default()],
            latency_min: Duration::from_millis(1),
            latency_max,
            sync_max: Duration::ZERO,
            clocks_ms: vec![0; nodes],
            workloads: vec![0],
            clients: nodes,
            patience: Duration::from_secs(2),
            joins: Vec::new(),
            loss: None,
            keeps_seeds: false,
            climate: Climate::default(),
            faults: Vec::new(),
            limit: Duration::from_secs(90),
        }
    }

    /// The seed's plan: everything in it is drawn.
    pub fn draw(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let latency_max = Duration::from_millis(random.random_range(2..=8));
        let partitions = random.random_range(2..=5);
        // Three is what most people run, and the smallest that survives anything.
        let nodes = pick(&mut random, &[1, 2, 3, 3, 3, 3, 4, 5, 5, 7]);
        // As far apart as clocks that are looked after, or as those that are not.
        let apart_ms = pick(&mut random, &[300, 4_000]);
        let workloads = loop {
            let share = |place: usize| if WORKLOADS[place].name == REGISTER { 0.75 } else { 0.3 };
            let drawn = (0..WORKLOADS.len()).filter(|&place| random.random_bool(share(place)));
            let drawn: Vec<usize> = drawn.collect();
            if !drawn.is_empty() {
                break drawn;
            }
        };
        let mut plan = Self {
            seed,
            nodes,
            partitions,
            replication: pick(&mut random, &[1, 3, 3, 3, 5]),
            settings: vec![Settings::draw(&mut random)],
            latency_min: Duration::from_millis(1),
            latency_max,
            clocks_ms: (0..nodes).map(|_| random.random_range(-apart_ms..=apart_ms)).collect(),
            workloads,
            // Clients of one node alone never see what another one says.
            clients: pick(&mut random, &[1, 2, 3, 3, 3]).min(nodes),
            patience: Duration::from_millis(pick(&mut random, &[200, 500, 2_000])),
            joins: Vec::new(),
            loss: None,
            keeps_seeds: false,
            climate: Climate::default(),
            faults: draw_faults(&mut random, nodes),
            limit: Duration::from_secs(150),
            // None, a good disk and a bad one.
            sync_max: Duration::from_millis(pick(&mut random, &[0, 4, 4, 20])),
        };
        let joining = pick(&mut random, &[0, 0, 1, 2, nodes]).min(nodes - 1);
        plan.joins = (0..joining).map(|_| Duration::from_millis(random.random_range(50..2_500))).collect();
        // Whoever is there from the beginning.
        plan.clients = plan.clients.min(plan.founders());
        // Fewer replicas do not outlive one of their disks, nor do fewer founders know that there is a cluster.
        if plan.founders() >= 3 && plan.replication >= 3 && random.random_bool(0.4) {
            plan.loss = Some(Loss {
                node: random.random_range(0..plan.founders()),
                after: Duration::from_millis(random.random_range(50..6_000)),
                lasts: Duration::from_millis(random.random_range(5..2_500)),
                repaired: random.random_bool(0.3),
            });
        }
        if random.random_bool(0.2) {
            let more = random.random_range(1..=2);
            plan.settings.extend((0..more).map(|_| Settings::draw(&mut random)));
        }
        plan.keeps_seeds = random.random_bool(0.5);
        plan.climate = Climate::draw(&mut random);
        plan
    }

    /// Leaves out the faults in these places, as a shorter plan that may fail as well.
    pub fn without_faults(&mut self, places: &BTreeSet<usize>) {
        let mut place = 0;
        self.faults.retain(|_| {
            place += 1;
            !places.contains(&(place - 1))
        });
    }

    /// Has all faults of the plan be this one; none where the cluster is too small for it.
    pub fn only_fault(&mut self, fault: Fault) {
        if self.nodes < fault.nodes_min {
            self.faults.clear();
        }
        for planned in &mut self.faults {
            planned.fault = fault;
        }
    }

    /// Leaves out the workloads of these names.
    pub fn without_workloads(&mut self, names: &BTreeSet<String>) {
        self.workloads.retain(|&place| !names.contains(WORKLOADS[place].name));
    }

    /// Whether a node may move: not one whose machine may lose its disk, by whose place it is known then, nor the first one where
    /// some know no more than their seeds, of which one has to be right.
    pub fn may_move(&self, node: usize) -> bool {
        let lost = self.loss.as_ref().map(|loss| loss.node);
        let one_stays = self.keeps_seeds || lost.is_some() || !self.joins.is_empty();
        lost != Some(node) && !(one_stays && (node == 0 || lost == Some(0)))
    }

    /// Nodes that are there from the beginning: the first ones.
    pub fn founders(&self) -> usize {
        self.nodes - self.joins.len()
    }

    /// The plan's workloads.
    pub fn kinds(&self) -> impl Iterator<Item = &'static Kind> {
        self.workloads.iter().map(|&place| &WORKLOADS[place])
    }

    /// The faults of one lane.
    pub fn lane(&self, lane: Lane) -> Vec<Planned> {
        self.faults.iter().filter(|planned| planned.fault.lane == lane).cloned().collect()
    }
}

/// Any faults in one half of the plans; in the other one or two kinds of them, again and again. Some bugs want the same
/// thing several times, and are hidden where everything else goes wrong as well (Groce et al., Swarm Testing, 2012).
fn draw_faults(random: &mut StdRng, nodes: usize) -> Vec<Planned> {
    let mut possible: Vec<Fault> = FAULTS.iter().copied().filter(|fault| fault.nodes_min <= nodes).collect();
    let kinds = pick(random, &[possible.len(), possible.len(), 2, 1]);
    while possible.len() > kinds {
        possible.swap_remove(random.random_range(0..possible.len()));
    }
    (0..random.random_range(1..=5))
        .map(|_| Planned {
            fault: pick(random, &possible),
            strike: Strike {
                node: random.random_range(0..nodes),
                lasts: Duration::from_millis(random.random_range(100..3_500)),
                random: random.random(),
            },
            after: Duration::from_millis(random.random_range(100..1_500)),
        })
        .collect()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "plan       {} nodes, {} partitions, {} replicas, latency {:?} to {:?}, syncs up to {:?}, clocks ahead {:?} ms",
            self.nodes,
            self.partitions,
            self.replication,
            self.latency_min,
            self.latency_max,
            self.sync_max,
            self.clocks_ms
        )?;
        for settings in &self.settings {
            writeln!(f, "settings   {settings}")?;
        }
        let workloads: Vec<&str> = self.kinds().map(|kind| kind.name).collect();
        write!(
            f,
            "workloads  {}, through {} nodes, by clients that wait for {:?}",
            workloads.join(", "),
            self.clients,
            self.patience
        )?;
        if !self.joins.is_empty() {
            write!(
                f,
                "\njoins      {} nodes, one after the other, after {:?}",
                self.joins.len(),
                self.joins
            )?;
        }
        if self.keeps_seeds {
            write!(f, "\nseeds      are those of the first day")?;
        }
        if let Some(Loss { node, after, lasts, repaired }) = self.loss {
            let how = if repaired { "repaired" } else { "replaced" };
            write!(f, "\ndisk       of n{} is {how} after {after:?}, within {lasts:?}", node + 1)?;
        }
        if self.climate != Climate::default() {
            write!(f, "\nweather    {}", self.climate)?;
        }
        for (place, planned) in self.faults.iter().enumerate() {
            write!(f, "\nfault {place}    {planned:?}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, strike, after } = self;
        write!(f, "{} at n{} for {:?}, after {after:?}", fault.name, strike.node + 1, strike.lasts)
    }
}
