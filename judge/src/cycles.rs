//! Cycles of transactions that each must come before the next, and their names.
//!
//! | name | what the cycle is made of |
//! |---|---|
//! | `G0` | overwrites alone |
//! | `G1c` | overwrites and reads of what was written |
//! | `G-single` | besides these one read of what was overwritten |
//! | `G-nonadjacent` | several of them, no two in a row: still no snapshot explains it |
//! | `G2` | several of them, two in a row somewhere: write skew and its kin |
//!
//! `-realtime` behind a name says that the cycle needs the clock on the wall.

use crate::Anomaly;
use crate::graph::{Edge, EdgeKind, Graph};
use crate::transactions::{Outcome, Run};

/// How many reads of what was overwritten are tried for being the only one of a cycle, before it is called by the
/// other name. Levels treat both alike.
const SINGLE_TRIES: usize = 1000;

const NAMES: [[&str; 5]; 2] = [
    ["G0", "G1c", "G-single", "G-nonadjacent", "G2"],
    ["G0-realtime", "G1c-realtime", "G-single-realtime", "G-nonadjacent-realtime", "G2-realtime"],
];

/// The worst cycle, and the worst among those that need time if that is worse still: no level that allows these
/// forbids the others.
pub(crate) fn anomalies<'h>(run: &Run<'h>, mut edges: Vec<Edge<'h>>) -> Vec<Anomaly> {
    let plain = worst(&edges, run.all.len());
    let vertices = add_time(run, &mut edges);
    let timed = worst(&edges, vertices);
    let name = |names: [&'static str; 5], (rank, cycle): &(usize, Vec<usize>)| Anomaly {
        name: names[*rank],
        message: describe(run, &edges, cycle),
    };
    let worse = timed.filter(|(rank, _)| plain.as_ref().is_none_or(|(plain, _)| rank < plain));
    plain
        .iter()
        .map(|cycle| name(NAMES[0], cycle))
        .chain(worse.iter().map(|cycle| name(NAMES[1], cycle)))
        .collect()
}

/// Adds what came before what by the clock, and says how many vertices there are then. Every end is a vertex of its
/// own on a line through time, which keeps the edges few.
fn add_time<'h>(run: &Run<'h>, edges: &mut Vec<Edge<'h>>) -> usize {
    let mut lines: Vec<(usize, usize, bool)> = Vec::new();
    for (at, transaction) in run.all.iter().enumerate() {
        if transaction.outcome != Outcome::Failed {
            lines.push((transaction.began, at, false));
            lines.extend(transaction.ended.map(|ended| (ended, at, true)));
        }
    }
    lines.sort_unstable();
    let (mut vertices, mut last) = (run.all.len(), None);
    for (_, at, ended) in lines {
        let time = |from, to| Edge { from, to, kind: EdgeKind::Time, key: "" };
        if ended {
            edges.push(time(at, vertices));
            edges.extend(last.map(|last| time(last, vertices)));
            last = Some(vertices);
            vertices += 1;
        } else {
            edges.extend(last.map(|last| time(last, at)));
        }
    }
    vertices
}

/// The edges of the worst cycle, and its rank among the names.
fn worst(edges: &[Edge<'_>], vertices: usize) -> Option<(usize, Vec<usize>)> {
    use EdgeKind::{Rw, Time, Wr, Ww};
    let of = |kinds: &[EdgeKind]| {
        let mut graph = Graph::new(vertices);
        for (label, edge) in edges.iter().enumerate().filter(|(_, edge)| kinds.contains(&edge.kind)) {
            graph.connect(edge.from, edge.to, label);
        }
        let components = graph.components();
        (graph, components)
    };
    let through = |wanted: EdgeKind, (graph, components): &(Graph, Vec<usize>)| {
        let inside = |edge: &Edge<'_>| edge.kind == wanted && components[edge.from] == components[edge.to];
        let label = edges.iter().position(inside)?;
        let back = graph.path(edges[label].to, edges[label].from, components)?;
        Some(std::iter::once(label).chain(back).collect())
    };
    if let Some(cycle) = through(Ww, &of(&[Ww, Time])) {
        return Some((0, cycle));
    }
    let written = of(&[Ww, Wr, Time]);
    if let Some(cycle) = through(Wr, &written) {
        return Some((1, cycle));
    }
    if let Some(cycle) = apart(edges, vertices) {
        let anywhere = vec![0; vertices];
        let reads = edges.iter().enumerate().filter(|(_, edge)| edge.kind == Rw).take(SINGLE_TRIES);
        let single = reads.filter_map(|(label, edge)| {
            let back = written.0.path(edge.to, edge.from, &anywhere)?;
            Some(std::iter::once(label).chain(back).collect())
        });
        return Some(single.min_by_key(Vec::len).map_or((3, cycle), |single| (2, single)));
    }
    through(Rw, &of(&[Ww, Wr, Rw, Time])).map(|cycle| (4, cycle))
}

/// A cycle in which no two reads of what was overwritten follow each other. Each vertex is there twice, the second
/// time for those who came by such a read and must not go on by another.
fn apart(edges: &[Edge<'_>], vertices: usize) -> Option<Vec<usize>> {
    let mut graph = Graph::new(2 * vertices);
    for (label, edge) in edges.iter().enumerate() {
        if edge.kind == EdgeKind::Rw {
            graph.connect(edge.from, vertices + edge.to, label);
        } else {
            graph.connect(edge.from, edge.to, label);
            graph.connect(vertices + edge.from, edge.to, label);
        }
    }
    let components = graph.components();
    let inside = |edge: &Edge<'_>| {
        edge.kind == EdgeKind::Rw && components[edge.from] == components[vertices + edge.to]
    };
    let label = edges.iter().position(inside)?;
    let back = graph.path(vertices + edges[label].to, edges[label].from, &components)?;
    Some(std::iter::once(label).chain(back).collect())
}

fn describe(run: &Run<'_>, edges: &[Edge<'_>], cycle: &[usize]) -> String {
    let mut told = String::new();
    for label in cycle {
        let Edge { from, kind, key, .. } = edges[*label];
        // A vertex beyond the transactions is a moment.
        let Some(transaction) = run.all.get(from) else { continue };
        let why = match kind {
            EdgeKind::Ww => format!("wrote {key} before"),
            EdgeKind::Wr => format!("wrote what of {key} was seen by"),
            EdgeKind::Rw => format!("did not see what to {key} was written by"),
            EdgeKind::Time => "had ended before there began".to_owned(),
        };
        told.push_str(&format!("{transaction} {why} "));
    }
    told.push_str("the first of these");
    told
}
