//! The smallest weight.

use super::weights::Weights;
use crate::tree::Least;

/// Weights in a tree whose root is the least.
pub(crate) type Impedance = Weights<Least>;

impl Impedance {
    pub(super) fn new() -> Self {
        Self::of(|at, weight| Least { key: weight, tie: 0, at })
    }

    pub(super) fn select(&self, excluded: Option<usize>) -> Option<usize> {
        self.tree.least_but(excluded)
    }
}
