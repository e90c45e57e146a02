//! Runs a stage on groups of neighbouring windows: the loop in which most of the time is spent.
//!
//! The four windows of a group stand side by side, so one load of four values brings a corner of all of them. Several
//! groups go through a stage together, so that a node's numbers are read once for all of them. All sums of pixels are
//! exact in `i32` and then in `f32`; only the product with the window's norm rounds, as it does in OpenCV.
//!
//! Computers compile this with Cranelift, which computes a value where something that it cannot move needs it, such as a
//! store. Were the sums of several groups in registers, all their corners would be loaded first and, as there are not
//! registers enough, stored and loaded again. So each group's sum is stored before the next one's corners are loaded.
#![expect(unsafe_code, reason = "checking the bounds of each load of corners costs more than a tenth of the time")]

use std::sync::atomic::{Ordering, compiler_fence};

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
    /// What each window's features are multiplied by: 1 / (area * standard deviation).
    norm: f32x4,
    /// What the leaves that each window reaches add up to in the stage under way, less the threshold.
    sum: i32x4,
    /// Where the tables hold the first window's (0, 0).
    pub(super) position: usize,
    /// Bit by bit, which windows are still in.
    pub(super) alive: u32,
}

impl Group {
    /// The group whose first window lies at `position`.
    pub(super) fn new(position: usize, alive: u32, norm: f32x4) -> Self {
        Self { norm, sum: i32x4::ZERO, position, alive }
    }
}

/// A cascade laid out for tables of one [`Layout`].
#[derive(Debug)]
pub(super) struct Plan {
    layout: Layout,
    /// How many values from a group's position on may be read. At least each node's offsets plus [`LANES`].
    span: usize,
    stages: Vec<PlannedStage>,
    /// Memory for the stage under way.
    reach: Vec<i32x4>,
}

/// The nodes of a stage, and how their decisions add up.
///
/// A tree's value is a constant plus a *gain* for each node that is reached and leads to the left. So every node adds to the
/// sum on its own, once it is known which windows reach it.
#[derive(Debug, Default)]
struct PlannedStage {
    /// What the sum begins with.
    base: i32,
    /// A sum of smaller magnitude is doubtful.
    doubt: i32,
    /// The roots of the trees, the roots' children, and so on: those with children of their own, and those without.
    depths: Vec<[Nodes; 2]>,
    /// How many masks of windows that reach a node there are.
    masks: usize,
}

/// Nodes by their shape.
#[derive(Debug, Default)]
struct Nodes {
    edges: Vec<PlannedNode<6>>,
    lines2: Vec<PlannedNode<8>>,
    lines3: Vec<PlannedNode<8>>,
    lines9: Vec<PlannedNode<8>>,
    diagonals: Vec<PlannedNode<9>>,
    antidiagonals: Vec<PlannedNode<9>>,
}

#[derive(Debug)]
struct PlannedNode<const CORNERS: usize> {
    /// Offsets of the corners from a window's position, in the order of the corners' weights.
    at: [u32; CORNERS],
    threshold: f32,
    /// How much more the left side adds than the right one, nodes further down left out.
    gain: i32,
    reach: Reach,
}

/// The numbers of the masks that tell which windows reach a node and its children.
#[derive(Debug, Clone, Copy)]
struct Reach {
    /// Means nothing for a root, which every window reaches.
    node: usize,
    /// Those of the left and the right child.
    children: [usize; 2],
}

impl Reach {
    /// The mask of leaves, which nobody reads.
    const LEAF: usize = 0;
}

/// Four windows, seen from the corners of a node.
#[derive(Clone, Copy)]
struct Window<'a, const CORNERS: usize> {
    levels: &'a [i32],
    at: &'a [u32; CORNERS],
    position: usize,
}

impl<const CORNERS: usize> Window<'_, CORNERS> {
    /// What the tables hold at a corner.
    #[inline(always)]
    fn at(&self, corner: usize) -> i32x4 {
        let from = self.position + self.at[corner] as usize;
        // SAFETY: `Run::new` asserted that the tables hold the plan's span from the position on, and `PlannedNode::new`
        // that each corner's offset plus LANES is within that span. All these types are private to this file.
        let values = unsafe { self.levels.get_unchecked(from..from + LANES) };
        i32x4::new([values[0], values[1], values[2], values[3]])
    }
}

// The weights of each shape, with as few operations as they take. Corners come in the ascending order of their weights,
// which `Shape` lists.

#[inline(always)]
fn edge(of: Window<'_, 6>) -> i32x4 {
    let inner = of.at(5) - of.at(0);
    inner + inner + of.at(3) + of.at(4) - of.at(1) - of.at(2)
}

#[inline(always)]
fn line<const W: u32>(of: Window<'_, 8>) -> i32x4 {
    let inner = of.at(6) + of.at(7) - of.at(0) - of.at(1);
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
    weighted + of.at(4) + of.at(5) - of.at(2) - of.at(3)
}

#[inline(always)]
fn diagonal(of: Window<'_, 9>) -> i32x4 {
    let middle = of.at(8);
    let half = middle + middle - of.at(0) - of.at(1) - of.at(2) - of.at(3);
    half + half + of.at(4) + of.at(5) + of.at(6) + of.at(7)
}

#[inline(always)]
fn antidiagonal(of: Window<'_, 9>) -> i32x4 {
    let middle = of.at(0);
    let half = of.at(5) + of.at(6) + of.at(7) + of.at(8) - middle - middle;
    half + half - of.at(1) - of.at(2) - of.at(3) - of.at(4)
}

/// A stage under way.
struct Run<'a> {
    levels: &'a [i32],
    groups: &'a mut [Group],
    /// Which windows reach a node, all bits set or none: for groups evaluated together mask after mask.
    reach: &'a mut [i32x4],
    /// How many masks there are for each group.
    masks: usize,
}

impl<'a> Run<'a> {
    fn new(
        span: usize,
        stage: &PlannedStage,
        reach: &'a mut Vec<i32x4>,
        levels: &'a [i32],
        groups: &'a mut [Group],
    ) -> Self {
        for group in &mut *groups {
            // `Window::at` relies on this.
            let fits = group.position <= levels.len() && span <= levels.len() - group.position;
            assert!(fits, "a group beyond the tables");
            group.sum = i32x4::splat(stage.base);
        }
        reach.resize(stage.masks * groups.len(), i32x4::ZERO);
        Self { levels, groups, reach, masks: stage.masks }
    }

    /// Adds what nodes contribute to the sum of each group. `ROOTS` where every window reaches them, `PARENTS` where they
    /// have children.
    fn nodes<const ROOTS: bool, const PARENTS: bool>(&mut self, nodes: &Nodes) {
        self.each::<ROOTS, PARENTS, 6>(&nodes.edges, edge);
        self.each::<ROOTS, PARENTS, 8>(&nodes.lines2, line::<2>);
        self.each::<ROOTS, PARENTS, 8>(&nodes.lines3, line::<3>);
        self.each::<ROOTS, PARENTS, 8>(&nodes.lines9, line::<9>);
        self.each::<ROOTS, PARENTS, 9>(&nodes.diagonals, diagonal);
        self.each::<ROOTS, PARENTS, 9>(&nodes.antidiagonals, antidiagonal);
    }

    /// The same for nodes of one shape. Each shape's loop is a function of its own, so that it has all registers to itself.
    #[inline(never)]
    fn each<const ROOTS: bool, const PARENTS: bool, const CORNERS: usize>(
        &mut self,
        nodes: &[PlannedNode<CORNERS>],
        value: impl Fn(Window<'_, CORNERS>) -> i32x4 + Copy,
    ) {
        if nodes.is_empty() {
            return;
        }
        let Self { levels, masks, .. } = *self;
        let mut reach = &mut *self.reach;
        let (fours, rest) = self.groups.as_chunks_mut::<4>();
        for [a, b, c, d] in fours {
            let reach = reach.split_off_mut(..4 * masks).unwrap_or_default();
            for node in nodes {
                evaluate::<ROOTS, PARENTS, CORNERS, 4>(levels, a, 0, reach, node, value);
                evaluate::<ROOTS, PARENTS, CORNERS, 4>(levels, b, 1, reach, node, value);
                evaluate::<ROOTS, PARENTS, CORNERS, 4>(levels, c, 2, reach, node, value);
                evaluate::<ROOTS, PARENTS, CORNERS, 4>(levels, d, 3, reach, node, value);
            }
        }
        for group in rest {
            let reach = reach.split_off_mut(..masks).unwrap_or_default();
            for node in nodes {
                evaluate::<ROOTS, PARENTS, CORNERS, 1>(levels, group, 0, reach, node, value);
            }
        }
    }
}

/// Evaluates a node for a group, number `at` of `TOGETHER` that share masks.
#[inline(always)]
fn evaluate<const ROOT: bool, const PARENT: bool, const CORNERS: usize, const TOGETHER: usize>(
    levels: &[i32],
    group: &mut Group,
    at: usize,
    reach: &mut [i32x4],
    node: &PlannedNode<CORNERS>,
    value: impl Fn(Window<'_, CORNERS>) -> i32x4,
) {
    let value = value(Window { levels, at: &node.at, position: group.position });
    let mut left: i32x4 = cast((f32x4::from_i32x4(value) * group.norm).simd_lt(f32x4::splat(node.threshold)));
    let mut reached = i32x4::splat(-1);
    if !ROOT {
        reached = reach[node.reach.node * TOGETHER..][..TOGETHER][at];
        left &= reached;
    }
    if PARENT {
        let [to_left, to_right] = node.reach.children;
        reach[to_left * TOGETHER..][..TOGETHER][at] = left;
        reach[to_right * TOGETHER..][..TOGETHER][at] = reached & !left;
    }
    group.sum += left & i32x4::splat(node.gain);
    // Keeps the sum in memory; the head of this file tells why.
    compiler_fence(Ordering::SeqCst);
}

impl Plan {
    /// Lays out a cascade.
    pub(super) fn new(cascade: &Cascade, layout: Layout) -> Self {
        let (width, height) = cascade.window();
        let last = [false, cascade.is_tilted()]
            .map(|tilted| layout.offset(width, height, tilted).max(layout.offset(width - 1, height, tilted)));
        let span = last[0].max(last[1]) + LANES;
        let stages = cascade.stages.iter().map(|stage| PlannedStage::new(cascade, stage, layout, span)).collect();
        Self { layout, span, stages, reach: Vec::new() }
    }

    /// Runs a stage on groups; [`passed`](Self::passed) tells the outcome of each.
    #[inline(never)]
    pub(super) fn run(&mut self, stage: usize, levels: &[i32], groups: &mut [Group]) {
        let planned = &self.stages[stage];
        let mut run = Run::new(self.span, planned, &mut self.reach, levels, groups);
        for (depth, [parents, others]) in planned.depths.iter().enumerate() {
            if depth == 0 {
                run.nodes::<true, true>(parents);
                run.nodes::<true, false>(others);
            } else {
                run.nodes::<false, true>(parents);
                run.nodes::<false, false>(others);
            }
        }
    }

    /// Which windows of a group passed the stage that was run, bit by bit; windows that were out already may or may not.
    #[inline(always)]
    pub(super) fn passed(&self, cascade: &Cascade, stage: usize, levels: &[i32], group: &Group) -> u32 {
        let doubt = self.stages[stage].doubt;
        let mut passed = group.sum.simd_gt(i32x4::splat(-doubt)).to_bitmask();
        let doubtful = passed & group.sum.simd_lt(i32x4::splat(doubt)).to_bitmask() & group.alive;
        for lane in (0..LANES).filter(|lane| doubtful >> lane & 1 == 1) {
            if !self.passes_exactly(cascade, &cascade.stages[stage], levels, group, lane) {
                passed &= !(1 << lane);
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
        planned.depths.resize_with(per_tree, Default::default);
        planned.masks = if per_tree > 1 { Reach::LEAF + 1 } else { 0 };
        let nodes = &cascade.nodes[stage.trees.start * per_tree..stage.trees.end * per_tree];
        for (nodes, leaves) in nodes.chunks(per_tree).zip(fixed.leaves.chunks(per_tree + 1)) {
            planned.add_tree(nodes, leaves, layout, span);
        }
        planned
    }

    fn add_tree(&mut self, nodes: &[Node], leaves: &[i32], layout: Layout, span: usize) {
        // What a node adds if no decision from it on leads to the left. Children come after their parents.
        let mut least = [0; NODES_PER_TREE_MAX as usize];
        let mut gains = least;
        for (at, node) in nodes.iter().enumerate().rev() {
            let value = |child: Child| match child {
                Child::Node(node) => least[usize::from(node)],
                Child::Leaf(leaf) => leaves[usize::from(leaf)],
            };
            (least[at], gains[at]) = (value(node.right), value(node.left) - value(node.right));
        }
        self.base += least[0];
        let mut reach = [Reach::LEAF; NODES_PER_TREE_MAX as usize];
        let mut depth = [0; NODES_PER_TREE_MAX as usize];
        for (at, node) in nodes.iter().enumerate() {
            let mut mask_of = |child: Child| {
                let Child::Node(child) = child else { return Reach::LEAF };
                self.masks += 1;
                reach[usize::from(child)] = self.masks - 1;
                depth[usize::from(child)] = depth[at] + 1;
                self.masks - 1
            };
            let children = [node.left, node.right].map(&mut mask_of);
            let is_parent = children != [Reach::LEAF; 2];
            let reach = Reach { node: reach[at], children };
            self.depths[depth[at]][usize::from(!is_parent)].add(node, gains[at], reach, layout, span);
        }
    }
}

impl Nodes {
    fn add(&mut self, node: &Node, gain: i32, reach: Reach, layout: Layout, span: usize) {
        match node.corners.shape {
            Shape::Edge => self.edges.push(PlannedNode::new(node, gain, reach, layout, span)),
            Shape::Line2 => self.lines2.push(PlannedNode::new(node, gain, reach, layout, span)),
            Shape::Line3 => self.lines3.push(PlannedNode::new(node, gain, reach, layout, span)),
            Shape::Line9 => self.lines9.push(PlannedNode::new(node, gain, reach, layout, span)),
            Shape::Diagonal => self.diagonals.push(PlannedNode::new(node, gain, reach, layout, span)),
            Shape::Antidiagonal => self.antidiagonals.push(PlannedNode::new(node, gain, reach, layout, span)),
        }
    }
}

impl<const CORNERS: usize> PlannedNode<CORNERS> {
    fn new(node: &Node, gain: i32, reach: Reach, layout: Layout, span: usize) -> Self {
        let mut at = [0; CORNERS];
        for (at, (x, y)) in at.iter_mut().zip(node.corners.at) {
            let offset = layout.offset(x.into(), y.into(), node.feature.tilted);
            // `Window::at` relies on this.
            assert!(offset + LANES <= span, "a corner at ({x}, {y}) is not within the window");
            *at = u32::try_from(offset).expect("tables of a band are far smaller than 2^32 values");
        }
        Self { at, threshold: node.threshold, gain, reach }
    }
}
