//! Runs a stage on groups of neighbouring windows: the loop in which nearly all of the time is spent.
//!
//! The four windows of a group stand side by side, so one load of four values brings a corner of all of them. Several
//! groups go through a stage together, so that a node's offsets are read once for all of them. All sums of pixels are
//! exact in `i32` and then in `f32`; only the product with the window's norm rounds, as it does in OpenCV.
#![expect(unsafe_code, reason = "checking the bounds of each load of corners costs more than a tenth of the time")]

use std::ops::{Add, Sub};

use wide::bytemuck::cast;
use wide::{f32x4, i32x4};

use super::leaves::{FixedLeaves, exact_sum};
use super::sums::Layout;
use crate::cascade::{Cascade, Child, NODES_PER_TREE_MAX, Node, Shape, Stage};

/// Windows in a group.
pub(super) const LANES: usize = 4;

/// A group of neighbouring windows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    /// Where the tables hold the first window's (0, 0).
    pub(super) position: usize,
    /// Bit by bit, which windows are still in.
    pub(super) alive: u32,
    /// What each window's features are multiplied by: 1 / (area * standard deviation).
    pub(super) norm: f32x4,
}

/// A cascade laid out for tables of one [`Layout`].
#[derive(Debug)]
pub(super) struct Plan {
    layout: Layout,
    /// How many values from a group's position on may be read. At least each node's offsets plus [`LANES`].
    span: usize,
    stages: Vec<PlannedStage>,
}

/// The nodes of a stage by their shape, and how their decisions add up.
#[derive(Debug, Default)]
struct PlannedStage {
    edges: Vec<PlannedNode<6>>,
    lines2: Vec<PlannedNode<8>>,
    lines3: Vec<PlannedNode<8>>,
    lines9: Vec<PlannedNode<8>>,
    diagonals: Vec<PlannedNode<9>>,
    antidiagonals: Vec<PlannedNode<9>>,
    /// What the sum begins with.
    base: i32,
    /// A sum of smaller magnitude is doubtful.
    doubt: i32,
    /// How many decisions the trees below share.
    decisions: usize,
    /// Trees of two nodes.
    pairs: Vec<PlannedPair>,
    /// Trees of more nodes.
    trees: Vec<PlannedTree>,
}

#[derive(Debug)]
struct PlannedNode<const CORNERS: usize> {
    /// Offsets of the corners from a window's position, in the order of the corners' weights.
    at: [u32; CORNERS],
    threshold: f32,
    /// A stump's: how much more its left leaf adds than its right one. A tree's: the node's number within the stage.
    tag: i32,
}

/// A tree whose root leads to a leaf on one side, and to a second node on the other.
#[derive(Debug)]
struct PlannedPair {
    /// The root's number within the stage; the second node's is the next.
    root: usize,
    /// All bits set where the root's leaf is its right child.
    flip: i32,
    /// How much more the root's leaf adds than the second node's right one.
    gain_of_root: i32,
    /// How much more the second node's left leaf adds than its right one.
    gain_of_second: i32,
}

#[derive(Debug)]
struct PlannedTree {
    first_node: usize,
    children: Vec<[Child; 2]>,
    leaves: Vec<i32>,
}

/// The tables from the position of each group on.
#[derive(Clone, Copy)]
struct Windows<'a, const N: usize> {
    /// Each is as long as the plan's span.
    values: [&'a [i32]; N],
}

impl<const N: usize> Windows<'_, N> {
    /// The values of one corner. The offset must be one of the plan that the windows were made for.
    #[inline(always)]
    fn load(&self, at: u32) -> Lanes<N> {
        let at = at as usize;
        let mut lanes = [i32x4::ZERO; N];
        for (lanes, values) in lanes.iter_mut().zip(self.values) {
            // SAFETY: `Plan::windows` cut each slice to the plan's span, and `PlannedNode::new` asserted for each offset of
            // the plan that it plus LANES is within the span. All these types are private to this file.
            let window = unsafe { values.get_unchecked(at..at + LANES) };
            *lanes = i32x4::new([window[0], window[1], window[2], window[3]]);
        }
        Lanes(lanes)
    }
}

/// A number for each window of each group.
#[derive(Clone, Copy)]
struct Lanes<const N: usize>([i32x4; N]);

impl<const N: usize> Add for Lanes<N> {
    type Output = Self;

    #[inline(always)]
    fn add(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(sum, other)| *sum += other);
        self
    }
}

impl<const N: usize> Sub for Lanes<N> {
    type Output = Self;

    #[inline(always)]
    fn sub(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(sum, other)| *sum -= other);
        self
    }
}

// The weights of each shape, with as few operations as they take. Corners come in the ascending order of their weights,
// which `Shape` lists. Each is loaded where it is needed: those of several groups do not fit into the registers at once.

#[inline(always)]
fn edge<const N: usize>(windows: Windows<'_, N>, corners: &[u32; 6]) -> Lanes<N> {
    let at = |corner: usize| windows.load(corners[corner]);
    let inner = at(5) - at(0);
    inner + inner + at(3) + at(4) - at(1) - at(2)
}

#[inline(always)]
fn line<const W: u32, const N: usize>(windows: Windows<'_, N>, corners: &[u32; 8]) -> Lanes<N> {
    let at = |corner: usize| windows.load(corners[corner]);
    let inner = at(6) + at(7) - at(0) - at(1);
    // Vectors are added much faster than they are multiplied.
    let weighted = match W {
        2 => inner + inner,
        3 => inner + inner + inner,
        9 => {
            let three = inner + inner + inner;
            three + three + three
        }
        _ => (1..W).fold(inner, |sum, _| sum + inner),
    };
    weighted + at(4) + at(5) - at(2) - at(3)
}

#[inline(always)]
fn diagonal<const N: usize>(windows: Windows<'_, N>, corners: &[u32; 9]) -> Lanes<N> {
    let at = |corner: usize| windows.load(corners[corner]);
    let middle = at(8);
    let half = middle + middle - at(0) - at(1) - at(2) - at(3);
    half + half + at(4) + at(5) + at(6) + at(7)
}

#[inline(always)]
fn antidiagonal<const N: usize>(windows: Windows<'_, N>, corners: &[u32; 9]) -> Lanes<N> {
    let at = |corner: usize| windows.load(corners[corner]);
    let middle = at(0);
    let half = at(5) + at(6) + at(7) + at(8) - middle - middle;
    half + half - at(1) - at(2) - at(3) - at(4)
}

impl PlannedStage {
    /// Hands each node's tag to `take`, with the windows for which the node leads to the left (all bits set) or not.
    #[inline(always)]
    fn decide<const N: usize>(&self, windows: Windows<'_, N>, norms: [f32x4; N], mut take: impl FnMut(i32, Lanes<N>)) {
        let below = |value: Lanes<N>, threshold: f32| {
            let mut left = value;
            for (lanes, norm) in left.0.iter_mut().zip(norms) {
                *lanes = cast((f32x4::from_i32x4(*lanes) * norm).simd_lt(f32x4::splat(threshold)));
            }
            left
        };
        self.edges.iter().for_each(|node| take(node.tag, below(edge(windows, &node.at), node.threshold)));
        self.lines2.iter().for_each(|node| take(node.tag, below(line::<2, N>(windows, &node.at), node.threshold)));
        self.lines3.iter().for_each(|node| take(node.tag, below(line::<3, N>(windows, &node.at), node.threshold)));
        self.lines9.iter().for_each(|node| take(node.tag, below(line::<9, N>(windows, &node.at), node.threshold)));
        self.diagonals.iter().for_each(|node| take(node.tag, below(diagonal(windows, &node.at), node.threshold)));
        self.antidiagonals
            .iter()
            .for_each(|node| take(node.tag, below(antidiagonal(windows, &node.at), node.threshold)));
    }

    /// The sums of the leaves reached, less the threshold.
    #[inline(always)]
    fn sums<const N: usize>(&self, windows: Windows<'_, N>, norms: [f32x4; N], decisions: &mut Vec<i32x4>) -> Lanes<N> {
        let mut sums = Lanes([i32x4::splat(self.base); N]);
        if self.decisions == 0 {
            self.decide(windows, norms, |gain, left| {
                let gain = i32x4::splat(gain);
                sums.0.iter_mut().zip(left.0).for_each(|(sum, left)| *sum += left & gain);
            });
            return sums;
        }
        decisions.resize(self.decisions * N, i32x4::ZERO);
        self.decide(windows, norms, |node, left| {
            let node = usize::try_from(node).unwrap_or(0);
            decisions[node * N..][..N].copy_from_slice(&left.0);
        });
        for pair in &self.pairs {
            let (roots, seconds) = decisions[pair.root * N..][..2 * N].split_at(N);
            for ((sum, root), second) in sums.0.iter_mut().zip(roots).zip(seconds) {
                let is_root = *root ^ i32x4::splat(pair.flip);
                let is_second = *second & !is_root;
                *sum += (is_root & i32x4::splat(pair.gain_of_root)) + (is_second & i32x4::splat(pair.gain_of_second));
            }
        }
        for tree in &self.trees {
            sums = sums + tree.reached(&decisions[tree.first_node * N..][..tree.children.len() * N]);
        }
        sums
    }
}

impl PlannedTree {
    /// The leaf reached in each window, from its decisions node by node.
    #[inline(always)]
    fn reached<const N: usize>(&self, decisions: &[i32x4]) -> Lanes<N> {
        let mut reached = [Lanes([i32x4::ZERO; N]); NODES_PER_TREE_MAX as usize];
        // Children come after their parents.
        for (node, [left, right]) in self.children.iter().enumerate().rev() {
            let from = |child: Child| match child {
                Child::Node(node) => reached[usize::from(node)],
                Child::Leaf(leaf) => Lanes([i32x4::splat(self.leaves[usize::from(leaf)]); N]),
            };
            let (left, right) = (from(*left), from(*right));
            for group in 0..N {
                reached[node].0[group] = decisions[node * N + group].select(left.0[group], right.0[group]);
            }
        }
        reached[0]
    }
}

impl Plan {
    /// Lays out a cascade.
    pub(super) fn new(cascade: &Cascade, layout: Layout) -> Self {
        let (width, height) = cascade.window();
        let last = [false, cascade.is_tilted()]
            .map(|tilted| layout.offset(width, height, tilted).max(layout.offset(width - 1, height, tilted)));
        let span = last[0].max(last[1]) + LANES;
        let stages = cascade.stages.iter().map(|stage| PlannedStage::new(cascade, stage, layout, span)).collect();
        Self { layout, span, stages }
    }

    fn windows<'a, const N: usize>(&self, levels: &'a [i32], groups: [&Group; N]) -> Windows<'a, N> {
        Windows { values: groups.map(|group| &levels[group.position..][..self.span]) }
    }

    /// Which windows of each group pass a stage, bit by bit; windows that are out already may or may not.
    #[inline(never)]
    pub(super) fn pass<const N: usize>(
        &self,
        cascade: &Cascade,
        stage: usize,
        levels: &[i32],
        groups: [&Group; N],
        decisions: &mut Vec<i32x4>,
    ) -> [u32; N] {
        let planned = &self.stages[stage];
        let windows = self.windows(levels, groups);
        let sums = planned.sums(windows, groups.map(|group| group.norm), decisions);
        let mut passed = [0; N];
        for ((passed, sum), group) in passed.iter_mut().zip(sums.0).zip(groups) {
            *passed = sum.simd_gt(i32x4::splat(-planned.doubt)).to_bitmask();
            let doubtful = *passed & sum.simd_lt(i32x4::splat(planned.doubt)).to_bitmask() & group.alive;
            for lane in (0..LANES).filter(|lane| doubtful >> lane & 1 == 1) {
                if !self.passes_exactly(cascade, &cascade.stages[stage], levels, group, lane) {
                    *passed &= !(1 << lane);
                }
            }
        }
        passed
    }

    #[cold]
    fn passes_exactly(&self, cascade: &Cascade, stage: &Stage, levels: &[i32], group: &Group, lane: usize) -> bool {
        let window = &levels[group.position + lane..];
        let norm = group.norm.to_array()[lane];
        let sum = exact_sum(cascade, stage, |node| {
            let Node { feature, threshold, .. } = &cascade.nodes[node];
            let at = |x: i32, y: i32| usize::try_from(x).ok().zip(usize::try_from(y).ok());
            let sum_at = |x, y| at(x, y).map_or(0, |(x, y)| window[self.layout.offset(x, y, feature.tilted)]);
            feature.value(sum_at) as f32 * norm < *threshold
        });
        sum >= f64::from(stage.threshold)
    }
}

impl PlannedStage {
    fn new(cascade: &Cascade, stage: &Stage, layout: Layout, span: usize) -> Self {
        let fixed = FixedLeaves::of(cascade, stage);
        let per_tree = cascade.nodes_per_tree;
        let mut planned = Self { base: -fixed.threshold, doubt: fixed.doubt, ..Self::default() };
        let first_node = stage.trees.start * per_tree;
        let nodes = &cascade.nodes[first_node..stage.trees.end * per_tree];
        for (tree, (nodes, leaves)) in nodes.chunks(per_tree).zip(fixed.leaves.chunks(per_tree + 1)).enumerate() {
            let children = nodes.iter().map(|node| [node.left, node.right]).collect::<Vec<_>>();
            if let [[Child::Leaf(left), Child::Leaf(right)]] = children[..] {
                let [left, right] = [left, right].map(|leaf| leaves[usize::from(leaf)]);
                planned.base += right;
                planned.add(&nodes[0], left - right, layout, span);
                continue;
            }
            let root = tree * per_tree;
            for (tag, node) in (root..).zip(nodes) {
                planned.add(node, i32::try_from(tag).unwrap_or(i32::MAX), layout, span);
            }
            planned.decisions = root + per_tree;
            planned.add_tree(root, children, leaves);
        }
        // Like trees side by side, so that the loop over them takes the same turns again and again.
        planned.trees.sort_by_key(|tree| {
            tree.children.iter().map(|[left, _]| matches!(left, Child::Leaf(_))).collect::<Vec<_>>()
        });
        planned
    }

    fn add_tree(&mut self, root: usize, children: Vec<[Child; 2]>, leaves: &[i32]) {
        let leaf = |leaf: u8| leaves[usize::from(leaf)];
        let (of_root, flip) = match children[0] {
            [Child::Leaf(of_root), Child::Node(_)] => (of_root, 0),
            [Child::Node(_), Child::Leaf(of_root)] => (of_root, -1),
            _ => return self.trees.push(PlannedTree { first_node: root, children, leaves: leaves.to_vec() }),
        };
        match children[1..] {
            [[Child::Leaf(left), Child::Leaf(right)]] => {
                self.base += leaf(right);
                let (gain_of_root, gain_of_second) = (leaf(of_root) - leaf(right), leaf(left) - leaf(right));
                self.pairs.push(PlannedPair { root, flip, gain_of_root, gain_of_second });
            }
            _ => self.trees.push(PlannedTree { first_node: root, children, leaves: leaves.to_vec() }),
        }
    }

    fn add(&mut self, node: &Node, tag: i32, layout: Layout, span: usize) {
        match node.corners.shape {
            Shape::Edge => self.edges.push(PlannedNode::new(node, tag, layout, span)),
            Shape::Line2 => self.lines2.push(PlannedNode::new(node, tag, layout, span)),
            Shape::Line3 => self.lines3.push(PlannedNode::new(node, tag, layout, span)),
            Shape::Line9 => self.lines9.push(PlannedNode::new(node, tag, layout, span)),
            Shape::Diagonal => self.diagonals.push(PlannedNode::new(node, tag, layout, span)),
            Shape::Antidiagonal => self.antidiagonals.push(PlannedNode::new(node, tag, layout, span)),
        }
    }
}

impl<const CORNERS: usize> PlannedNode<CORNERS> {
    fn new(node: &Node, tag: i32, layout: Layout, span: usize) -> Self {
        let mut at = [0; CORNERS];
        for (at, (x, y)) in at.iter_mut().zip(node.corners.at) {
            let offset = layout.offset(x.into(), y.into(), node.feature.tilted);
            // `Windows::load` relies on this.
            assert!(offset + LANES <= span, "a corner at ({x}, {y}) is not within the window");
            *at = u32::try_from(offset).expect("tables of a band are far smaller than 2^32 values");
        }
        Self { at, threshold: node.threshold, tag }
    }
}
