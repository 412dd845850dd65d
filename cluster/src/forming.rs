//! How a fresh node finds or founds its cluster: what to do next, given what its seeds answer.
//!
//! The seed list is the first member set. Founding is safe to do several times over: every founder computes the
//! same ids from the same list, and the Raft group that they start decides which cluster name wins. It takes
//! a majority of fresh seeds with the same list, so a node whose disk was wiped and that can reach the others
//! never founds a second cluster: one of any majority knows the first.
//!
//! Caveat: when a majority of a cluster's disks is wiped at once, the rest cannot stop them from founding anew.
//! The old members are then refused, since their cluster has another name.

use crate::ids::{ClusterId, InstanceId, NodeId};

/// What is known of one seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeedState {
    /// No answer.
    Silent,
    /// A node without a cluster.
    Fresh {
        /// Its data directory. The asking node's own means that this seed is the asker itself.
        instance: InstanceId,
        /// The seed list that it was started with.
        seeds: Vec<String>,
    },
    /// A node that knows its cluster.
    Member {
        /// The cluster.
        cluster: ClusterId,
    },
    /// A node that belongs to a cluster of which it cannot take anybody in yet: it is starting, or its data was put aside and it
    /// waits to be taken in again itself.
    Rejoins {
        /// The cluster.
        cluster: ClusterId,
    },
}

/// What a fresh node does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Ask again later, and why.
    Wait(String),
    /// Ask this seed to be taken in.
    Join(String),
    /// Start the system group as this member, together with all of them.
    Found {
        /// This node's id.
        me: NodeId,
        /// Every founder's id and peer address.
        founders: Vec<(NodeId, String)>,
    },
}

/// The seed list as all founders see it: sorted, each address once.
pub fn normalize(seeds: &[String]) -> Vec<String> {
    let mut seeds: Vec<String> = seeds.iter().map(|seed| seed.trim().to_ascii_lowercase()).collect();
    seeds.sort();
    seeds.dedup();
    seeds
}

/// Decides what the node with `instance` does next. `seeds` is its own list, normalized, and `answers` holds one
/// state per seed.
///
/// # Panics
/// When there are not as many answers as seeds.
pub fn decide(instance: InstanceId, seeds: &[String], answers: &[SeedState]) -> Decision {
    assert_eq!(seeds.len(), answers.len(), "one answer per seed");
    for (seed, answer) in seeds.iter().zip(answers) {
        if matches!(answer, SeedState::Member { .. }) {
            return Decision::Join(seed.clone());
        }
    }
    for (seed, answer) in seeds.iter().zip(answers) {
        if let SeedState::Rejoins { cluster } = answer {
            return Decision::Wait(format!("{seed} is of cluster {cluster}, of which no member is up"));
        }
    }
    let mut me = None;
    let mut fresh = 0;
    for (place, (seed, answer)) in seeds.iter().zip(answers).enumerate() {
        if let SeedState::Fresh { instance: theirs, seeds: their_seeds } = answer {
            if *theirs == instance {
                me = Some(NodeId(place as u64 + 1));
            } else if normalize(their_seeds) != seeds {
                return Decision::Wait(format!(
                    "{seed} was started with the seeds {}, this node with {}",
                    normalize(their_seeds).join(","),
                    seeds.join(",")
                ));
            }
            fresh += 1;
        }
    }
    let majority = seeds.len() / 2 + 1;
    match me {
        None => Decision::Wait("no seed is this node, and none knows a cluster yet".into()),
        Some(_) if fresh < majority => {
            Decision::Wait(format!("{fresh} of {} seeds are there, {majority} are needed", seeds.len()))
        }
        Some(me) => {
            let founders = seeds
                .iter()
                .enumerate()
                .map(|(place, seed)| (NodeId(place as u64 + 1), seed.clone()))
                .collect();
            Decision::Found { me, founders }
        }
    }
}

/// Decides the same for a node that was a member of `cluster` before its data was put aside. It founds nothing: what the
/// others have, and it has not any more, is the cluster.
///
/// # Panics
/// When there are not as many answers as seeds.
pub fn decide_again(cluster: ClusterId, seeds: &[String], answers: &[SeedState]) -> Decision {
    assert_eq!(seeds.len(), answers.len(), "one answer per seed");
    let mut others = None;
    for (seed, answer) in seeds.iter().zip(answers) {
        match answer {
            SeedState::Member { cluster: theirs } if *theirs == cluster => {
                return Decision::Join(seed.clone());
            }
            SeedState::Member { cluster: theirs } => others = Some((seed, theirs)),
            SeedState::Silent | SeedState::Fresh { .. } | SeedState::Rejoins { .. } => {}
        }
    }
    Decision::Wait(match others {
        Some((seed, theirs)) => format!("{seed} is in cluster {theirs}, this node's data was in {cluster}"),
        None => format!("no seed is in cluster {cluster}, from which this node's data is to be rebuilt"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeds() -> Vec<String> {
        normalize(&["c:1".into(), "A:1".into(), "b:1".into(), "a:1 ".into()])
    }

    fn fresh(instance: u64) -> SeedState {
        SeedState::Fresh {
            instance: InstanceId(instance),
            seeds: vec!["b:1".into(), "a:1".into(), "c:1".into()],
        }
    }

    #[test]
    fn a_majority_of_fresh_seeds_founds_with_ids_by_place() {
        assert_eq!(seeds(), ["a:1", "b:1", "c:1"]);
        let answers = [SeedState::Silent, fresh(7), fresh(8)];
        let Decision::Found { me, founders } = decide(InstanceId(8), &seeds(), &answers) else {
            panic!("two of three are enough")
        };
        assert_eq!(me, NodeId(3));
        assert_eq!(founders[0], (NodeId(1), "a:1".into()), "also the silent one is a founder");
        assert_eq!(founders.len(), 3);
        let Decision::Found { founders: theirs, .. } = decide(InstanceId(7), &seeds(), &answers) else {
            panic!("the other one founds, too")
        };
        assert_eq!(founders, theirs, "every founder computes the same members");
    }

    #[test]
    fn a_minority_waits() {
        let decision = decide(InstanceId(8), &seeds(), &[SeedState::Silent, SeedState::Silent, fresh(8)]);
        assert_eq!(decision, Decision::Wait("1 of 3 seeds are there, 2 are needed".into()));
    }

    #[test]
    fn whoever_finds_a_cluster_joins_it_and_never_founds() {
        let member = SeedState::Member { cluster: ClusterId(5) };
        let decision = decide(InstanceId(8), &seeds(), &[fresh(7), member, fresh(8)]);
        assert_eq!(decision, Decision::Join("b:1".into()));
    }

    #[test]
    fn a_node_that_is_no_seed_does_not_found() {
        let decision = decide(InstanceId(9), &seeds(), &[fresh(6), fresh(7), fresh(8)]);
        assert_eq!(decision, Decision::Wait("no seed is this node, and none knows a cluster yet".into()));
    }

    #[test]
    fn a_node_whose_data_was_put_aside_joins_its_cluster_and_founds_none() {
        let decide = |answers: [SeedState; 3]| decide_again(ClusterId(5), &seeds(), &answers);
        let again = || SeedState::Rejoins { cluster: ClusterId(5) };
        let wait = |why: &str| Decision::Wait(why.replace('5', &ClusterId(5).to_string()));
        let none = "no seed is in cluster 5, from which this node's data is to be rebuilt";
        assert_eq!(decide([again(), fresh(7), fresh(8)]), wait(none));
        assert_eq!(decide([again(), again(), SeedState::Silent]), wait(none));
        let member = |cluster| SeedState::Member { cluster: ClusterId(cluster) };
        assert_eq!(decide([member(6), again(), member(5)]), Decision::Join("c:1".into()));
        let Decision::Wait(why) = decide([again(), member(6), SeedState::Silent]) else { panic!("another") };
        assert!(why.starts_with("b:1 is in cluster"), "{why}");
    }

    #[test]
    fn nobody_founds_beside_a_node_that_belongs_to_a_cluster() {
        let answers = [fresh(7), fresh(8), SeedState::Rejoins { cluster: ClusterId(5) }];
        let Decision::Wait(why) = decide(InstanceId(8), &seeds(), &answers) else { panic!("there was one") };
        assert_eq!(why, format!("c:1 is of cluster {}, of which no member is up", ClusterId(5)));
    }

    #[test]
    fn seeds_with_different_lists_wait_and_say_so() {
        let other = SeedState::Fresh { instance: InstanceId(7), seeds: vec!["a:1".into(), "z:1".into()] };
        let Decision::Wait(why) = decide(InstanceId(8), &seeds(), &[other, fresh(8), SeedState::Silent])
        else {
            panic!("they do not agree")
        };
        assert_eq!(why, "a:1 was started with the seeds a:1,z:1, this node with a:1,b:1,c:1");
    }
}
