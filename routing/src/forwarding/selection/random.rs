//! At random, with a probability in inverse proportion to weight.

use rand::{Rng, RngExt as _};

use super::weights::Weights;
use crate::tree::{Node as _, Share};

/// The inverses of weights, in a tree of sums that cannot drift.
pub(crate) type Shares = Weights<Share>;

impl Shares {
    pub(super) fn new() -> Self {
        Self::of(|_, weight| Share(1.0 / weight))
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
}
