//! A tree of partial results over numbered leaves: the least of them, or their sum, kept up to date in logarithmic time
//! and without allocating. Every inner node is computed from its two children only, so that sums cannot drift.

/// What a leaf holds and what two neighbouring nodes make together.
pub(crate) trait Node: Copy + PartialEq {
    /// A leaf that takes no part.
    const ABSENT: Self;

    fn join(self, right: Self) -> Self;
}

/// A leaf of a tree whose root is its least leaf: by key, then by tie, then by position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Least {
    pub(crate) key: f64,
    pub(crate) tie: u32,
    pub(crate) at: usize,
}

impl Least {
    /// The leaf at this position for this key, absent if there is none.
    pub(crate) fn leaf(at: usize, key: Option<f64>, tie: u32) -> Self {
        key.map_or(Self::ABSENT, |key| Self { key, tie, at })
    }

    /// The position, unless nobody is present.
    pub(crate) fn position(self) -> Option<usize> {
        (self.at != usize::MAX).then_some(self.at)
    }

    /// The position, if the key is at most this.
    pub(crate) fn position_by(self, key: f64) -> Option<usize> {
        (self.key <= key).then_some(self.at)
    }
}

impl Node for Least {
    const ABSENT: Self = Self { key: f64::INFINITY, tie: u32::MAX, at: usize::MAX };

    fn join(self, right: Self) -> Self {
        if (right.key, right.tie) < (self.key, self.tie) { right } else { self }
    }
}

/// A leaf of a tree from which one is drawn with a probability in proportion to its share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Share(pub(crate) f64);

impl Node for Share {
    const ABSENT: Self = Self(0.0);

    fn join(self, right: Self) -> Self {
        Self(self.0 + right.0)
    }
}

/// A complete binary tree in one vector: the root at 1, the children of `n` at `2n` and `2n + 1`.
#[derive(Debug, Clone)]
pub(crate) struct Tree<N> {
    first_leaf: usize,
    nodes: Vec<N>,
}

impl<N: Node> Tree<N> {
    /// A tree of this many leaves, all absent.
    pub(crate) fn new(leaves: usize) -> Self {
        let first_leaf = leaves.next_power_of_two();
        Self { first_leaf, nodes: vec![N::ABSENT; 2 * first_leaf] }
    }

    pub(crate) fn root(&self) -> N {
        self.nodes[1]
    }

    pub(crate) fn leaf(&self, leaf: usize) -> N {
        self.nodes[self.first_leaf + leaf]
    }

    /// Places for leaves, some of which may never have been set.
    pub(crate) fn leaves(&self) -> usize {
        self.first_leaf
    }

    pub(crate) fn set(&mut self, leaf: usize, value: N) {
        let mut at = self.first_leaf + leaf;
        self.nodes[at] = value;
        while at > 1 {
            at /= 2;
            let joined = self.nodes[2 * at].join(self.nodes[2 * at + 1]);
            if joined == self.nodes[at] {
                return;
            }
            self.nodes[at] = joined;
        }
    }
}

impl Tree<Least> {
    /// The position of the least leaf but one.
    pub(crate) fn least_but(&self, excluded: Option<usize>) -> Option<usize> {
        let Some(excluded) = excluded else { return self.root().position() };
        // Everything else hangs off the way from the excluded leaf to the root.
        let mut at = self.first_leaf + excluded;
        let mut least = Least::ABSENT;
        while at > 1 {
            let beside = self.nodes[at ^ 1];
            least = if at & 1 == 1 { beside.join(least) } else { least.join(beside) };
            at /= 2;
        }
        least.position()
    }
}

impl Tree<Share> {
    /// The leaf in which the point at this fraction (0 to 1) of the sum of shares lies; none where all are absent.
    pub(crate) fn draw(&self, fraction: f64) -> Option<usize> {
        let [drawn] = self.draw_each([fraction])?;
        Some(drawn)
    }

    /// The same for several fractions side by side, which hardly takes longer than for one.
    pub(crate) fn draw_each<const COUNT: usize>(&self, fractions: [f64; COUNT]) -> Option<[usize; COUNT]> {
        let total = self.root().0;
        if total <= 0.0 {
            return None;
        }
        let mut points = fractions.map(|fraction| fraction * total);
        let mut drawn = [1; COUNT];
        // All leaves are equally deep.
        for _ in 0..self.first_leaf.trailing_zeros() {
            for (point, at) in points.iter_mut().zip(&mut drawn) {
                let (left, right) = (self.nodes[2 * *at].0, self.nodes[2 * *at + 1].0);
                // Rounding may put the point a hair beyond the end; a side without share is never entered. Without a branch,
                // since nobody could predict which way it goes.
                let goes_right = (right > 0.0) & ((*point >= left) | (left <= 0.0));
                *point -= left * f64::from(u8::from(goes_right));
                *at = 2 * *at + usize::from(goes_right);
            }
        }
        Some(drawn.map(|at| at - self.first_leaf))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_root_is_the_least_leaf_after_any_changes(
            leaves in 1usize..40,
            changes in prop::collection::vec((any::<prop::sample::Index>(), prop::option::of(0u32..10)), 0..100),
        ) {
            let mut tree = Tree::new(leaves);
            let mut plain = vec![None; leaves];
            for (at, key) in changes {
                let at = at.index(leaves);
                plain[at] = key;
                tree.set(at, Least::leaf(at, key.map(f64::from), 0));
                let least = plain.iter().enumerate().filter_map(|(at, key)| key.map(|key| (key, at))).min();
                prop_assert_eq!(tree.root().position(), least.map(|(_, at)| at));
                let others = plain.iter().enumerate().filter(|&(other, _)| other != at);
                let least = others.filter_map(|(at, key)| key.map(|key| (key, at))).min();
                prop_assert_eq!(tree.least_but(Some(at)), least.map(|(_, at)| at));
            }
        }

        #[test]
        fn only_present_leaves_are_drawn(
            shares in prop::collection::vec(prop_oneof![Just(0.0), 1e-9f64..1e9], 1..40),
            fraction in 0.0f64..=1.0,
        ) {
            let mut tree = Tree::new(shares.len());
            for (at, &share) in shares.iter().enumerate() {
                tree.set(at, Share(share));
            }
            match tree.draw(fraction) {
                Some(at) => prop_assert!(shares[at] > 0.0),
                None => prop_assert!(shares.iter().all(|&share| share == 0.0)),
            }
        }
    }
}
