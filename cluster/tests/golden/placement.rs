//! Placement and leadership transfers.

use crate::args::{next, numbers};
use goldenscript::{ArgumentConsumer, Command, Context};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use trandb_cluster::placement::{place, rebalance_leaders};
use trandb_cluster::{NodeId, PartitionId};

#[test]
fn placement() {
    crate::run_all::<Runner>("placement");
}

#[derive(Default)]
struct Runner {
    placement: BTreeMap<PartitionId, Vec<NodeId>>,
}

fn nodes(text: &str) -> Result<Vec<NodeId>, Box<dyn Error>> {
    Ok(numbers(text)?.into_iter().map(NodeId).collect())
}

fn join(nodes: &[NodeId]) -> String {
    nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(" ")
}

fn place_args(args: &mut ArgumentConsumer<'_>) -> Result<BTreeMap<PartitionId, Vec<NodeId>>, Box<dyn Error>> {
    let nodes = nodes(&next::<String>(args)?)?;
    let partitions = crate::args::named(args, "partitions")?;
    Ok(place(&nodes, partitions, crate::args::named(args, "replication")?))
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let mut out = String::new();
        match command.name.as_str() {
            // place NODES partitions=N replication=N: prints it all.
            "place" => {
                self.placement = place_args(&mut args)?;
                for (partition, replicas) in &self.placement {
                    writeln!(out, "{partition} on {}", join(replicas))?;
                }
            }
            // change NODES partitions=N replication=N: prints whose replicas come and go.
            "change" => {
                let placement = place_args(&mut args)?;
                for (partition, replicas) in &placement {
                    let old: BTreeSet<_> = self.placement[partition].iter().copied().collect();
                    let new: BTreeSet<_> = replicas.iter().copied().collect();
                    if old != new {
                        let gone: Vec<_> = old.difference(&new).copied().collect();
                        let come: Vec<_> = new.difference(&old).copied().collect();
                        writeln!(out, "{partition} from {} to {}", join(&gone), join(&come))?;
                    }
                }
                self.placement = placement;
            }
            // load: replicas and preferred leaderships per node.
            "load" => {
                let mut load: BTreeMap<NodeId, (u32, u32)> = BTreeMap::new();
                for replicas in self.placement.values() {
                    for (position, node) in replicas.iter().enumerate() {
                        let (holds, leads) = load.entry(*node).or_default();
                        *holds += 1;
                        *leads += u32::from(position == 0);
                    }
                }
                for (node, (holds, leads)) in load {
                    writeln!(out, "{node} holds {holds} leads {leads}")?;
                }
            }
            // rebalance up=NODES PARTITION=LEADER/OTHER/REPLICAS...
            "rebalance" => {
                let up = nodes(&crate::args::named::<String>(&mut args, "up")?)?.into_iter().collect();
                let (mut leaders, mut replicas) = (BTreeMap::new(), BTreeMap::new());
                while let Some((partition, list)) = args.next_key() {
                    let (partition, list) = (PartitionId(partition.parse()?), nodes(list)?);
                    leaders.insert(partition, list[0]);
                    replicas.insert(partition, list);
                }
                for (partition, from, to) in rebalance_leaders(&leaders, &replicas, &up) {
                    writeln!(out, "{partition} from {from} to {to}")?;
                }
            }
            name => return Err(format!("no command {name}").into()),
        }
        args.reject_next()?;
        Ok(out)
    }
}
