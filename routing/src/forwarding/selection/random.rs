//! At random, with a probability in inverse proportion to weight.

use std::time::Duration;

use rand::{Rng, RngExt as _};

use crate::tree::{Node as _, Share, Tree};

/// The inverses of weights, in a tree of sums that cannot drift.
#[derive(Debug)]
pub(crate) struct Shares {
    entries: Vec<(f64, bool)>,
    tree: Tree<Share>,
}

impl Shares {
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

    pub(super) fn select(&mut self, excluded: Option<usize>, rng: &mut impl Rng) -> Option<usize> {
        if let Some(at) = excluded {
            self.tree.set(at, Share::ABSENT);
        }
        let chosen = self.tree.draw(rng.random());
        if let Some(at) = excluded {
            self.refresh(at);
        }
        chosen
    }

    fn refresh(&mut self, at: usize) {
        let (weight, is_available) = self.entries[at];
        self.tree.set(at, if is_available { Share(1.0 / weight) } else { Share::ABSENT });
    }
}
