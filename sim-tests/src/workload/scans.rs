//! Scans against inserts. A scan shows one point in time: of the keys whose insertion was acknowledged, exactly
//! those with a version up to that point, each once and in order; and that point is not before the scan began.

use super::{Board, Kind, Work, Workload};
use crate::cluster::Cluster;
use crate::history::{History, now};
use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;
use trandb_client::{Condition, ScanRequest, Timestamp};

/// The kind.
pub(super) const KIND: Kind = Kind {
    name: "scans",
    about: "scans against inserts",
    make: |board| Rc::new(Scans { board, scans: RefCell::default() }),
};

const PREFIX: &str = "scan-";

struct Scans {
    board: Board,
    scans: RefCell<Vec<Seen>>,
}

/// A whole scan, all its pages.
struct Seen {
    began: Duration,
    at: Timestamp,
    keys: Vec<Bytes>,
}

impl Workload for Scans {
    fn client(self: Rc<Self>, cluster: Cluster, node: usize, mut random: StdRng) -> Work {
        Box::pin(async move {
            let client = cluster.user(node, random.random())?;
            let mut inserts = 0u64;
            while self.board.goes_on(&mut random).await {
                if random.random_bool(0.7) {
                    inserts += 1;
                    let key = format!("{PREFIX}{:08x}-{node}-{inserts}", random.random::<u32>());
                    let _ = self.board.put(&client, &key, Bytes::from("here"), Condition::Absent).await;
                    continue;
                }
                let began = now();
                let limit = random.random_range(5..100);
                let scan = ScanRequest { prefix: PREFIX.into(), limit, ..ScanRequest::default() };
                let mut pages = client.pages(scan);
                let mut seen = Seen { began, at: Timestamp(0), keys: Vec::new() };
                // One that ends with an error has shown nothing that could be judged as a whole.
                while let Ok(page) = pages.next().await {
                    let Some(page) = page else {
                        self.scans.borrow_mut().push(seen);
                        break;
                    };
                    seen.at = page.at;
                    seen.keys.extend(page.entries.into_iter().map(|entry| entry.key));
                }
            }
            Ok(())
        })
    }

    fn violations(&self, history: &History) -> Vec<String> {
        let inserted: Vec<(&str, Timestamp, Duration)> =
            history.acknowledged().filter(|(key, ..)| key.starts_with(PREFIX)).collect();
        self.scans.borrow().iter().filter_map(|seen| seen.wrong(&inserted)).collect()
    }
}

impl Seen {
    /// What is wrong with it, given all acknowledged insertions with their versions and ends.
    fn wrong(&self, inserted: &[(&str, Timestamp, Duration)]) -> Option<String> {
        let of = format!("a scan begun at {:?} that shows {}", self.began, self.at);
        if let Some(pair) = self.keys.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Some(format!("{of} has {:?} before {:?}", pair[0], pair[1]));
        }
        let keys: BTreeSet<&[u8]> = self.keys.iter().map(|key| &key[..]).collect();
        inserted.iter().find_map(|&(key, version, ended)| {
            let (due, there) = (version <= self.at, keys.contains(key.as_bytes()));
            if due != there {
                return Some(format!("{of}: {key} of {version} is there: {there}"));
            }
            (ended < self.began && !due)
                .then(|| format!("{of} is behind {key} of {version}, done at {ended:?}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(at: u64, keys: &[&'static str], inserted: &[(&str, u64, u64)]) -> bool {
        let keys = keys.iter().map(|key| Bytes::from(*key)).collect();
        let seen = Seen { began: Duration::from_millis(10), at: Timestamp(at), keys };
        let inserted: Vec<_> = inserted
            .iter()
            .map(|&(key, version, ended)| (key, Timestamp(version), Duration::from_millis(ended)))
            .collect();
        seen.wrong(&inserted).is_some()
    }

    #[test]
    fn a_scan_shows_exactly_its_point_in_time() {
        let inserted = [("a", 1, 5), ("b", 2, 20), ("c", 9, 30)];
        assert!(!wrong(5, &["a", "b"], &inserted));
        assert!(!wrong(5, &["a", "b", "unknown"], &inserted));
        assert!(wrong(5, &["a"], &inserted), "b is missing");
        assert!(wrong(5, &["a", "b", "c"], &inserted), "c came later");
        assert!(wrong(5, &["b", "a"], &inserted), "out of order");
        assert!(wrong(5, &["a", "a", "b"], &inserted), "twice");
        assert!(wrong(0, &[], &inserted), "a was done before the scan began");
    }
}
