//! The compact form of a cascade, and the checks that make a [`Cascade`] of it.
//!
//! All numbers are little endian, `f32` is IEEE 754:
//!
//! ```text
//! file    = "NHC1" width:u8 height:u8 nodes_per_tree:u8 stages:u8 { stage }
//! stage   = threshold:f32 trees:u16 { tree }
//! tree    = { node } { leaf:f32 }            nodes_per_tree nodes, then one leaf more
//! node    = children:u8 feature threshold:f32
//! feature = kind:u8 outer:rect inner:rect [ inner:rect ]
//! rect    = x:u8 y:u8 w:u8 h:u8
//! ```
//!
//! `children` holds the left child in its high and the right one in its low four bits: bit 3 set for a leaf, the other
//! three its number in the tree. `kind` has bit 0 set for tilted rectangles, bit 1 for a second inner one; the other six
//! bits are the weight of the inner ones. The outer one weighs -1. Thresholds and leaves are what OpenCV has after
//! reading its XML; the tolerance it takes off stage thresholds is taken off by [`Cascade::parse`].

use super::{Cascade, Child, Corners, Feature, Node, Rectangle, Stage};

/// How a file begins.
pub const MAGIC: [u8; 4] = *b"NHC1";
/// The least width and height of a window, in pixels.
pub const WINDOW_MIN: u8 = 4;
/// The greatest width and height of a window, in pixels.
pub const WINDOW_MAX: u8 = 64;
/// The most stages.
pub const STAGES_MAX: u8 = 64;
/// The most nodes in a tree.
pub const NODES_PER_TREE_MAX: u8 = 4;
/// The most trees in a stage.
const TREES_MAX: u16 = 1024;
/// The greatest magnitude of a leaf or a threshold.
const NUMBER_MAX: f32 = 1024.0;
/// Sums of pixels below this are the same number in `i32` and `f32`.
const EXACT_SUM_MAX: i64 = 1 << 24;
/// What OpenCV takes off each stage's threshold.
const TOLERANCE: f32 = 1e-5;

/// Why bytes are no cascade. The fault of whoever made the file; trying again does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a cascade in this form at all.
    #[error("not a cascade: it does not begin with \"NHC1\"")]
    Magic,
    /// The file ends early.
    #[error("the cascade ends in the middle of {0}")]
    Truncated(&'static str),
    /// The file goes on after its last stage.
    #[error("{0} bytes follow the last stage of the cascade")]
    Trailing(usize),
    /// A count or a size out of its range.
    #[error("{what} is {value}, which is not between {min} and {max}")]
    Range {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        value: u32,
        /// How many there must be.
        min: u32,
        /// How many there may be.
        max: u32,
    },
    /// A threshold or a leaf that is not finite or too great.
    #[error("{0} is not a number of reasonable size")]
    Number(&'static str),
    /// A node that leads to itself, backwards, or out of the tree.
    #[error("a node's child does not exist or does not come after it")]
    Child,
    /// A rectangle that is empty or sticks out of the window.
    #[error("a rectangle is empty or not within the window")]
    Rectangle,
    /// A feature whose corners have other weights than the detector has code for.
    #[error("a feature is neither an edge, nor a line, nor a diagonal")]
    Shape,
    /// A feature whose sum could exceed what is computed exactly.
    #[error("a feature's weights are too great")]
    Weight,
}

/// Reads numbers off the front of the bytes.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Error> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Error::Truncated(what))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, Error> {
        self.take(what).map(|[byte]| byte)
    }

    fn byte_within(&mut self, what: &'static str, min: u8, max: u8) -> Result<u8, Error> {
        let value = self.byte(what)?;
        within(what, value.into(), min.into(), max.into())?;
        Ok(value)
    }

    fn number(&mut self, what: &'static str) -> Result<f32, Error> {
        let number = f32::from_le_bytes(self.take(what)?);
        if number.abs() <= NUMBER_MAX { Ok(number) } else { Err(Error::Number(what)) }
    }

    fn rectangle(&mut self) -> Result<Rectangle, Error> {
        self.take("a rectangle").map(|[x, y, w, h]| Rectangle { x, y, w, h })
    }

    fn feature(&mut self) -> Result<Feature, Error> {
        let kind = self.byte("a feature")?;
        let outer = self.rectangle()?;
        let first = self.rectangle()?;
        let second = if kind & 0b10 == 0 { None } else { Some(self.rectangle()?) };
        Ok(Feature { tilted: kind & 1 == 1, weight: kind >> 2, outer, inner: [Some(first), second] })
    }

    fn node(&mut self, cascade: &Cascade) -> Result<Node, Error> {
        let children = self.byte("a node")?;
        let feature = self.feature()?;
        cascade.check_feature(&feature)?;
        let threshold = self.number("a node's threshold")?;
        let corners = Corners::of(&feature).ok_or(Error::Shape)?;
        let (left, right) = (Child::unpack(children >> 4), Child::unpack(children & 0xf));
        Ok(Node { feature, corners, threshold, left, right })
    }
}

fn within(what: &'static str, value: u32, min: u32, max: u32) -> Result<(), Error> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(Error::Range { what, value, min, max }) }
}

impl Child {
    fn unpack(bits: u8) -> Self {
        if bits & 0b1000 == 0 { Self::Node(bits) } else { Self::Leaf(bits & 0b111) }
    }
}

impl Cascade {
    /// Makes a cascade of its compact form.
    ///
    /// # Errors
    /// Where the bytes are not exactly one cascade that the detector can run.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = Reader(bytes);
        if from.take("the header") != Ok(MAGIC) {
            return Err(Error::Magic);
        }
        let width = from.byte_within("the window's width", WINDOW_MIN, WINDOW_MAX)?;
        let height = from.byte_within("the window's height", WINDOW_MIN, WINDOW_MAX)?;
        let nodes_per_tree = from.byte_within("the nodes per tree", 1, NODES_PER_TREE_MAX)?;
        let stages = from.byte_within("the number of stages", 1, STAGES_MAX)?;
        // A node takes at least 14 bytes and a leaf 4, so memory stays in proportion to the file.
        let room = bytes.len() / 14;
        let mut cascade = Self {
            width,
            height,
            nodes_per_tree: nodes_per_tree.into(),
            stages: Vec::with_capacity(stages.into()),
            nodes: Vec::with_capacity(room),
            leaves: Vec::with_capacity(room),
        };
        let mut trees_before = 0;
        for _ in 0..stages {
            let threshold = from.number("a stage's threshold")? - TOLERANCE;
            let trees = u16::from_le_bytes(from.take("a stage")?);
            within("the number of trees in a stage", trees.into(), 1, TREES_MAX.into())?;
            for _ in 0..trees {
                cascade.parse_tree(&mut from)?;
            }
            let trees = trees_before..trees_before + usize::from(trees);
            trees_before = trees.end;
            cascade.stages.push(Stage { threshold, trees });
        }
        if from.0.is_empty() { Ok(cascade) } else { Err(Error::Trailing(from.0.len())) }
    }

    fn parse_tree(&mut self, from: &mut Reader<'_>) -> Result<(), Error> {
        for at in 0..self.nodes_per_tree {
            let node = from.node(self)?;
            for child in [node.left, node.right] {
                let exists = match child {
                    Child::Node(node) => (at + 1..self.nodes_per_tree).contains(&usize::from(node)),
                    Child::Leaf(leaf) => usize::from(leaf) <= self.nodes_per_tree,
                };
                if !exists {
                    return Err(Error::Child);
                }
            }
            self.nodes.push(node);
        }
        for _ in 0..=self.nodes_per_tree {
            self.leaves.push(from.number("a leaf")?);
        }
        Ok(())
    }

    fn check_feature(&self, feature: &Feature) -> Result<(), Error> {
        let (width, height) = (i32::from(self.width), i32::from(self.height));
        let mut sum_max = 0;
        for (weight, rectangle) in feature.rectangles() {
            let corners = rectangle.corners(feature.tilted);
            let inside = corners.iter().all(|(_, (x, y))| (0..=width).contains(x) && (0..=height).contains(y));
            if !inside || rectangle.w == 0 || rectangle.h == 0 {
                return Err(Error::Rectangle);
            }
            let area = i64::from(rectangle.w) * i64::from(rectangle.h) * if feature.tilted { 2 } else { 1 };
            sum_max += i64::from(weight).abs() * area * 255;
        }
        if sum_max < EXACT_SUM_MAX { Ok(()) } else { Err(Error::Weight) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Name;
    use super::*;

    #[test]
    fn the_cascades_that_come_along_are_what_their_originals_say() {
        let expected = [(24, 25, 2913, 1), (20, 22, 2135, 1), (20, 20, 1047, 2), (20, 24, 1066, 1), (20, 30, 851, 3)];
        for (name, (side, stages, trees, nodes)) in Name::ALL.into_iter().zip(expected) {
            let cascade = name.load();
            assert_eq!(cascade.window(), (side, side), "{}", name.as_str());
            assert_eq!(cascade.stages.len(), stages);
            assert_eq!(cascade.stages.last().unwrap().trees.end, trees);
            assert_eq!(cascade.nodes.len(), trees * nodes);
            assert_eq!(cascade.leaves.len(), trees * (nodes + 1));
            assert_eq!(cascade.is_tilted(), name == Name::EyeTreeEyeglasses);
        }
        let tilted = Name::EyeTreeEyeglasses.load().nodes.iter().filter(|node| node.feature.tilted).count();
        assert_eq!(tilted, 577);
    }

    #[test]
    fn every_cut_is_refused() {
        let whole = Name::Eye.bytes();
        for cut in (0..whole.len()).step_by(7) {
            let error = Cascade::parse(&whole[..cut]).unwrap_err();
            assert!(matches!(error, Error::Truncated(_) | Error::Magic), "cut at {cut}: {error}");
        }
        assert_eq!(Cascade::parse(&[whole, b"more"].concat()), Err(Error::Trailing(4)));
    }

    /// A cascade of one stump, with one byte changed.
    fn stump(change: impl FnOnce(&mut Vec<u8>)) -> Result<Cascade, Error> {
        let mut bytes = b"NHC1\x18\x18\x01\x01\0\0\0\0\x01\0\x89".to_vec();
        bytes.extend([2 << 2, 0, 0, 8, 8, 0, 0, 8, 4]);
        bytes.extend([1.0f32, -1.0, 1.0].iter().flat_map(|number| number.to_le_bytes()));
        change(&mut bytes);
        Cascade::parse(&bytes)
    }

    #[test]
    fn each_fault_has_its_error() {
        assert!(stump(|_| ()).is_ok());
        assert_eq!(stump(|b| b[0] = b'X'), Err(Error::Magic));
        for (at, value, what) in [
            (4, 3, "the window's width"),
            (5, 65, "the window's height"),
            (6, 0, "the nodes per tree"),
            (7, 0, "the number of stages"),
            (12, 0, "the number of trees in a stage"),
        ] {
            assert!(matches!(stump(|b| b[at] = value), Err(Error::Range { what: w, .. }) if w == what), "{what}");
        }
        assert_eq!(stump(|b| b[14] = 0x09), Err(Error::Child), "a node that leads to itself");
        assert_eq!(stump(|b| b[14] = 0x8a), Err(Error::Child), "a leaf that is not there");
        assert_eq!(stump(|b| b[16] = 17), Err(Error::Rectangle), "8 pixels from column 17 on");
        assert_eq!(stump(|b| b[18] = 0), Err(Error::Rectangle), "an empty rectangle");
        assert_eq!(stump(|b| b[15] |= 1), Err(Error::Rectangle), "tilted, it reaches out to the left");
        assert_eq!(
            stump(|b| {
                b[4..6].fill(64);
                b[15] = 63 << 2;
                b[22..24].fill(64);
            }),
            Err(Error::Weight)
        );
        assert_eq!(stump(|b| b[22] = 3), Err(Error::Shape), "a line of three columns in one of eight");
        for at in [8, 24, 28, 32] {
            let nan = stump(|b| b[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes()));
            assert!(matches!(nan, Err(Error::Number(_))), "{nan:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Cascade::parse(&bytes);
            let _ = Cascade::parse(&[MAGIC.as_slice(), &[20, 20, 2, 3], &bytes].concat());
        }

        #[test]
        fn no_change_makes_it_panic(at in 0..Name::Eye.bytes().len(), value: u8) {
            let mut bytes = Name::Eye.bytes().to_vec();
            bytes[at] = value;
            let _ = Cascade::parse(&bytes);
        }
    }
}
