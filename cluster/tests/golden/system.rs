//! The system group's commands.

use crate::args::{named, next, numbers, optional};
use goldenscript::{ArgumentConsumer, Command, Context};
use std::error::Error;
use std::fmt::Write as _;
use trandb_cluster::system::{NodeAddresses, NodeInfo, SystemCommand, SystemState};
use trandb_cluster::table::RoutingTable;
use trandb_cluster::{ClusterId, Epoch, InstanceId, NodeId, PartitionId, Timestamp, Token};

#[test]
fn system() {
    crate::run_all::<Runner>("system");
}

#[derive(Default)]
struct Runner {
    state: SystemState,
    index: u64,
}

fn addresses(host: &str) -> NodeAddresses {
    NodeAddresses {
        peer: format!("{host}/peer"),
        http: format!("{host}/http"),
        native: format!("{host}/native"),
    }
}

impl Runner {
    fn command(&self, name: &str, args: &mut ArgumentConsumer<'_>) -> Result<SystemCommand, Box<dyn Error>> {
        Ok(match name {
            // found CLUSTER partitions=N replication=N [ID=HOST | ID@INSTANCE=HOST]...
            "found" => {
                let cluster_id = ClusterId(next(args)?);
                let partitions = named(args, "partitions")?;
                let replication = named(args, "replication")?;
                let mut nodes = std::collections::BTreeMap::new();
                while let Some((id, host)) = args.next_key() {
                    let (id, instance) = id.split_once('@').unwrap_or((id, "0"));
                    let info = NodeInfo {
                        instance: InstanceId(instance.parse()?),
                        addresses: addresses(host),
                        removed: false,
                    };
                    nodes.insert(NodeId(id.parse()?), info);
                }
                SystemCommand::Found { cluster_id, nodes, partitions, replication }
            }
            // join INSTANCE HOST [node=ID]
            "join" => SystemCommand::Join {
                instance: InstanceId(next(args)?),
                addresses: addresses(&next::<String>(args)?),
                node: NodeId(optional(args, "node")?.unwrap_or(0)),
            },
            // place epoch=N PARTITION=NODES...
            "place" => {
                let epoch = Epoch(named(args, "epoch")?);
                let mut replicas = std::collections::BTreeMap::new();
                while let Some((partition, nodes)) = args.next_key() {
                    let nodes = if nodes.is_empty() { vec![] } else { numbers(nodes)? };
                    replicas.insert(PartitionId(partition.parse()?), nodes.into_iter().map(NodeId).collect());
                }
                SystemCommand::Place { epoch, replicas }
            }
            // reserve UNTIL
            "reserve" => SystemCommand::ReserveTimestamps { until: Timestamp(next(args)?) },
            _ => return Err(format!("no command {name}").into()),
        })
    }

    fn show(&self) -> Result<String, Box<dyn Error>> {
        let mut out = format!("epoch {}", self.state.epoch);
        if let Some(cluster) = self.state.cluster_id {
            write!(out, " cluster {} replication {}", cluster.0, self.state.replication)?;
        }
        writeln!(out)?;
        for (id, info) in &self.state.nodes {
            let removed = if info.removed { " removed" } else { "" };
            writeln!(out, "{id} instance {} at {}{removed}", info.instance.0, info.addresses.peer)?;
        }
        for (id, info) in &self.state.partitions {
            let list = |nodes: &[NodeId]| nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(" ");
            let start = format!("{:016x}", info.start.0);
            write!(out, "{id} from {start} on {}", list(&info.replicas))?;
            if info.founders != info.replicas {
                write!(out, " founded on {}", list(&info.founders))?;
            }
            writeln!(out)?;
        }
        Ok(out)
    }
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let table = RoutingTable::from_state(&self.state);
        let output = match command.name.as_str() {
            "show" => self.show()?,
            // route TOKEN_IN_HEX
            "route" => {
                let token = Token(u64::from_str_radix(&next::<String>(&mut args)?, 16)?);
                match table.partition_of(token) {
                    Some(id) => format!("{id} on {:?}", table.replicas(id)),
                    None => "nowhere".to_owned(),
                }
            }
            // keyspace [NAME]
            "keyspace" => match table.keyspace(args.next_pos()) {
                Ok(id) => id.to_string(),
                Err(error) => error.to_string(),
            },
            "members" => {
                table.nodes().map(|(id, info)| format!("{id} at {}\n", info.addresses.native)).collect()
            }
            name => {
                let command = self.command(name, &mut args)?;
                self.index += 1;
                let before = self.state.clone();
                let applied = self.state.apply(self.index, command);
                let map = |state: &SystemState| {
                    (state.nodes.clone(), state.keyspaces.clone(), state.partitions.clone())
                };
                let changed = map(&before) != map(&self.state);
                assert_eq!(
                    changed,
                    before.epoch != self.state.epoch,
                    "the epoch tells of a change of the map"
                );
                assert!(!changed || self.state.epoch == Epoch(self.index));
                format!("{applied:?}")
            }
        };
        args.reject_next()?;
        Ok(output)
    }
}
