//! A log with compressed commands in it.

use crate::harness::{Cluster, Node};
use std::path::Path;

const SEGMENT_BYTES: usize = 16 << 20;
const VALUE_BYTES: usize = 1 << 20;
const VALUES: usize = 40;

fn value(at: usize) -> Vec<u8> {
    format!("the {at}th of many values that say the same again and again; ")
        .into_bytes()
        .repeat(VALUE_BYTES / 64)
}

fn configure(file: &Path, lz4_bytes: usize) {
    let text = format!("[storage]\nwal_segment_bytes = {SEGMENT_BYTES}\nwal_lz4_bytes = {lz4_bytes}\n");
    std::fs::write(file, text).expect("is written");
}

fn segments(node: &Node) -> usize {
    std::fs::read_dir(node.data_dir().join("wal")).expect("a log").count()
}

fn check(node: &Node) {
    let client = node.client();
    for at in 0..VALUES {
        let found = client.get(format!("v/{at}")).expect("is read").expect("is there");
        assert!(found.value == value(at), "{at}");
    }
}

#[test]
fn a_compressed_log_is_smaller_and_read_whatever_is_set_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("node.toml");
    configure(&config, 4096);
    let mut cluster =
        Cluster::start(1, &["--partitions", "4", "--config", config.to_str().expect("is text")]);
    let node = &mut cluster.nodes[0];
    let client = node.client();
    for at in 0..VALUES {
        client.put(format!("v/{at}"), value(at)).expect("is written");
    }
    // 40 MiB of values in segments of 16 MiB: one of them in use, and perhaps the next one, made ahead.
    assert!(segments(node) <= 2, "{} segments", segments(node));
    for lz4_bytes in [0, 4096] {
        node.kill9();
        configure(&config, lz4_bytes);
        node.restart();
        check(node);
    }
}
