//! Tells the programs which commit they were built from.

use std::process::Command;

/// What a git command prints, if there is git and a repository.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn main() {
    // A build without git, in a container say, can name the commit itself.
    let commit = std::env::var("TRANDB_COMMIT").ok().or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    println!("cargo::rustc-env=TRANDB_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    println!("cargo::rerun-if-env-changed=TRANDB_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    // The log changes with each commit and each checkout, HEAD itself only with the latter.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
}
