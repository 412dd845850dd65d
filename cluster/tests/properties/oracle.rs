//! Timestamps over any history of leaders, clocks, and answers that come late or never.

use proptest::prelude::*;
use trandb_cluster::Timestamp;
use trandb_cluster::oracle::{Grant, Oracle};
use trandb_cluster::system::{SystemApplied, SystemCommand, SystemState};

#[derive(Debug, Clone)]
enum Op {
    /// Node, how its clock moves, how many.
    Grant(usize, i64, u64),
    /// Node: it proposes what it last wanted.
    Propose(usize),
    /// Node: it hears the answer to its oldest proposal.
    Hear(usize),
    /// Node: it becomes the leader. The one before only notices if the second says so.
    Lead(usize, bool),
    Crash(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => (0..3_usize, -30..40_i64, 1..700_000_u64).prop_map(|(node, moves, count)| Op::Grant(node, moves, count)),
        5 => (0..3_usize).prop_map(Op::Propose),
        5 => (0..3_usize).prop_map(Op::Hear),
        1 => (0..3_usize, any::<bool>()).prop_map(|(node, notices)| Op::Lead(node, notices)),
        1 => (0..3_usize).prop_map(Op::Crash),
    ]
}

struct Node {
    oracle: Oracle,
    clock_ms: u64,
    wanted: Option<Timestamp>,
    answers: std::collections::VecDeque<(Timestamp, Timestamp)>,
}

const WINDOW_MS: u64 = 20;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn no_timestamp_is_issued_twice_or_out_of_order(ops in proptest::collection::vec(op(), 1..200)) {
        let mut state = SystemState::default();
        let mut nodes: Vec<Node> = (0..3)
            .map(|_| Node {
                oracle: Oracle::new(WINDOW_MS),
                clock_ms: 1000,
                wanted: None,
                answers: std::collections::VecDeque::new(),
            })
            .collect();
        let mut leader = None;
        let mut issued = std::collections::BTreeMap::new();
        let mut latest = Timestamp::ZERO;
        let mut index = 0;
        for op in ops {
            match op {
                Op::Grant(node, moves, count) => {
                    let one = &mut nodes[node];
                    one.clock_ms = one.clock_ms.saturating_add_signed(moves);
                    match one.oracle.grant(one.clock_ms, count) {
                        Grant::Ready { first } => {
                            let after = first.plus(count);
                            assert!(first >= Timestamp::from_millis(one.clock_ms));
                            assert!(after <= state.timestamp_window, "not reserved");
                            if let Some((_, &before)) = issued.range(..after).next_back() {
                                assert!(before <= first, "issued twice");
                            }
                            assert!(issued.insert(first, after).is_none(), "issued twice");
                            if leader == Some(node) {
                                assert!(first >= latest, "out of order");
                                latest = after;
                            }
                        }
                        Grant::Reserve { until } => {
                            assert!(until > Timestamp::from_millis(one.clock_ms));
                            one.wanted = Some(until);
                        }
                        Grant::NotLeader => {}
                    }
                    one.wanted = one.wanted.or(one.oracle.wants_more(one.clock_ms));
                }
                // What a deposed leader proposes is never applied.
                Op::Propose(node) if leader == Some(node) => {
                    if let Some(until) = nodes[node].wanted.take() {
                        index += 1;
                        let SystemApplied::Reserved { from, until } =
                            state.apply(index, SystemCommand::ReserveTimestamps { until })
                        else {
                            panic!("refused");
                        };
                        nodes[node].answers.push_back((from, until));
                    }
                }
                Op::Hear(node) => {
                    if let Some((from, until)) = nodes[node].answers.pop_front() {
                        nodes[node].oracle.reserved(from, until);
                    }
                }
                Op::Lead(node, notices) => {
                    if let Some(old) = leader.replace(node) && notices && old != node {
                        nodes[old].oracle.retire();
                    }
                    nodes[node].oracle.lead(state.timestamp_window);
                    latest = latest.max(state.timestamp_window);
                }
                Op::Crash(node) => {
                    nodes[node].oracle = Oracle::new(WINDOW_MS);
                    nodes[node].answers.clear();
                }
                Op::Propose(_) => {}
            }
        }
    }

    #[test]
    fn a_leader_that_reserves_when_told_gets_its_timestamps(
        grants in proptest::collection::vec((0..10_000_u64, 1..1_000_000_u64), 1..50),
    ) {
        let mut oracle = Oracle::new(WINDOW_MS);
        let mut end = Timestamp::ZERO;
        oracle.lead(end);
        for (now_ms, count) in grants {
            if let Grant::Reserve { until } = oracle.grant(now_ms, count) {
                assert!(until > end, "reserves nothing");
                oracle.reserved(end, until);
                end = until;
                assert!(matches!(oracle.grant(now_ms, count), Grant::Ready { .. }));
            }
            if let Some(until) = oracle.wants_more(now_ms) {
                assert!(until > end, "reserves nothing");
                oracle.reserved(end, until);
                end = until;
                assert_eq!(oracle.wants_more(now_ms), None);
            }
        }
    }
}
