//! Directed graphs with labelled edges: strongly connected components and shortest paths.

use std::collections::VecDeque;

/// Which of two transactions must come first, and what tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edge<'h> {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) kind: EdgeKind,
    /// The key that tells; empty for time.
    pub(crate) key: &'h str,
}

/// What tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EdgeKind {
    /// The second overwrote what the first wrote.
    Ww,
    /// The second read what the first wrote.
    Wr,
    /// The second overwrote what the first read.
    Rw,
    /// The second began after the first had ended.
    Time,
}

/// A graph of vertices from 0 on, whose edges carry labels.
pub(crate) struct Graph {
    out: Vec<Vec<(usize, usize)>>,
}

impl Graph {
    /// Without edges yet.
    pub(crate) fn new(vertices: usize) -> Self {
        Self { out: vec![Vec::new(); vertices] }
    }

    /// Adds an edge.
    pub(crate) fn connect(&mut self, from: usize, to: usize, label: usize) {
        self.out[from].push((to, label));
    }

    /// The strongly connected component of each vertex: two vertices are on a circle together if theirs is the same.
    /// R. Tarjan's algorithm (1972), without recursion.
    pub(crate) fn components(&self) -> Vec<usize> {
        const NEVER: usize = usize::MAX;
        let count = self.out.len();
        let (mut index, mut low, mut component) = (vec![NEVER; count], vec![0; count], vec![NEVER; count]);
        let (mut stack, mut calls) = (Vec::new(), Vec::new());
        let (mut indexes, mut components) = (0, 0);
        for root in 0..count {
            if index[root] != NEVER {
                continue;
            }
            calls.push((root, 0));
            while let Some((vertex, next)) = calls.pop() {
                if next == 0 {
                    (index[vertex], low[vertex]) = (indexes, indexes);
                    indexes += 1;
                    stack.push(vertex);
                } else {
                    let (child, _) = self.out[vertex][next - 1];
                    if component[child] == NEVER {
                        low[vertex] = low[vertex].min(low[child]);
                    }
                }
                let unvisited = self.out[vertex][next..].iter().position(|(to, _)| {
                    if index[*to] != NEVER && component[*to] == NEVER {
                        low[vertex] = low[vertex].min(index[*to]);
                    }
                    index[*to] == NEVER
                });
                if let Some(skipped) = unvisited {
                    let at = next + skipped;
                    calls.push((vertex, at + 1));
                    calls.push((self.out[vertex][at].0, 0));
                    continue;
                }
                if low[vertex] == index[vertex] {
                    while let Some(member) = stack.pop() {
                        component[member] = components;
                        if member == vertex {
                            break;
                        }
                    }
                    components += 1;
                }
            }
        }
        component
    }

    /// The labels along a shortest path that stays among the vertices of one component.
    pub(crate) fn path(&self, from: usize, to: usize, components: &[usize]) -> Option<Vec<usize>> {
        let mut came: Vec<Option<(usize, usize)>> = vec![None; self.out.len()];
        let mut queue = VecDeque::from([from]);
        while let Some(vertex) = queue.pop_front() {
            if vertex == to {
                break;
            }
            for (next, label) in &self.out[vertex] {
                if components[*next] == components[from] && *next != from && came[*next].is_none() {
                    came[*next] = Some((vertex, *label));
                    queue.push_back(*next);
                }
            }
        }
        let (mut labels, mut at) = (Vec::new(), to);
        while at != from {
            let (before, label) = came[at]?;
            labels.push(label);
            at = before;
        }
        labels.reverse();
        Some(labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn graph(vertices: usize, edges: &[(usize, usize)]) -> Graph {
        let mut graph = Graph::new(vertices);
        for (label, (from, to)) in edges.iter().enumerate() {
            graph.connect(*from, *to, label);
        }
        graph
    }

    #[test]
    fn a_path_names_its_edges() {
        let graph = graph(4, &[(0, 1), (1, 2), (2, 0), (1, 3)]);
        let components = graph.components();
        assert_eq!(graph.path(1, 0, &components), Some(vec![1, 2]));
        assert_eq!(graph.path(1, 3, &components), None, "it is no part of the circle");
    }

    proptest! {
        #[test]
        fn two_are_in_one_component_if_each_is_reached_from_the_other(
            edges in prop::collection::vec((0_usize..12, 0_usize..12), 0..40),
        ) {
            let mut reached = [[false; 12]; 12];
            for (at, row) in reached.iter_mut().enumerate() {
                row[at] = true;
            }
            for (from, to) in &edges {
                reached[*from][*to] = true;
            }
            for via in 0..12 {
                for from in 0..12 {
                    for to in 0..12 {
                        reached[from][to] |= reached[from][via] && reached[via][to];
                    }
                }
            }
            let components = graph(12, &edges).components();
            for from in 0..12 {
                for to in 0..12 {
                    let together = reached[from][to] && reached[to][from];
                    prop_assert_eq!(together, components[from] == components[to], "{} and {}", from, to);
                }
            }
        }
    }
}
