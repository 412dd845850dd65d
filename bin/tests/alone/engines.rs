//! A node's storage engine is changed.

use crate::harness::{Node, Ports, refused, trandb};
use std::path::Path;

fn start(home: &Path, engine: &str) -> Node {
    let environment =
        vec![("TRANDB_STORAGE__ENGINE", engine.to_owned()), ("TRANDB_RAFT__KEPT_ENTRIES", "0".to_owned())];
    let arguments = ["--partitions".to_owned(), "4".to_owned()];
    let mut node = Node::start_by(Vec::new(), home, Ports::free(1).remove(0), &arguments, environment);
    node.wait_ready();
    node
}

#[test]
fn from_one_to_the_other_and_back_with_all_that_was_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().join("node");
    let engines = ["sled", "fjall", "sled"];
    for (round, engine) in engines.into_iter().enumerate() {
        let mut node = start(&home, engine);
        let client = node.client();
        for (before, earlier) in engines.iter().enumerate().take(round) {
            for key in 0..20 {
                let found = client.get(format!("{before}/{key}")).expect("is read").expect("was written");
                assert_eq!(found.value, format!("by {earlier}"));
            }
        }
        for key in 0..20 {
            client.put(format!("{round}/{key}"), format!("by {engine}")).expect("is written");
        }
        // Twice, so that the log begins after what the first has written.
        for _ in 0..2 {
            let (code, _, error) = trandb(&node.ports.native, &["checkpoint"]);
            assert_eq!(code, 0, "{error}");
        }
        let copied = node.log().matches("the checkpoints are in the other storage engine").count();
        assert_eq!(copied, round);
        node.kill9();
    }

    let config = folder.path().join("node.toml");
    std::fs::write(&config, "[storage]\nengine = \"memory\"\n").expect("is written");
    let (config, data) = (config.to_str().expect("is text"), home.join("data"));
    let (code, log) = refused(&["--config", config, "--data-dir", data.to_str().expect("is text")]);
    assert_eq!(code, 78, "{log}");
    assert!(log.contains("keeps its checkpoints in sled"), "{log}");
}
