//! The detector once more, as plainly as it can be said: one window after the other, each sum pixel by pixel or from an
//! ordinary table, no fixed point. What the real one must agree with.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the tests' numbers are small")]

use proptest::prelude::*;

use super::scales::{round, scales};
use super::shrink::Shrinker;
use super::{Detector, Parameters, Rect, ScaleFactor};
use crate::cascade::{Cascade, Child, Feature, Name, Rectangle};
use crate::grey::Grey;

/// A shrunk picture with its sums.
struct Layer {
    rows: Vec<Vec<u8>>,
    levels: Vec<Vec<i32>>,
    squares: Vec<Vec<i32>>,
}

impl Layer {
    fn new(rows: Vec<Vec<u8>>) -> Self {
        let table = |value: fn(i32) -> i32| {
            let mut table = vec![vec![0; rows[0].len() + 1]];
            for row in &rows {
                let mut sum = 0;
                let above = table.last().unwrap();
                let below = row.iter().zip(&above[1..]).map(|(level, above)| {
                    sum += value(i32::from(*level));
                    above + sum
                });
                let below = std::iter::once(0).chain(below).collect();
                table.push(below);
            }
            table
        };
        let (levels, squares) = (table(|level| level), table(|level| level * level));
        Self { rows, levels, squares }
    }

    fn sum(table: &[Vec<i32>], x: usize, y: usize, w: usize, h: usize) -> i32 {
        table[y][x] - table[y][x + w] - table[y + h][x] + table[y + h][x + w]
    }

    /// A rectangle standing on its corner covers the pixels whose middles lie between its four sides.
    fn tilted_sum(&self, x: usize, y: usize, rectangle: Rectangle) -> i32 {
        let [w, h] = [rectangle.w, rectangle.h].map(i32::from);
        let mut sum = 0;
        let (left, top) = (x as i32 + i32::from(rectangle.x), y as i32 + i32::from(rectangle.y));
        for dy in 0..w + h {
            for dx in -h..w {
                // Twice the distance along each side, from the tip, of the pixel's middle.
                let (right_down, left_down) = (dy + dx + 1, dy - dx - 1);
                if (0..2 * w).contains(&right_down) && (0..2 * h).contains(&left_down) {
                    sum += i32::from(self.rows[(top + dy) as usize][(left + dx) as usize]);
                }
            }
        }
        sum
    }

    fn value(&self, feature: &Feature, x: usize, y: usize) -> i32 {
        let sum = |(weight, r): (i32, Rectangle)| {
            let [rx, ry, rw, rh] = [r.x, r.y, r.w, r.h].map(usize::from);
            weight
                * if feature.tilted {
                    self.tilted_sum(x, y, r)
                } else {
                    Self::sum(&self.levels, x + rx, y + ry, rw, rh)
                }
        };
        feature.rectangles().map(sum).sum()
    }

    /// 1 where the window passes; else 0 where it fails the first stage, -1 where it fails elsewhere.
    fn judge(&self, cascade: &Cascade, x: usize, y: usize) -> i32 {
        let (width, height) = cascade.window();
        let area = ((width - 2) * (height - 2)) as f64;
        let sum = f64::from(Self::sum(&self.levels, x + 1, y + 1, width - 2, height - 2));
        let norm = area * f64::from(Self::sum(&self.squares, x + 1, y + 1, width - 2, height - 2)) - sum * sum;
        let norm = (1.0 / norm.sqrt()) as f32;
        if norm.is_nan() || norm.is_infinite() || area * f64::from(norm) >= 0.1 {
            return -1;
        }
        for (number, stage) in cascade.stages.iter().enumerate() {
            let mut sum = 0.0;
            for tree in stage.trees.clone() {
                let mut at = 0;
                sum += loop {
                    let node = &cascade.nodes[tree * cascade.nodes_per_tree + at];
                    let is_left = (self.value(&node.feature, x, y) as f32 * norm) < node.threshold;
                    match if is_left { node.left } else { node.right } {
                        Child::Node(next) => at = usize::from(next),
                        Child::Leaf(leaf) => {
                            break f64::from(cascade.leaves[tree * (cascade.nodes_per_tree + 1) + usize::from(leaf)]);
                        }
                    }
                };
            }
            if sum < f64::from(stage.threshold) {
                return if number == 0 { 0 } else { -1 };
            }
        }
        1
    }
}

fn candidates(cascade: &Cascade, picture: &Grey, parameters: &Parameters) -> Vec<Rect> {
    let (width, height) = cascade.window();
    let mut candidates = Vec::new();
    for scale in scales((picture.width(), picture.height()), (width, height), parameters) {
        let mut shrinker = Shrinker::default();
        shrinker.start(picture, (scale.width, scale.height));
        let layer = Layer::new((0..scale.height).map(|y| shrinker.row(picture, y).to_vec()).collect());
        let scaled = |pixels: usize| round(f64::from(pixels as f32 * scale.scale));
        for y in (0..scale.rows).map(|row| row * scale.step) {
            let mut x = 0;
            while x < scale.columns * scale.step {
                let verdict = layer.judge(cascade, x, y);
                if verdict == 1 {
                    candidates.push(Rect { x: scaled(x), y: scaled(y), w: scaled(width), h: scaled(height) });
                }
                x += if verdict == 0 { 2 * scale.step } else { scale.step };
            }
        }
    }
    candidates
}

/// A picture of some rectangles over a slope, with noise.
fn picture(width: usize, height: usize, seed: u64) -> Grey {
    let mut state = seed | 1;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    };
    let mut levels: Vec<usize> = (0..width * height).map(|at| 60 + 90 * (at % width) / width + at / width).collect();
    for _ in 0..12 {
        let (x, y, level) = (random(width), random(height), random(230));
        let (right, lower) = (width.min(x + 2 + random(25)), height.min(y + 2 + random(25)));
        for row in y..lower {
            levels[row * width + x..row * width + right].fill(level);
        }
    }
    let noisy = levels.into_iter().map(|level| u8::try_from((level + random(25)).min(255)).unwrap());
    Grey::new(width, height, noisy.collect()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Cut cascades let many windows pass, so that every stage's decisions show.
    #[test]
    fn candidates_are_those_of_the_plain_detector(
        name in 0usize..5, stages in 1usize..7, width in 18usize..180, height in 18usize..110, seed: u64, factor in 1.05f64..2.0,
    ) {
        let cascade = Name::ALL[name].load().cut(stages);
        let parameters = Parameters { scale_factor: ScaleFactor::new(factor).unwrap(), min_neighbors: 0, min_size: 0 };
        let picture = picture(width, height, seed);
        let expected = candidates(&cascade, &picture, &parameters);
        prop_assert!(Detector::new(cascade).candidates(&picture, &parameters) == expected);
    }
}

#[test]
fn a_detector_can_be_used_again() {
    let cascade = Name::EyeTreeEyeglasses.load().cut(3);
    let parameters = Parameters { min_neighbors: 0, min_size: 0, ..Parameters::default() };
    let mut detector = Detector::new(cascade.clone());
    for (width, height) in [(150, 90), (100, 100), (30, 20), (160, 40), (19, 19)] {
        let picture = picture(width, height, width as u64);
        let found = detector.candidates(&picture, &parameters);
        assert!(found == candidates(&cascade, &picture, &parameters), "{width}x{height}");
    }
}
