//! What replicas say of themselves, and who is wrong.

use crate::args::{named, next, numbers, optional};
use goldenscript::{Command, Context};
use std::error::Error;
use trandb_cluster::NodeId;
use trandb_cluster::audit::{Report, Verdict, judge};
use trandb_cluster::digest::Digest;

#[test]
fn audit() {
    crate::run_all::<Runner>("audit");
}

#[derive(Default)]
struct Runner {
    reports: Vec<Report>,
}

fn names(nodes: &[NodeId]) -> String {
    nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ")
}

fn show(verdict: Verdict) -> String {
    match verdict {
        Verdict::Agree => "agree".to_owned(),
        Verdict::Wrong { replicas, lenders } => {
            let wrong: Vec<_> = replicas.iter().map(|(node, fault)| format!("{node}: {fault}")).collect();
            format!("{}\nrebuilt from {}", wrong.join("\n"), names(&lenders))
        }
        Verdict::Undecided { digests } => {
            let nodes: Vec<_> = digests.into_iter().map(|(node, _)| node).collect();
            format!("undecided between {}", names(&nodes))
        }
    }
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let output = match command.name.as_str() {
            // report NODE DIGEST [at=INDEX] [sound=false]
            "report" => {
                self.reports.push(Report {
                    node: NodeId(next(&mut args)?),
                    digest: next::<Digest>(&mut args)?,
                    index: optional(&mut args, "at")?.unwrap_or(9),
                    sound: optional(&mut args, "sound")?.unwrap_or(true),
                });
                String::new()
            }
            // judge voters=NODE/NODE/...: by all reports since the last judgement, at index 9.
            "judge" => {
                let voters: Vec<_> =
                    numbers(&named::<String>(&mut args, "voters")?)?.into_iter().map(NodeId).collect();
                show(judge(&voters, 9, &std::mem::take(&mut self.reports)))
            }
            name => return Err(format!("no command {name}").into()),
        };
        args.reject_next()?;
        Ok(output)
    }
}
