//! Weights in a tree, each leaf made of one of them: what the policies have in common that keep nothing else.

use std::time::Duration;

use crate::tree::{Node, Tree};

/// Weights and who may be chosen, and the tree that follows from both.
#[derive(Debug)]
pub(crate) struct Weights<N> {
    entries: Vec<(f64, bool)>,
    pub(super) tree: Tree<N>,
    /// The leaf at this position for this weight.
    leaf: fn(usize, f64) -> N,
}

impl<N: Node> Weights<N> {
    pub(super) fn of(leaf: fn(usize, f64) -> N) -> Self {
        Self { entries: Vec::new(), tree: Tree::new(0), leaf }
    }

    pub(super) fn reorder(&mut self, from: &[Option<usize>], weight: f64, _: Duration) {
        let old = std::mem::take(&mut self.entries);
        self.entries = from.iter().map(|from| from.map_or((weight, true), |at| old[at])).collect();
        self.tree = Tree::new(self.entries.len());
        (0..self.entries.len()).for_each(|at| self.refresh(at));
    }

    pub(super) fn set_weight(&mut self, at: usize, weight: f64, _: Duration) {
        self.entries[at].0 = weight;
        self.refresh(at);
    }

    pub(super) fn set_available(&mut self, at: usize, is_available: bool, _: Duration) {
        self.entries[at].1 = is_available;
        self.refresh(at);
    }

    pub(super) fn weight(&self, at: usize) -> f64 {
        self.entries[at].0
    }

    /// Makes the leaf follow from its entry again.
    pub(super) fn refresh(&mut self, at: usize) {
        let (weight, is_available) = self.entries[at];
        self.tree.set(at, if is_available { (self.leaf)(at, weight) } else { N::ABSENT });
    }
}
