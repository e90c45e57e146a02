//! Cascades of boosted classifiers over Haar-like features: what the detector asks of every window.
//!
//! The method is Viola and Jones's ("Rapid Object Detection using a Boosted Cascade of Simple Features", CVPR 2001),
//! with the tilted features of Lienhart and Maydt (ICIP 2002). A window passes a cascade if it passes each *stage*; a
//! stage sums one leaf of each of its *trees*; a tree's *node* compares one *feature*, a weighted sum of the grey levels
//! in two or three rectangles divided by the window's contrast, with a threshold.

mod format;
mod shape;

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

pub use format::{Error, MAGIC, NODES_PER_TREE_MAX, STAGES_MAX, WINDOW_MAX, WINDOW_MIN};
pub(crate) use shape::{Corners, Shape};

/// The cascades that come with this crate; `cascades/SOURCES.md` tells where from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Name {
    /// Frontal faces, 24x24, stumps: the most used one.
    #[default]
    Default,
    /// Frontal faces, 20x20, stumps.
    Alt,
    /// Frontal faces, 20x20, trees of two nodes.
    Alt2,
    /// Eyes, 20x20, stumps.
    Eye,
    /// Eyes also behind glasses, 20x20, trees of three nodes, tilted features.
    EyeTreeEyeglasses,
}

impl Name {
    /// Every name.
    pub const ALL: [Self; 5] = [Self::Default, Self::Alt, Self::Alt2, Self::Eye, Self::EyeTreeEyeglasses];

    /// The name in text, as [`FromStr`] reads it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Alt => "alt",
            Self::Alt2 => "alt2",
            Self::Eye => "eye",
            Self::EyeTreeEyeglasses => "eye-tree-eyeglasses",
        }
    }

    /// The name of OpenCV's file that the cascade was made from.
    pub fn original(self) -> &'static str {
        match self {
            Self::Default => "haarcascade_frontalface_default.xml",
            Self::Alt => "haarcascade_frontalface_alt.xml",
            Self::Alt2 => "haarcascade_frontalface_alt2.xml",
            Self::Eye => "haarcascade_eye.xml",
            Self::EyeTreeEyeglasses => "haarcascade_eye_tree_eyeglasses.xml",
        }
    }

    /// The cascade in its compact form.
    pub fn bytes(self) -> &'static [u8] {
        match self {
            Self::Default => include_bytes!("../../cascades/default.cascade"),
            Self::Alt => include_bytes!("../../cascades/alt.cascade"),
            Self::Alt2 => include_bytes!("../../cascades/alt2.cascade"),
            Self::Eye => include_bytes!("../../cascades/eye.cascade"),
            Self::EyeTreeEyeglasses => include_bytes!("../../cascades/eye-tree-eyeglasses.cascade"),
        }
    }

    /// The cascade itself.
    pub fn load(self) -> Cascade {
        Cascade::parse(self.bytes()).expect("each cascade that comes with the crate is parsed by a test")
    }
}

impl FromStr for Name {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|name| name.as_str() == text).ok_or(UnknownName)
    }
}

/// There is no such cascade. The caller's fault; the message lists those there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownName;

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Name::ALL.iter().map(|name| name.as_str()).collect();
        write!(f, "expected one of {}", names.join(", "))
    }
}

impl std::error::Error for UnknownName {}

/// A cascade whose every part has been checked: the rectangles lie in the window, the children exist, the numbers are in
/// the range where the detector's arithmetic is exact.
#[derive(Debug, Clone, PartialEq)]
pub struct Cascade {
    pub(crate) width: u8,
    pub(crate) height: u8,
    pub(crate) nodes_per_tree: usize,
    pub(crate) stages: Vec<Stage>,
    /// Tree after tree, `nodes_per_tree` each.
    pub(crate) nodes: Vec<Node>,
    /// Tree after tree, `nodes_per_tree + 1` each.
    pub(crate) leaves: Vec<f32>,
}

/// One stage: a window goes on if its trees' leaves sum up to at least the threshold.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stage {
    pub(crate) threshold: f32,
    pub(crate) trees: Range<usize>,
}

/// A decision: to the left if the feature's value is below the threshold.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) feature: Feature,
    /// What the feature comes down to.
    pub(crate) corners: Corners,
    pub(crate) threshold: f32,
    pub(crate) left: Child,
    pub(crate) right: Child,
}

/// Where a decision leads; counted within the tree. A node's children that are nodes come after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Child {
    Node(u8),
    Leaf(u8),
}

/// A weighted sum of rectangles: the first, outer one has weight -1, one or two inner ones have `weight`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Feature {
    pub(crate) tilted: bool,
    pub(crate) weight: u8,
    pub(crate) outer: Rectangle,
    pub(crate) inner: [Option<Rectangle>; 2],
}

/// A rectangle within the window. A tilted one stands on its corner (x, y); its sides run `w` to the lower right and `h`
/// to the lower left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rectangle {
    pub(crate) x: u8,
    pub(crate) y: u8,
    pub(crate) w: u8,
    pub(crate) h: u8,
}

impl Feature {
    /// The weighted sum, from what a table of sums holds at (x, y).
    pub(crate) fn value(&self, sum_at: impl Fn(i32, i32) -> i32) -> i32 {
        let corners = self
            .rectangles()
            .flat_map(|(weight, rectangle)| rectangle.corners(self.tilted).map(|(sign, (x, y))| (sign * weight, x, y)));
        corners.fold(0, |sum, (weight, x, y)| sum.wrapping_add(sum_at(x, y).wrapping_mul(weight)))
    }

    /// The rectangles with their weights.
    pub(crate) fn rectangles(&self) -> impl Iterator<Item = (i32, Rectangle)> {
        let weight = i32::from(self.weight);
        std::iter::once((-1, self.outer)).chain(self.inner.into_iter().flatten().map(move |inner| (weight, inner)))
    }
}

impl Rectangle {
    /// The four corners (x, y) at which a table of sums is read, with the sign of each.
    pub(crate) fn corners(self, tilted: bool) -> [(i32, (i32, i32)); 4] {
        let [x, y, w, h] = [self.x, self.y, self.w, self.h].map(i32::from);
        if tilted {
            [(1, (x, y)), (-1, (x - h, y + h)), (-1, (x + w, y + w)), (1, (x + w - h, y + w + h))]
        } else {
            [(1, (x, y)), (-1, (x + w, y)), (-1, (x, y + h)), (1, (x + w, y + h))]
        }
    }
}

impl Cascade {
    /// Width and height of the window at scale 1, in pixels.
    pub fn window(&self) -> (usize, usize) {
        (usize::from(self.width), usize::from(self.height))
    }

    /// Whether any feature stands on a corner, so that tilted sums are needed.
    pub fn is_tilted(&self) -> bool {
        self.nodes.iter().any(|node| node.feature.tilted)
    }

    /// The same cascade cut after a number of stages: it lets more windows pass, which is what tests want.
    #[cfg(test)]
    pub(crate) fn cut(mut self, stages: usize) -> Self {
        self.stages.truncate(stages);
        self
    }
}
