//! The smallest weight.

use std::time::Duration;

use crate::tree::{Least, Tree};

/// Weights in a tree whose root is the least.
#[derive(Debug)]
pub(crate) struct Impedance {
    entries: Vec<(f64, bool)>,
    tree: Tree<Least>,
}

impl Impedance {
    pub(super) fn new() -> Self {
        Self { entries: Vec::new(), tree: Tree::new(0) }
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

    pub(super) fn select(&self, excluded: Option<usize>) -> Option<usize> {
        self.tree.least_but(excluded)
    }

    fn refresh(&mut self, at: usize) {
        let (weight, is_available) = self.entries[at];
        self.tree.set(at, Least::leaf(at, is_available.then_some(weight), 0));
    }
}
