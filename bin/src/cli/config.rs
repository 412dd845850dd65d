//! `config check|show`: the configuration that `trandb-node` would start with, given the same flags, file, and
//! environment.

use super::args::{Format, Global};
use super::failure::Failure;
use super::output::{self, Rows};
use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;
use trandb::node::Args;
use trandb_runtime::config::{Config, EX_CONFIG};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Say whether a node would start with it; exit 78 if not.
    Check(Args),
    /// Print every key with its value, secrets hidden.
    Show(Args),
}

pub(crate) fn run(command: Command, global: &Global, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let (args, show) = match command {
        Command::Check(args) => (args, false),
        Command::Show(args) => (args, true),
    };
    let config = Config::load(&args.sources()).map_err(|error| Failure::new(EX_CONFIG, error.to_string()))?;
    if show {
        print(&config, global.output, out)?;
    } else {
        eprintln!("the configuration is valid");
    }
    Ok(ExitCode::SUCCESS)
}

fn print(config: &Config, format: Format, out: &mut dyn Write) -> std::io::Result<()> {
    match format {
        // Its own format is the one that people know it in.
        Format::Table => write!(out, "{}", config.to_toml()),
        Format::Json => output::print_json(&json!(config), out),
        Format::Csv => {
            let mut rows = Rows::new(&["key", "value"]);
            flatten("", &json!(config), &mut rows);
            rows.print(format, out)
        }
    }
}

/// One row per value, under its dotted key.
fn flatten(prefix: &str, value: &Value, rows: &mut Rows) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&key, value, rows);
            }
        }
        value => rows.push(vec![json!(prefix), value.clone()]),
    }
}
