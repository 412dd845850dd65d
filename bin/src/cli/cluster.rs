//! `cluster status|nodes|partitions|verify`, `checkpoint` and `health`.

use super::args::{Format, Global};
use super::failure::{FAILED, Failure, UNAVAILABLE};
use super::output::{self, Rows};
use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;
use trandb_client::{Client, ClusterView, VerifyReport};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Nodes and partitions in short.
    Status,
    /// Every node.
    Nodes,
    /// Every partition: leader, replicas, progress.
    Partitions,
    /// Compare all replicas by digest; exit 1 if they differ.
    Verify,
}

pub(crate) async fn run(
    command: Command,
    global: &Global,
    client: &Client,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    match command {
        Command::Status => status(&client.cluster_status().await?, global.output, out)?,
        Command::Nodes => nodes(&client.cluster_status().await?).print(global.output, out)?,
        Command::Partitions => partitions(&client.cluster_status().await?).print(global.output, out)?,
        Command::Verify => {
            let report = client.verify().await?;
            verified(&report, global.output, out)?;
            if !report.identical {
                return Err(Failure::new(FAILED, "not all replicas answered with the same digest"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn status(view: &ClusterView, format: Format, out: &mut dyn Write) -> std::io::Result<()> {
    match format {
        Format::Json => output::print_json(&json!(view), out),
        Format::Csv => nodes(view).print(format, out),
        Format::Table => {
            let cluster = view.cluster_id.map_or("forming".to_owned(), |id| id.to_string());
            let up = view.nodes.iter().filter(|node| node.state == "up").count();
            let led = view.partitions.len() - leaderless(view).len();
            writeln!(out, "cluster     {cluster}")?;
            writeln!(out, "answered by {}", view.answered_by)?;
            writeln!(out, "nodes       {up} of {} up", view.nodes.len())?;
            writeln!(out, "partitions  {led} of {} with a leader", view.partitions.len())?;
            writeln!(out)?;
            nodes(view).print(format, out)
        }
    }
}

fn nodes(view: &ClusterView) -> Rows {
    let mut rows = Rows::new(&["id", "state", "leads", "native", "http", "peer"]);
    for node in &view.nodes {
        rows.push(vec![
            json!(node.id.0),
            json!(node.state),
            json!(node.leads),
            json!(node.native),
            json!(node.http),
            json!(node.peer),
        ]);
    }
    rows
}

fn partitions(view: &ClusterView) -> Rows {
    let mut rows = Rows::new(&["id", "leader", "term", "applied", "replicas", "start"]);
    for partition in &view.partitions {
        rows.push(vec![
            json!(partition.id.0),
            partition.leader.map_or(Value::Null, |leader| json!(leader.0)),
            json!(partition.term),
            json!(partition.applied),
            json!(partition.replicas),
            match partition.start.as_str() {
                "" => Value::Null,
                start => json!(start),
            },
        ]);
    }
    rows
}

fn verified(report: &VerifyReport, format: Format, out: &mut dyn Write) -> std::io::Result<()> {
    if format == Format::Json {
        return output::print_json(&json!(report), out);
    }
    let mut rows = Rows::new(&["partition", "applied", "keys", "identical", "node", "digest"]);
    for partition in &report.partitions {
        for (node, digest) in &partition.replicas {
            rows.push(vec![
                json!(partition.id.0),
                json!(partition.applied),
                json!(partition.keys),
                json!(partition.identical),
                json!(node.0),
                json!(digest.as_ref().unwrap_or_else(|reason| reason)),
            ]);
        }
    }
    rows.print(format, out)
}

pub(crate) async fn checkpoint(
    global: &Global,
    client: &Client,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let report = client.checkpoint().await?;
    if global.output == Format::Json {
        output::print_json(&json!(report), out)?;
    } else {
        let mut rows = Rows::new(&["partition", "node", "index", "error"]);
        for (partition, node, reached) in &report.replicas {
            let (index, error) = match reached {
                Ok(index) => (json!(index), Value::Null),
                Err(why) => (Value::Null, json!(why)),
            };
            rows.push(vec![json!(partition.0), json!(node.0), index, error]);
        }
        rows.print(global.output, out)?;
    }
    match report.complete {
        true => Ok(ExitCode::SUCCESS),
        false => Err(Failure::new(FAILED, "not every replica has written its checkpoint")),
    }
}

/// Partitions that nobody leads, by number.
fn leaderless(view: &ClusterView) -> Vec<u32> {
    let leaderless = view.partitions.iter().filter(|partition| partition.leader.is_none());
    leaderless.map(|partition| partition.id.0).collect()
}

pub(crate) async fn health(
    global: &Global,
    client: &Client,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let view = client.cluster_status().await?;
    let mut reasons = Vec::new();
    if view.cluster_id.is_none() {
        reasons.push("the cluster is still forming".to_owned());
    }
    let without = leaderless(&view);
    if !without.is_empty() {
        reasons.push(format!("partitions without a leader: {without:?}"));
    }
    // A missing node is worth saying, but keys can be served without it.
    let missing: Vec<_> = view
        .nodes
        .iter()
        .filter(|node| node.state != "up" && node.state != "removed")
        .map(|node| format!("{} is {}", node.id, node.state))
        .collect();
    let healthy = reasons.is_empty();
    match global.output {
        Format::Table if healthy => writeln!(out, "healthy")?,
        Format::Table => writeln!(out, "unhealthy")?,
        format => {
            let fields = vec![json!(healthy), json!(reasons), json!(missing)];
            output::print_fields(&["healthy", "reasons", "nodes_missing"], fields, format, out)?;
        }
    }
    out.flush()?;
    for line in missing {
        eprintln!("trandb: {line}");
    }
    match healthy {
        true => Ok(ExitCode::SUCCESS),
        false => Err(Failure::new(UNAVAILABLE, reasons.join("; "))),
    }
}
