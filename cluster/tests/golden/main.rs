//! Golden scripts: readable inputs and what the pure cores answer to them. `UPDATE_GOLDENFILES=1 cargo test` writes
//! the answers anew; read the difference before committing it.

mod args;
mod audit;
mod oracle;
mod partition;
mod placement;
#[path = "../shared/mod.rs"]
mod shared;
mod system;
mod transactions;

/// Runs every script in a folder, each with a fresh runner.
fn run_all<R: goldenscript::Runner + Default>(folder: &str) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/scripts").join(folder);
    let mut scripts: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("readable").path())
        .collect();
    scripts.sort();
    assert!(!scripts.is_empty(), "no scripts in {}", folder.display());
    for script in scripts {
        if let Err(error) = goldenscript::run(&mut R::default(), &script) {
            panic!("{}: {error}", script.display());
        }
    }
}
