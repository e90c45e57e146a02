//! Sums of leaves in whole numbers.
//!
//! Leaves and threshold of a stage are rounded to fixed point, with as many fraction bits as the greatest possible sum
//! leaves room for. A sum farther from the threshold than all roundings together decides as the exact sum would; the few
//! others are *doubtful*, and the exact sum is made.

use crate::cascade::{Cascade, Child, Stage};

/// Sums stay below this.
const SUM_MAX: f64 = (1 << 29) as f64;

/// A stage's leaves and threshold in fixed point.
#[derive(Debug)]
pub(super) struct FixedLeaves {
    /// Of each tree of the stage, one after the other.
    pub(super) leaves: Vec<i32>,
    /// The threshold, to be taken off the sum.
    pub(super) threshold: i32,
    /// A sum whose magnitude is below this is doubtful.
    pub(super) doubt: i32,
}

#[expect(clippy::cast_possible_truncation, reason = "the magnitude is below 2^29")]
fn fixed(value: f32, scale: f64) -> i32 {
    (f64::from(value) * scale).round_ties_even() as i32
}

/// The leaves of one tree.
fn leaves_of(cascade: &Cascade, tree: usize) -> &[f32] {
    let per_tree = cascade.nodes_per_tree + 1;
    &cascade.leaves[tree * per_tree..][..per_tree]
}

impl FixedLeaves {
    pub(super) fn of(cascade: &Cascade, stage: &Stage) -> Self {
        let trees = stage.trees.clone().map(|tree| leaves_of(cascade, tree));
        let greatest = |leaves: &[f32]| leaves.iter().fold(0.0, |max: f32, leaf| max.max(leaf.abs()));
        let sum_max: f64 = trees.clone().map(|leaves| f64::from(greatest(leaves))).sum();
        // A power of two, so that scaling rounds nothing. Small sums do not need more than 2^28.
        let room = (SUM_MAX / (sum_max + f64::from(stage.threshold.abs()) + 2.0)).log2().floor();
        let scale = room.exp2();
        let leaves = trees.flatten().map(|leaf| fixed(*leaf, scale)).collect();
        // Each leaf and the threshold is off by at most a half.
        let doubt = i32::try_from(stage.trees.len()).unwrap_or(i32::MAX) / 2 + 2;
        Self { leaves, threshold: fixed(stage.threshold, scale), doubt }
    }
}

/// The exact sum of the leaves that a window reaches in a stage, by whether each node leads to the left.
///
/// The sum is exact whatever the order: leaves have no bits below 2^-38, and sums of them stay far below 2^14.
pub(super) fn exact_sum(cascade: &Cascade, stage: &Stage, leads_left: impl Fn(usize) -> bool) -> f64 {
    let leaf_of = |tree: usize| {
        let (first, leaves) = (tree * cascade.nodes_per_tree, leaves_of(cascade, tree));
        let mut at = 0;
        loop {
            let node = &cascade.nodes[first + at];
            match if leads_left(first + at) { node.left } else { node.right } {
                Child::Node(next) => at = usize::from(next),
                Child::Leaf(leaf) => return f64::from(leaves[usize::from(leaf)]),
            }
        }
    };
    stage.trees.clone().map(leaf_of).sum()
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the tests' numbers are small")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cascade::Name;

    proptest! {
        #[test]
        fn beyond_doubt_fixed_sums_decide_as_exact_ones(name in 0usize..5, stage in 0usize..20, seed: u64) {
            let cascade = Name::ALL[name].load();
            let stage = &cascade.stages[stage];
            let fixed = FixedLeaves::of(&cascade, stage);
            // Some way through the trees.
            let leads_left = |node: usize| seed.rotate_left(node as u32 * 7) & 1 == 1;
            let exact = exact_sum(&cascade, stage, leads_left) - f64::from(stage.threshold);
            let mut sum = -fixed.threshold;
            for (tree, leaves) in fixed.leaves.chunks(cascade.nodes_per_tree + 1).enumerate() {
                let first = (stage.trees.start + tree) * cascade.nodes_per_tree;
                let mut at = 0;
                sum += loop {
                    let node = &cascade.nodes[first + at];
                    match if leads_left(first + at) { node.left } else { node.right } {
                        Child::Node(next) => at = next.into(),
                        Child::Leaf(leaf) => break leaves[usize::from(leaf)],
                    }
                };
            }
            prop_assert!(sum.abs() < fixed.doubt || (sum >= 0) == (exact >= 0.0), "{} against {}", sum, exact);
            prop_assert!(sum.abs() < 1 << 30);
        }
    }
}
